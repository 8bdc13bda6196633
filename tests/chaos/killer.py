"""Who is killed, and when: planned from the seed, so that a failure repeats as far as the clock lets it."""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import processes
from tests.chaos.clients import Harm, World
from tests.chaos.model import PAUSED, RUNNING, Box
from tests.chaos.processes import Process

WEIGHTS = {
    "daemon": 5,
    "zygote": 3,
    "seed": 1,
    "keeper": 4,
    "any keeper": 2,
    "launcher": 4,
    "worker": 6,
    "starting daemon": 3,
}
_STEP = 0.002
_SEARCH = 0.4  # seconds for a victim to turn up


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """``after``: so many operations have begun in the round, or were answered if ``answered``, and ``delay``
    seconds went by. ``box``: whose keeper."""

    victim: str
    after: int
    delay: float
    box: str = ""
    answered: bool = False


def plan(dice: random.Random, boxes: Iterable[Box], most: int) -> list[Kill]:
    """The kills of one round of at most ``most`` operations, in their order."""
    kills = []
    candidates = [box.name for box in boxes if box.possible <= {RUNNING, PAUSED}]
    for _ in range(dice.choice((1, 2, 4, 6, 8))):
        (victim,) = dice.choices(list(WEIGHTS), list(WEIGHTS.values()))
        after = dice.randrange(1, most + 1)
        delay = dice.uniform(0, 0.06) if dice.random() < 0.6 else dice.uniform(0, 0.5)
        # What was promised is lost most easily just after the promise.
        answered = victim == "daemon" and dice.random() < 0.6
        delay = dice.uniform(0, 0.003) if answered else delay
        box = dice.choice(candidates) if candidates and victim == "keeper" else ""
        kills.append(Kill(victim=victim, after=after, delay=delay, box=box, answered=answered))
    # A daemon that was killed is started when all operations are over.
    order = {"daemon": 1, "starting daemon": 2}
    return sorted(kills, key=lambda one: (order.get(one.victim, 0), one.after))


class Killer:
    """Carries kills out and counts them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._engine = world.engine
        self.kills: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()

    def count(self, victim: str, *, hit: bool) -> bool:
        (self.kills if hit else self.missed)[victim] += 1
        return hit

    def carry_out(self, kill: Kill, boxes: dict[str, Box]) -> bool:
        """Kill a daemon, zygote, keeper, launcher or worker now; whether there was one."""
        harm = self._world.harm()
        try:
            if kill.victim == "daemon":
                self._engine.kill()
                return self.count("daemon", hit=True)
            if kill.victim == "keeper" and kill.box:
                return self.count("keeper", hit=self._bereave(boxes[kill.box]))
            return self._end_some(kill, boxes, harm)
        finally:
            if kill.victim != "daemon":  # else until the next one serves
                harm.end = time.monotonic()

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
        while True:
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
