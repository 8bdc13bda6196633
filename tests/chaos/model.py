"""What is known of the engine's things from its answers: for each, the set of states that it may be in.

Laws:
- An answer that says "done" leaves one state, or those that the thing may get to by itself.
- A question without an answer leaves the states before it and after it; so does a refusal while something was
  being killed. A refusal at any other time is a violation.
- What is then seen must be among the states, and is what is known from then on.
- Every thing belongs to one client, so that the order of the questions about it is known.
"""

from __future__ import annotations

from dataclasses import dataclass, field

ABSENT, PRESENT = "absent", "present"
CREATED, RUNNING, PAUSED, RESTARTING, EXITED = "created", "running", "paused", "restarting", "exited"

KILLED = 137


@dataclass(slots=True, kw_only=True)
class Box:
    """A container whose program counts aloud; ``turns`` < 0: for ever, else it exits with ``code`` then.

    ``policy`` "" is none. ``first``: the network that it is made for. ``run`` is (pid, its beginning in clock
    ticks, StartedAt) of the run that was last seen. ``harmed``: its keeper is killed in this round. ``lost``:
    its keeper was killed during this run; ``torn``: during any run, so that its log may have half a line.
    ``cut``: a start had no answer. ``ended_by``: how its end was asked for in this run. ``runs``: the most
    runs that it can have had. ``words``: path in it → contents.
    """

    name: str
    turns: int
    code: int = 0
    policy: str = ""
    image: str = ""
    first: str = "bridge"
    possible: set[str] = field(default_factory=lambda: {ABSENT})
    identity: str = ""
    run: tuple[int, int, str] | None = None
    harmed: bool = False
    lost: bool = False
    torn: bool = False
    cut: bool = False
    ended_by: set[str] = field(default_factory=set)
    runs: int = 0
    networks: set[str] = field(default_factory=set)
    perhaps: set[str] = field(default_factory=set)  # networks that it may be on
    words: dict[str, str] = field(default_factory=dict)
    execs: dict[str, set[int]] = field(default_factory=dict)  # word → how often it may have been written

    @property
    def settled(self) -> str:
        """The one state that it must be in, or ""."""
        return next(iter(self.possible)) if len(self.possible) == 1 else ""

    def become(self, *states: str) -> None:
        self.possible = set(states)

    def may(self, *states: str) -> None:
        self.possible |= set(states)

    def started(self, *, surely: bool, again: bool = False, bereft: bool = False) -> None:
        """A start was answered, or was not. ``again``: it may have been tried twice, as when a launcher
        dies. ``bereft``: it may have lost its keeper at once."""
        after = {RUNNING}
        if self.policy:
            after |= {RESTARTING}
        if self.turns >= 0 and not self.policy:
            after |= {EXITED}
        if self.harmed:
            after |= {EXITED, RESTARTING}
        self.possible = after if surely else self.possible | after | {EXITED}
        self.run, self.lost, self.cut = None, False, not surely
        self.torn = self.torn or again or not surely
        self.ended_by = set()
        if bereft:
            self.bereft()
        self.runs += 1 + again

    def ended(self, how: str, *, surely: bool) -> None:
        """A stop or kill was answered, or was not."""
        self.ended_by.add(how)
        if self.policy:
            self.run = None  # a daemon's start may have brought it back
        if surely:
            self.possible = {EXITED}
        else:
            self.possible |= {EXITED}

    def bereft(self) -> None:
        """Its keeper was killed: it is ended, and its policy gets its due."""
        self.lost = self.torn = True
        self.run = None
        if not self.possible & {RUNNING, PAUSED, RESTARTING}:
            return
        if not self.policy:
            self.possible |= {EXITED}
            return
        self.possible |= {RUNNING, RESTARTING}
        self.runs += 2
        if self.ended_by:
            self.possible |= {EXITED}

    def comes_back(self, code: object) -> bool:
        """Whether the start of a daemon starts it, if it is exited."""
        return self.policy == "always" or (self.policy == "on-failure" and code != 0)


@dataclass(slots=True, kw_only=True)
class Thing:
    """A network, a volume or a name of an image.

    ``word`` is what an image's name leads to: its label, and the contents of its /marker if it has one.
    ``words`` of a volume: what was written to it, and how often it may be there.
    """

    name: str
    word: str = ""
    marked: bool = False
    possible: set[str] = field(default_factory=lambda: {ABSENT})
    identity: str = ""
    words: dict[str, set[int]] = field(default_factory=dict)

    @property
    def settled(self) -> str:
        return next(iter(self.possible)) if len(self.possible) == 1 else ""

    def made(self, *, surely: bool) -> None:
        self.possible = {PRESENT} if surely else self.possible | {PRESENT}

    def removed(self, *, surely: bool) -> None:
        self.possible = {ABSENT} if surely else self.possible | {ABSENT}


@dataclass(slots=True, kw_only=True)
class Belongings:
    """All that one client made, by name."""

    boxes: dict[str, Box] = field(default_factory=dict)
    images: dict[str, Thing] = field(default_factory=dict)
    networks: dict[str, Thing] = field(default_factory=dict)
    volumes: dict[str, Thing] = field(default_factory=dict)
    pushed: dict[str, Thing] = field(default_factory=dict)  # in the registry
    passing: set[str] = field(default_factory=set)  # containers of ``run --rm`` that had no good end
    untagged: set[str] = field(default_factory=set)  # images that may have lost their names

    def forget_absent(self) -> None:
        """Nothing need be known any more of what is surely gone."""
        self.boxes = {name: box for name, box in self.boxes.items() if box.possible != {ABSENT}}
        for things in (self.images, self.networks, self.volumes):
            for name in [name for name, thing in things.items() if thing.possible == {ABSENT}]:
                del things[name]
