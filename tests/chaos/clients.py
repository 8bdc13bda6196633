"""A client of the engine: asks, judges the answers, and notes what they leave to be true."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.engine import Answer, Engine
from tests.chaos.model import ABSENT, Belongings, Box

DONE, UNKNOWN, NEVER = "done", "unknown", "never"
FAILED_IN_STREAM = 599
"""Status for a stream that began well and ended with an error."""

STARTS = ("start", "run -d")
ONE_TAKEN = (["launcher"], ["seed"], ["zygote"])
"""Deaths that a start takes without a word to its client."""

PROGRAM = (
    "trap 'echo 7 >/out/code; exit 7' TERM; i=0; while [ $i -ne {turns} ]; do echo $i; echo $i >/out/at;"
    " i=$((i+1)); sleep 0.1; done; echo {code} >/out/code; exit {code}"
)


class Violation(AssertionError):
    """What must not be."""


@dataclass(slots=True)
class Harm:
    """The time in which a ``victim`` is being killed; ``blind``: a keeper of which it is not known whose."""

    end: float = float("inf")
    blind: bool = False
    victim: str = ""


class World:
    """What all clients share: the engine, the registry, when something was being killed, and the counts."""

    def __init__(self, engine: Engine, registry: str, archives: dict[str, bytes]) -> None:
        self.engine = engine
        self.registry = registry
        self.archives = archives
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.violations: list[str] = []
        self._kills: list[Harm] = []
        self._mutex = threading.Lock()
        self.began = threading.Condition()
        self.operations = self.answers = 0  # begun, and answered well, in this round
        self.busy: Counter[str] = Counter()  # operations under way
        self.aim = ""  # the operation whose answer is to be the daemon's last word
        self.shoot: Callable[[], None] | None = None
        self.lost: set[str] = set()  # ids of containers whose keepers were killed

    def count(self, kind: str, how: str) -> None:
        with self._mutex:
            self.asked[kind] += 1
            self.answered[f"{kind} {how}"] += 1

    def begin(self, kind: str) -> None:
        """An operation begins; the killer counts."""
        with self.began:
            self.operations += 1
            self.busy[kind] += 1
            self.began.notify_all()

    def end(self, kind: str) -> None:
        with self.began:
            self.busy[kind] -= 1
            self.began.notify_all()

    def acknowledge(self, kind: str) -> None:
        """Something is done for good from now on; the killer counts, or kills the daemon here and now."""
        with self.began:
            self.answers += 1
            shoot = self.shoot if kind == self.aim else None
            if shoot is not None:
                self.aim = ""
            self.began.notify_all()
        if shoot is not None:
            shoot()

    def harm(self, victim: str) -> Harm:
        """Something is killed from now on."""
        harm = Harm(victim=victim)
        with self._mutex:
            self._kills.append(harm)
        return harm

    def serves_again(self) -> None:
        """What was killed is there again: from now on nothing is excused."""
        with self._mutex:
            for harm in self._kills:
                harm.end = min(harm.end, time.monotonic())

    def harmed(self, since: float, *, blindly: bool = False) -> bool:
        """Whether anything was being killed since then; ``blindly``: a keeper, nobody knows whose."""
        with self._mutex:
            return any(harm.end >= since and (harm.blind or not blindly) for harm in self._kills)

    def victims(self, since: float) -> list[str]:
        """Who was being killed since then."""
        with self._mutex:
            return [harm.victim for harm in self._kills if harm.end >= since]

    def violated(self, text: str) -> None:
        with self._mutex:
            self.violations.append(text)


class Client:
    """One of several; everything it makes is named after it. ``dice`` are thrown anew for each round."""

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.world = world
        self.engine = world.engine
        self.has = Belongings()
        self.dice = random.Random(0)
        self.since = 0.0
        self.kind = ""
        self.alive = True
        self._number = 0

    def fresh(self, sort: str) -> str:
        """A name, or a word, that there has never been."""
        self._number += 1
        return f"{self.name}-{sort}{self._number}"

    def home(self, box: str) -> str:
        """The directory that a container has as /out."""
        return f"{self.engine.root}/out/{box}"

    @property
    def label(self) -> dict[str, str]:
        return {"chaos": self.name}

    # ---- asking

    def start_of(self, kind: str) -> None:
        self.kind, self.since = kind, time.monotonic()
        self.world.begin(kind)

    def ask(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Answer:
        return self.engine.ask(method, path, body, kind)

    def stream(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Answer:
        """A question whose answer is a stream of documents, the last of which may be an error."""
        answer = self.ask(method, path, body, kind)
        if answer.status == 200:
            for line in answer.lines():
                if "error" in line:
                    return Answer(status=FAILED_IN_STREAM, body=str(line).encode())
        return answer

    def judge(self, answer: Answer, *good: int, box: Box | None = None) -> str:
        """What an answer comes to; a bad one is a violation unless something was being killed meanwhile."""
        if answer.status in good:
            how = DONE
            self.world.acknowledge(self.kind)
        else:
            how = NEVER if answer.status == -1 else UNKNOWN
            self.alive = self.alive and how != NEVER
            victims = self.world.victims(self.since)
            enough = bool(victims) and not (self.kind in STARTS and victims in ONE_TAKEN)
            if not (enough or (box is not None and box.harmed)):
                self.world.violated(
                    f"{self.name}: {self.kind} {box.name if box else ''}: status {answer.status},"
                    f" wanted {good}, though {victims or 'nothing'} was killed: {answer.body[-500:]!r}"
                )
        return how

    def command(self, *arguments: str, good: int = 0, box: Box | None = None) -> tuple[str, bytes]:
        """What a command of the CLI comes to, and its output."""
        done = self.engine.command(*arguments)
        status = 200 if done.returncode == good else 0
        text = f"exit {done.returncode} of {arguments}: {done.stderr.decode()[-300:]}"
        how = self.judge(Answer(status=status, body=text.encode()), 200, box=box)
        return how, done.stdout

    # ---- boxes

    def new_box(self, *, image: str = "") -> tuple[Box, dict[str, Any]]:
        """A container to be, and the request that makes it."""
        dice = self.dice
        endless = dice.random() < 0.65
        policy = dice.choice(("", "", "", "always", "on-failure", "unless-stopped")) if endless else ""
        box = Box(
            name=self.fresh("box"),
            turns=-1 if endless else dice.randrange(1, 25),
            code=dice.randrange(10),
            policy=policy,
            image=image,
        )
        Path(self.home(box.name)).mkdir(parents=True)
        Path(self.home(box.name)).chmod(0o777)
        host: dict[str, Any] = {"Binds": [f"{self.home(box.name)}:/out"]}
        if policy:
            host["RestartPolicy"] = {"Name": policy}
        if dice.random() < 0.3:
            host["PortBindings"] = {"9/tcp": [{"HostIp": "127.0.0.1"}]}
        networks = self.settled("networks")
        if networks and dice.random() < 0.4:
            host["NetworkMode"] = dice.choice(networks)
            box.first = host["NetworkMode"]
        box.networks.add(box.first)
        body = {
            "Image": image or "busybox:latest",
            "Cmd": ["sh", "-c", PROGRAM.format(turns=box.turns, code=box.code)],
            "Labels": self.label,
            "ExposedPorts": {"9/tcp": {}},
            "HostConfig": host,
        }
        return box, body

    def arm(self, box: Box) -> None:
        """Before a start: what the program's last run noted says nothing of the next."""
        for name in ("code", "at"):
            with suppress(FileNotFoundError):
                Path(self.home(box.name), name).rename(Path(self.home(box.name), f"{name}.before"))

    def disarm(self, box: Box) -> None:
        """It was not started after all."""
        for name in ("code", "at"):
            with suppress(FileNotFoundError):
                Path(self.home(box.name), f"{name}.before").rename(Path(self.home(box.name), name))

    def began(self, box: Box, how: str) -> None:
        """A start was answered, or was not."""
        world = self.world
        harmed, bereft = world.harmed(self.since), world.harmed(self.since, blindly=True)
        box.started(surely=how == DONE, again=harmed, bereft=bereft)

    def boxes(self, *states: str, policy: bool = True, harmed: bool = True) -> list[Box]:
        """The containers that are surely in one of these states."""
        return [
            box
            for box in self.has.boxes.values()
            if (box.possible <= set(states) or (box.harmed and box.possible & set(states)))
            and (policy or not box.policy)
            and (harmed or not box.harmed)
        ]

    def settled(self, sort: str) -> list[str]:
        """The names of the networks, volumes or images that are surely there."""
        return [name for name, thing in getattr(self.has, sort).items() if ABSENT not in thing.possible]
