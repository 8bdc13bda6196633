"""Ranges of host ids, leased to containers while they run in user namespaces of their own.

Laws: two leases never overlap; a lease lasts from before the start until the container has been torn down;
layers on disk keep the ids of their archives, so that a range leaves no trace when it is given back.
Ranges are multiples of ``unit`` ids and aligned to it.
"""

from __future__ import annotations

import itertools

from sampan.errors import Unavailable

_LAST_ID = 1 << 31  # some kernels and tools read ids as signed


class IdRanges:
    """Pool of ids from ``first`` on."""

    def __init__(self, *, first: int, unit: int = 65536) -> None:
        self.unit = unit
        self._first = first
        self._count = (_LAST_ID - first) // unit
        self._next = 0
        self._used: set[int] = set()
        self._leases: dict[str, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._leases)

    def lease(self, holder: str, span: int) -> tuple[int, int]:
        """(first host id, number of ids), at least ``span`` of them; the former lease is given back."""
        self.release(holder)
        units = max(1, -(-span // self.unit))
        start = self._find(units)
        if start is None:
            raise Unavailable("no range of user ids is free for another container")
        self._take(holder, start, units)
        self._next = start + units
        return self._leases[holder]

    def claim(self, holder: str, base: int, span: int) -> bool:
        """Take back the range of a container found running; False when it is not this pool's or is taken."""
        start, rest = divmod(base - self._first, self.unit)
        units = -(-span // self.unit)
        wanted = range(start, start + units)
        if rest or start < 0 or start + units > self._count or not self._used.isdisjoint(wanted):
            return False
        self._take(holder, start, units)
        return True

    def release(self, holder: str) -> None:
        """Succeeds when nothing is leased."""
        base, span = self._leases.pop(holder, (0, 0))
        if span:
            start = (base - self._first) // self.unit
            self._used.difference_update(range(start, start + span // self.unit))

    def _find(self, units: int) -> int | None:
        last = self._count - units + 1
        for start in itertools.chain(range(self._next, last), range(min(self._next, last))):
            if self._used.isdisjoint(range(start, start + units)):
                return start
        return None

    def _take(self, holder: str, start: int, units: int) -> None:
        self._used.update(range(start, start + units))
        self._leases[holder] = (self._first + start * self.unit, units * self.unit)
