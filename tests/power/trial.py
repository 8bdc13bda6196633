"""One trial: an engine works on a recording disk; then its power has failed at many moments.

The engine that works believes to be in an earlier boot than those that start after the losses.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from tests.power import disk, losses
from tests.power.engine import engine
from tests.power.ledger import Ledger
from tests.power.verdict import judge
from tests.power.work import KINDS, Work, prepare

_SIZE = {"ext4": 128 << 20, "xfs": 512 << 20, "btrfs": 512 << 20}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What was found after one loss of power; ``wrong`` is empty if all is as promised."""

    moment: int
    what: str
    promised: int
    wrong: list[str]


def run(
    seed: int,
    *,
    cuts: int,
    steps: int,
    kinds: Collection[str] = KINDS,
    filesystem: str = "ext4",
    registry: str | None = None,
    options: tuple[str, ...] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[Loss]:
    """Work for ``steps`` steps, each of ``kinds`` once first; then lose power at ``cuts`` moments of it."""
    chance = random.Random(seed)
    root = tempfile.mkdtemp(prefix="sampan-power-")
    place = f"{root}/disk"
    os.mkdir(place)
    try:
        with tempfile.TemporaryDirectory(prefix="sampan-power-", dir=disk.memory()) as store:
            ledger, begin = _record(chance, root, place, steps, kinds, filesystem, registry, options, store)
            log = f"{store}/log"
            found = losses.entries(log)
            flushes = sum(one.flush for one in found if one.end > begin)
            tell(f"{len(found)} entries, {flushes} flushes of the work")
            dying = losses.Disk(log, _SIZE[filesystem], f"{store}/flushed")
            for number, moment in enumerate(losses.choose(found, ledger.moments(), begin, cuts, chance)):
                # A file of its own for each: a file system that lives on for a moment writes to its own.
                image = f"{store}/lost{number}"
                left = dying.lost(moment, image, chance)
                yield _after(f"{root}/{number}", place, image, filesystem, ledger, moment, left, options)
                os.unlink(image)
            dying.close()
    finally:
        shutil.rmtree(root)


def _record(
    chance: random.Random,
    root: str,
    place: str,
    steps: int,
    kinds: Collection[str],
    filesystem: str,
    registry: str | None,
    options: tuple[str, ...],
    store: str,
) -> tuple[Ledger, int]:
    home = f"{root}/before"
    os.mkdir(home)
    with (
        disk.recording(place, _SIZE[filesystem], filesystem) as recorded,
        engine(home, f"{place}/data", *options, earlier=True) as serving,
    ):
        pulled = prepare(serving, registry)
        ledger = Ledger(recorded.position)
        begin = recorded.position()
        work = Work(serving, ledger, chance, pulled)
        work.everything(kinds)
        work.steps(steps, kinds)
        end = recorded.position()
        with open(recorded.log, "rb") as log, open(f"{store}/log", "wb") as kept:
            shutil.copyfileobj(log, kept, 1 << 20)
            kept.truncate(end)
    return ledger, begin


def _after(
    home: str,
    place: str,
    image: str,
    filesystem: str,
    ledger: Ledger,
    moment: int,
    left: str,
    options: tuple[str, ...],
) -> Loss:
    os.mkdir(home)
    promised, last = ledger.at(moment)
    what = f"{last}, {left} since the last flush"
    with disk.loop_device(image) as device, disk.mounted(device, place, filesystem):
        try:
            with engine(home, f"{place}/data", *options) as serving:
                wrong = judge(serving, promised)
        except AssertionError as error:
            wrong = [str(error)[-1500:]]
    shutil.rmtree(home)
    certain = sum(None not in values for values in promised.values())
    return Loss(moment=moment, what=what, promised=certain, wrong=wrong)
