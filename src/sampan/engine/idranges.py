"""Ranges of host ids, leased to containers while they run in user namespaces of their own.

Laws: two leases never overlap, but for those of containers that share one user namespace, whose range is
taken until the last of them gives it back; a lease lasts from before the start until the container has been
torn down; layers on disk keep the ids of their archives, so that a range leaves no trace when it is given
back. Ranges are multiples of ``unit`` ids, and lie in blocks of ids that are this engine's alone.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from sampan.errors import Unavailable

LAST_ID = (
    0x70000000  # beyond it lies what systemd uses for other things, and what some tools read as negative
)


class Blocks(Protocol):
    """Blocks of ids that no other engine of this host uses; an id belongs to block ``id // size``."""

    @property
    def size(self) -> int: ...

    @property
    def reserved(self) -> Iterable[tuple[int, int]]:
        """(first id, count) of what the host has given to somebody else."""

    def held(self) -> Iterable[int]:
        """The blocks that are this engine's already."""

    def claim(self) -> int | None:
        """Take another block; None when none is free."""

    def reclaim(self, block: int) -> bool:
        """Take this very block; whether it is this engine's now."""


class OneEngine:
    """The blocks of an engine that is alone on its host, from ``first`` on."""

    reserved: Iterable[tuple[int, int]] = ()

    def __init__(self, *, first: int = 0, size: int = 1 << 25) -> None:
        self.size = size
        self._free = iter(range(-(-first // size), LAST_ID // size))

    def held(self) -> Iterable[int]:
        return ()

    def claim(self) -> int | None:
        return next(self._free, None)

    def reclaim(self, block: int) -> bool:
        return True


class IdRanges:
    """Pool of the ids in ``blocks``."""

    def __init__(self, blocks: Blocks, *, unit: int = 65536) -> None:
        self.unit = unit
        self._blocks = blocks
        self._per_block = blocks.size // unit
        self._held: list[int] = []
        self._next = 0
        self._used: set[int] = set()  # units
        self._leases: dict[str, tuple[int, int]] = {}
        self._holders: Counter[tuple[int, int]] = Counter()  # of each range
        for block in sorted(blocks.held()):
            self._hold(block)

    def __len__(self) -> int:
        return len(self._leases)

    @property
    def largest(self) -> int:
        """The most ids that one lease can have."""
        return self._per_block // 2 * self.unit

    def lease(self, holder: str, span: int) -> tuple[int, int]:
        """(first host id, number of ids), at least ``span`` of them; the former lease is given back."""
        self.release(holder)
        base, span = self.next(span)
        start, units = base // self.unit, span // self.unit
        self._take(holder, start, units)
        self._next = start + units
        return self._leases[holder]

    def next(self, span: int) -> tuple[int, int]:
        """The range that ``lease`` would take now. Unavailable when there is none."""
        units = max(1, -(-span // self.unit))
        start = self._find(units)
        while start is None:
            block = self._blocks.claim()
            if block is None:
                raise Unavailable("no range of user ids is free for another container")
            self._hold(block)
            start = self._find(units)
        return start * self.unit, units * self.unit

    def claim(self, holder: str, base: int, span: int) -> bool:
        """Take the range of a container found running, or of one whose user namespace is joined.

        False when it is not this engine's, or partly somebody else's.
        """
        start, rest = divmod(base, self.unit)
        units = -(-span // self.unit)
        block = start // self._per_block
        if rest or units < 1 or (start + units - 1) // self._per_block != block:
            return False
        if block not in self._held:
            if not self._blocks.reclaim(block):
                return False
            self._hold(block)
        shared = (start * self.unit, units * self.unit) in self._holders
        if not shared and not self._used.isdisjoint(range(start, start + units)):
            return False
        self._take(holder, start, units)
        return True

    def release(self, holder: str) -> None:
        """Succeeds when nothing is leased."""
        lease = self._leases.pop(holder, None)
        if lease is None:
            return
        self._holders[lease] -= 1
        if not self._holders[lease]:
            del self._holders[lease]
            base, span = lease
            self._used.difference_update(range(base // self.unit, (base + span) // self.unit))

    def _hold(self, block: int) -> None:
        self._held.append(block)
        first = block * self._per_block
        if len(self._held) == 1:
            self._next = first
        for start, count in self._blocks.reserved:
            units = range(start // self.unit, -(-(start + count) // self.unit))
            self._used.update(unit for unit in units if first <= unit < first + self._per_block)

    def _find(self, units: int) -> int | None:
        for block in self._held:
            first = block * self._per_block
            last = first + self._per_block - units + 1
            turn = min(max(self._next, first), last)
            # In turn, so that what a container has left is not the next one's at once.
            for start in itertools.chain(range(turn, last), range(first, turn)):
                if self._used.isdisjoint(range(start, start + units)):
                    return start
        return None

    def _take(self, holder: str, start: int, units: int) -> None:
        lease = (start * self.unit, units * self.unit)
        self._holders[lease] += 1  # first: the holder's former lease may be the same
        self.release(holder)
        self._used.update(range(start, start + units))
        self._leases[holder] = lease
