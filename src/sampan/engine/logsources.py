"""One file of a container's log: open, plain or compressed, read in blocks from any place on.

A place is an offset into the output of decompression, so that it stays true when a file is compressed while
it is read. A rotated file keeps its time of change when it is compressed, by which it is known again then.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import closing

from sampan.sandbox.logfile import COMPRESSED, rotated

HEAD = 4096
"""Bytes of a first line by which a file is known."""

_GZIP = 31  # zlib's way to ask for a gzip stream with the largest window


def files(path: str) -> list[str]:
    """The files of the log at ``path`` that are there, oldest first."""
    found: list[str] = []
    number, missing = 1, 0
    while missing < 2:  # how many there may be is not known here; one may be missing during a rotation
        here = next(filter(os.path.exists, rotated(path, number)), "")
        missing = 0 if here else missing + 1
        found += [here] if here else []
        number += 1
    return found[::-1] + ([path] if os.path.exists(path) else [])


class Source:
    """An open file; ``offset`` is where the next block begins. Raises FileNotFoundError."""

    def __init__(self, path: str, *, block: int) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._block = block
        self._stream = zlib.decompressobj(_GZIP) if path.endswith(COMPRESSED) else None
        self.offset = 0
        self._head = b""

    def close(self) -> None:
        os.close(self._fd)

    def read(self) -> bytes:
        """The next block; b"" when there is no more for now."""
        data = os.read(self._fd, self._block) if self._stream is None else self._unpack()
        self.offset += len(data)
        return data

    def _unpack(self) -> bytes:
        assert self._stream is not None
        while not self._stream.eof:
            packed = self._stream.unconsumed_tail or os.read(self._fd, self._block)
            if not packed:  # cut short: what a writer that was killed left, which nothing names
                break
            try:
                data = self._stream.decompress(packed, self._block)
            except zlib.error:
                break
            if data:
                self._head = self._head or data[:HEAD].partition(b"\n")[0]
                return data
        return b""

    def skip(self, place: int) -> None:
        """Stand at ``place``, counted from the beginning; only forward in a compressed file."""
        if self._stream is None:
            self.offset = os.lseek(self._fd, place, os.SEEK_SET)
            return
        while self.offset < place:
            left, block = place - self.offset, self._block
            self._block = min(left, block)
            try:
                if not self.read():
                    return
            finally:
                self._block = block

    def grew(self) -> bool:
        """Whether there is more to read than was read so far."""
        return self.left() > 0

    def left(self) -> int:
        """Bytes that have not been read yet; 0 for a compressed file, of which that is not known."""
        return 0 if self._stream is not None else os.fstat(self._fd).st_size - self.offset

    @property
    def inode(self) -> int:
        return os.fstat(self._fd).st_ino

    def head(self) -> bytes:
        """The first line, or as much of it as is there."""
        if self._stream is None:
            return os.pread(self._fd, HEAD, 0).partition(b"\n")[0]
        if not self.offset:
            self.read()
        return self._head

    def is_at(self, path: str) -> bool:
        """Whether ``path`` names this file, or what it was compressed to."""
        try:
            theirs = os.stat(path)
        except FileNotFoundError:
            return False
        ours = os.fstat(self._fd)
        if ours.st_ino == theirs.st_ino:
            return True
        return path.endswith(COMPRESSED) and ours.st_mtime_ns == theirs.st_mtime_ns


def blocks(path: str, size: int) -> Iterator[bytes]:
    """A file's content from its beginning; nothing when it is gone."""
    try:
        source = Source(path, block=size)
    except FileNotFoundError:
        return
    with closing(source):
        while data := source.read():
            yield data


def tail(path: str, count: int, *, block: int) -> tuple[int, int]:
    """(where the ``count`` last lines of a file begin, how many it has of them)."""
    if path.endswith(COMPRESSED):
        return _tail_forwards(path, count, block)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0, 0
    try:
        if not count:
            return os.fstat(fd).st_size, 0
        return _tail_backwards(fd, count, block)
    finally:
        os.close(fd)


def _tail_backwards(fd: int, count: int, block: int) -> tuple[int, int]:
    position = os.fstat(fd).st_size
    found = -1  # the newline that ends the last line begins none
    while position > 0:
        size = min(block, position)
        position -= size
        data = os.pread(fd, size, position)
        lines = data.count(b"\n")
        if found + lines >= count:
            at = len(data)
            for _ in range(count - found):
                at = data.rindex(b"\n", 0, at)
            return position + at + 1, count
        found += lines
    return 0, found + 1


def _tail_forwards(path: str, count: int, block: int) -> tuple[int, int]:
    total = sum(data.count(b"\n") for data in blocks(path, block))
    passed = offset = 0
    for data in blocks(path, block):
        lines = data.count(b"\n")
        if passed + lines > total - count > 0:
            at = 0
            for _ in range(total - count - passed):
                at = data.index(b"\n", at) + 1
            return offset + at, count
        passed += lines
        offset += len(data)
        if passed == total - count:
            # The border is the newline that the block ended with, or lies in it.
            return offset - len(data) + data.rindex(b"\n") + 1, count
    return 0, total
