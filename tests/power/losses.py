"""What a disk may hold after its power failed at some moment of a recorded log.

Law: everything that was written before the last flush is there. Of what was written since, any part may be
there and any part not, whatever the order, and a write may have been cut anywhere between two sectors of 512
bytes. No disk keeps less than that; many keep more.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.power.disk import FLUSH, HEAD

SECTOR, PAGE = 512, 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A write of ``size`` bytes that are in the log at ``data``; ``size`` is zero for a flush.

    ``end`` is the position after which it had happened.
    """

    flush: bool
    offset: int
    size: int
    data: int
    end: int


def entries(log: str) -> list[Entry]:
    """The whole entries of a log."""
    found: list[Entry] = []
    with open(log, "rb") as file:
        length, place = os.fstat(file.fileno()).st_size, 0
        while place + HEAD.size <= length:
            kind, offset, size = HEAD.unpack(os.pread(file.fileno(), HEAD.size, place))
            data, place = place + HEAD.size, place + HEAD.size + size
            found.append(Entry(flush=kind == FLUSH, offset=offset, size=size, data=data, end=place))
    return found


def choose(
    found: Sequence[Entry], moments: Sequence[int], begin: int, count: int, chance: random.Random
) -> list[int]:
    """Positions at which the power fails, in order, none before ``begin``.

    Most are ``moments``, at which something had just been acknowledged: there a missing flush shows.
    """
    ends = [entry.end for entry in found if entry.end > begin]
    wanted = [moment for moment in moments if moment >= begin]
    sharp = chance.sample(wanted, min(len(wanted), count * 2 // 3))
    return sorted([*sharp, *(chance.choice(ends) for _ in range(count - len(sharp)))])


class Disk:
    """A disk that grows along a log, and can be had as after a loss of power at positions that only grow."""

    def __init__(self, log: str, size: int, image: str) -> None:
        self._entries = entries(log)
        self._log = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
        self._image = os.open(image, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._image, size)
        self._size = size
        self._next = 0

    def close(self) -> None:
        os.close(self._log)
        os.close(self._image)

    def lost(self, position: int, target: str, chance: random.Random) -> str:
        """Make ``target`` the disk after a loss at ``position``; what was left of what was not flushed."""
        happened = self._next
        while happened < len(self._entries) and self._entries[happened].end <= position:
            happened += 1
        flushed = max((n for n in range(self._next, happened) if self._entries[n].flush), default=self._next)
        for entry in self._entries[self._next : flushed]:
            self._write(self._image, entry, 0, entry.size)
        self._next = flushed
        pending = [entry for entry in self._entries[flushed:happened] if not entry.flush]
        self._copy(target)
        share = chance.choice((0.0, 0.0, 0.2, 0.5, 0.8, 1.0))
        kept = [entry for entry in pending if chance.random() < share]
        out = os.open(target, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for entry in kept:
                for begin, size in _pieces(entry, chance):
                    self._write(out, entry, begin, size)
        finally:
            os.close(out)
        return f"{len(kept)} of {len(pending)} writes"

    def _write(self, fd: int, entry: Entry, begin: int, size: int) -> None:
        os.pwrite(fd, os.pread(self._log, size, entry.data + begin), entry.offset + begin)

    def _copy(self, target: str) -> None:
        out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(out, self._size)
            for begin, end in self._parts():
                os.lseek(out, begin, os.SEEK_SET)
                while begin < end:
                    begin += os.sendfile(out, self._image, begin, end - begin)
        finally:
            os.close(out)

    def _parts(self) -> Iterator[tuple[int, int]]:
        """Where the image has bytes."""
        end = 0
        while end < self._size:
            try:
                begin = os.lseek(self._image, end, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole is left
                return
            end = os.lseek(self._image, begin, os.SEEK_HOLE)
            yield begin, end


def _pieces(entry: Entry, chance: random.Random) -> Iterator[tuple[int, int]]:
    """The parts of a write that reached the disk, as (begin, size)."""
    if chance.random() < 0.7:
        yield 0, entry.size
        return
    unit = SECTOR if chance.random() < 0.3 else PAGE
    for begin in range(0, entry.size, unit):
        if chance.random() < 0.5:
            yield begin, min(unit, entry.size - begin)
