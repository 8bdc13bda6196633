"""Who is killed, and when: planned from the seed, so that a failure repeats as far as the clock lets it."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import processes
from tests.chaos.clients import Harm, World
from tests.chaos.model import ABSENT, CREATED, EXITED, PAUSED, RUNNING, Box
from tests.chaos.processes import Process

WEIGHTS = {
    "daemon": 5,
    "zygote": 3,
    "seed": 1,
    "keeper": 4,
    "any keeper": 2,
    "launcher": 4,
    "worker": 4,
    "starting daemon": 3,
    "everybody": 1,
}
LAST = ("daemon", "everybody")
"""After whom there is nobody to ask until all operations are over."""
_STEP = 0.001
_SEARCH = 1.0  # seconds for a victim to turn up


_STARTING = "starting daemon"
_HOW = ("aimed", "aimed", "aimed", "answered", "waiting", "")
"""How the daemon's moment is found; "": by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """``after``: so many operations have begun in the round, or were answered if ``answered``, and ``delay``
    seconds went by. ``box``: whose keeper; a daemon follows the keeper, so that a start by policy waits.
    ``aimed``: at the answer to an operation that is chosen when the round begins."""

    victim: str
    after: int
    delay: float
    box: str = ""
    answered: bool = False
    aimed: bool = False


def plan(dice: random.Random, boxes: Iterable[Box], most: int) -> list[Kill]:
    """The kills of one round of at most ``most`` operations, in their order."""
    kills = []
    boxes = list(boxes)
    candidates = [box.name for box in boxes if box.possible <= {RUNNING, PAUSED}]
    by_policy = [box.name for box in boxes if box.policy and box.possible == {RUNNING}]
    for _ in range(dice.choice((1, 2, 4, 6, 8))):
        (victim,) = dice.choices(list(WEIGHTS), list(WEIGHTS.values()))
        after = dice.randrange(1, most + 1)
        delay = dice.uniform(0, 0.06) if dice.random() < 0.6 else dice.uniform(0, 0.5)
        # What was promised is lost most easily just after the promise.
        how = dice.choice(_HOW) if victim == "daemon" else ""
        box = dice.choice(candidates) if candidates and victim == "keeper" else ""
        if how == "answered":
            delay = dice.uniform(0, 0.003)
        elif how == "waiting":
            delay = dice.uniform(0, 0.08)
            box = dice.choice(by_policy) if by_policy else ""
        kills.append(
            Kill(
                victim=victim,
                after=after,
                delay=delay,
                box=box,
                answered=how == "answered",
                aimed=how == "aimed",
            )
        )
    # A daemon that was killed is started when all operations are over, and there is one of them.
    last = [one for one in kills if one.victim in LAST][:1]
    first = sorted((one for one in kills if one.victim not in (*LAST, _STARTING)), key=lambda one: one.after)
    return [*first, *last, *(one for one in kills if one.victim == _STARTING)]


class Killer:
    """Carries kills out and counts them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._engine = world.engine
        self._shooting = threading.Lock()
        self.kills: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()

    def count(self, victim: str, *, hit: bool) -> bool:
        (self.kills if hit else self.missed)[victim] += 1
        return hit

    def carry_out(self, kill: Kill, boxes: dict[str, Box]) -> bool:
        """Kill a daemon, zygote, keeper, launcher or worker now, or all of them; whether there was one."""
        harm = self._world.harm(kill.victim)
        try:
            if kill.victim == "everybody":
                return self._end_everybody(boxes, harm)
            if kill.victim == "daemon":
                if kill.box:
                    self.count("keeper", hit=self._bereave(boxes[kill.box]))
                    time.sleep(kill.delay)
                self._engine.kill()
                return self.count("daemon", hit=True)
            if kill.victim == "keeper" and kill.box:
                return self.count("keeper", hit=self._bereave(boxes[kill.box]))
            return self._end_some(kill, boxes, harm)
        finally:
            if kill.victim not in LAST:  # else until the next one serves
                harm.end = time.monotonic()

    def shoot(self) -> None:
        """Kill the daemon in whatever thread this is."""
        with self._shooting:
            if self._engine.pid:
                self._world.harm("daemon")
                self._engine.kill()
                self.count("daemon", hit=True)

    def _end_everybody(self, boxes: dict[str, Box], harm: Harm) -> bool:
        """What an engine is made of, at once; the containers' own processes go on without it."""
        harm.blind = True
        for one in processes.of_engine(self._engine.run):
            if one.kind not in ("program", "child"):
                with suppress(ProcessLookupError):
                    os.kill(one.pid, signal.SIGKILL)
        for box in boxes.values():
            if box.run is not None or box.settled not in (ABSENT, CREATED, EXITED):
                box.harmed = True
                box.bereft()
        self._engine.kill()
        return self.count("everybody", hit=True)

    def _bereave(self, box: Box) -> bool:
        if box.run is None:
            return False
        pid, began, _ = box.run
        found = processes.look(pid)
        if found is None or found.began != began:
            return False
        keeper = processes.look(found.parent)
        if keeper is None or not keeper.command.startswith(b"sampan-zygote") or keeper.session == keeper.pid:
            return False
        box.bereft()
        return processes.end(keeper.pid)

    def _end_some(self, kill: Kill, boxes: dict[str, Box], harm: Harm) -> bool:
        """Any process of a kind; workers and launchers are short-lived and waited for."""
        kind = {"any keeper": "keeper"}.get(kill.victim, kill.victim)
        end = time.monotonic() + (_SEARCH if kind in ("worker", "launcher") else 0)
        zygotes = [one.pid for one in processes.of_engine(self._engine.run) if one.kind == "zygote"]
        while True:
            if kind == "worker":  # short-lived: there is no time to look at everybody
                found = processes.workers(zygotes)
            else:
                found = [one for one in processes.of_engine(self._engine.run) if one.kind == kind]
            if found and self._end_one(found[int(kill.delay * 1e6) % len(found)], boxes, harm):
                return self.count(kill.victim, hit=True)
            if time.monotonic() >= end:
                return self.count(kill.victim, hit=False)
            time.sleep(_STEP)

    def _end_one(self, victim: Process, boxes: dict[str, Box], harm: Harm) -> bool:
        if victim.kind == "keeper":
            harm.blind = True  # what it is just starting may not be to be seen
            for child in processes.children_of(victim.pid):
                with suppress(OSError):
                    for identity in re.findall(r"[0-9a-f]{64}", Path(f"/proc/{child}/cgroup").read_text()):
                        self._world.lost.add(identity)
            for box in boxes.values():
                if box.identity in self._world.lost:
                    box.harmed = True
                    box.bereft()
        return processes.end(victim.pid)
