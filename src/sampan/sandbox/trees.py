"""A container's whole tree against those that it was copied from: what it changed.

Theory: where there is no overlay (``RootFilesystem.kind`` "tree") nothing but a comparison says what a
container wrote. An entry that the trees below lack was added; one of theirs that is not there was removed;
anything else was changed if its looks differ, or, with equal looks, if it was touched after the copy was made
and its contents differ: a program can set a file's time back.

Law: trees below have no marks: the first that has a name decides what it is.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument
from sampan.sandbox.marks import WHITEOUT
from sampan.sandbox.pack import Packer, Style, xattrs_of
from sampan.wire import tar

if TYPE_CHECKING:
    from types import TracebackType

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BLOCK = 1 << 20
_DEEPEST = 200
_LONGEST = 4096  # bytes of a path; what lies deeper has no name that a system call takes


class Trees:
    """One directory of several trees, topmost first, by descriptors that it owns."""

    def __init__(self, fds: Iterable[int]) -> None:
        self.fds = tuple(fds)

    @classmethod
    def open(cls, paths: Iterable[str]) -> Trees:
        fds: list[int] = []
        try:
            for path in paths:
                fds.append(os.open(path, _DIRECTORY))
        except BaseException:
            cls(fds).close()
            raise
        return cls(fds)

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds = ()

    def __enter__(self) -> Trees:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def names(self) -> set[bytes]:
        """Everything that is in it."""
        return {os.fsencode(name) for fd in self.fds for name in os.listdir(fd)}

    def find(self, name: bytes) -> tuple[int, os.stat_result] | None:
        """The directory that has an entry of this name, and the entry's looks."""
        for fd in self.fds:
            with suppress(FileNotFoundError):
                return fd, os.stat(name, dir_fd=fd, follow_symlinks=False)
        return None

    def inside(self, name: bytes) -> Trees:
        """The directory ``name`` of each tree that has it, down to the first with something else there."""
        fds: list[int] = []
        for fd in self.fds:
            try:
                there = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(there.st_mode):
                break
            fds.append(os.open(name, _DIRECTORY, dir_fd=fd))
        return Trees(fds)


class Changes(Packer):
    """Packs what a tree changed as a layer. ``made`` is when it was copied, in ns."""

    def __init__(self, out: int, made: int, latest: int | None = None) -> None:
        super().__init__(out, Style(sparse=True, latest=latest))
        self._made = made
        self._unsaid: list[tuple[int, bytes]] = []

    def run(self, upper: int, below: Trees) -> None:
        """Pack and end the archive; the descriptors stay the caller's."""
        self._changed(upper, below, b"")
        self.finish()

    def _changed(self, upper: int, below: Trees, prefix: bytes) -> None:
        if len(prefix) > _LONGEST:
            raise InvalidArgument("file name too long: the tree is too deep")
        names = {os.fsencode(name) for name in os.listdir(upper)}
        for name in sorted(names):
            with suppress(FileNotFoundError, NotADirectoryError):  # the container may go on meanwhile
                self._compared(upper, below, name, prefix)
        for name in sorted(below.names() - names):
            self._say()
            mark = self._described(prefix + WHITEOUT + name, tar.REGULAR, os.fstat(upper))
            mark.mode = 0o600
            self._gather(tar.header(mark))

    def _compared(self, upper: int, below: Trees, name: bytes, prefix: bytes) -> None:
        there = os.stat(name, dir_fd=upper, follow_symlinks=False)
        found = below.find(name)
        changed = found is None or not _equal(upper, name, there, *found, made=self._made)
        if not stat.S_ISDIR(there.st_mode):
            if changed and not stat.S_ISSOCK(there.st_mode):
                self._say()
                self._member(upper, name, prefix + name, there)
            return
        fd = os.open(name, _DIRECTORY, dir_fd=upper)
        try:
            # A directory is in the archive once something in it is.
            self._unsaid.append((fd, prefix + name + b"/"))
            if changed:
                self._say()
            with below.inside(name) as inside:
                self._changed(fd, inside, prefix + name + b"/")
            if self._unsaid and self._unsaid[-1][0] == fd:
                self._unsaid.pop()
        finally:
            os.close(fd)

    def _say(self) -> None:
        for fd, name in self._unsaid:
            self._directory(fd, name, name)
        self._unsaid.clear()


def changed_size(upper: int, below: Trees) -> int:
    """Bytes of the files that a tree has and the trees below have not, or not like this.

    What lies deeper than ``_DEEPEST`` directories is not looked at: each costs descriptors.
    """
    return sum(_changed_sizes(upper, below, 0))


def _changed_sizes(upper: int, below: Trees, depth: int) -> Iterator[int]:
    if depth > _DEEPEST:
        return
    for name in (os.fsencode(name) for name in os.listdir(upper)):
        with suppress(FileNotFoundError, NotADirectoryError):
            there = os.stat(name, dir_fd=upper, follow_symlinks=False)
            if stat.S_ISDIR(there.st_mode):
                fd = os.open(name, _DIRECTORY, dir_fd=upper)
                try:
                    with below.inside(name) as inside:
                        yield from _changed_sizes(fd, inside, depth + 1)
                finally:
                    os.close(fd)
                continue
            found = below.find(name)
            if found is None or not same_looks(there, found[1]):
                yield there.st_size


def same_looks(there: os.stat_result, before: os.stat_result) -> bool:
    """Whether kind, mode, owner, device, time and size are equal; of directories the size says nothing."""
    return (
        (there.st_mode, there.st_uid, there.st_gid, there.st_mtime_ns)
        == (before.st_mode, before.st_uid, before.st_gid, before.st_mtime_ns)
        and (there.st_rdev == before.st_rdev)
        and (stat.S_ISDIR(there.st_mode) or there.st_size == before.st_size)
    )


def _equal(
    upper: int, name: bytes, there: os.stat_result, lower: int, before: os.stat_result, *, made: int
) -> bool:
    if not same_looks(there, before):
        return False
    # The copy's own times of change are older than ``made``, to a tick of the kernel's clock.
    if there.st_ctime_ns < made:
        return True
    if stat.S_ISLNK(there.st_mode):
        return os.readlink(name, dir_fd=upper) == os.readlink(name, dir_fd=lower)
    if not (stat.S_ISREG(there.st_mode) or stat.S_ISDIR(there.st_mode)):
        return True
    flags = _DIRECTORY if stat.S_ISDIR(there.st_mode) else _FILE
    one = os.open(name, flags, dir_fd=upper)
    try:
        other = os.open(name, flags, dir_fd=lower)
        try:
            if xattrs_of(one) != xattrs_of(other):
                return False
            return stat.S_ISDIR(there.st_mode) or _same_contents(one, other)
        finally:
            os.close(other)
    finally:
        os.close(one)


def _same_contents(one: int, other: int) -> bool:
    while True:
        here, there = os.read(one, _BLOCK), os.read(other, _BLOCK)
        if here != there:
            return False
        if not here:
            return True
