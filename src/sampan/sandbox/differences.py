"""What a container has changed: its upper directory against the layers below, by Docker's rules.

Theory: the upper directory holds what was touched, so nothing else is looked at. An entry that the layers
lack was added; a whiteout says that one was deleted; anything else was modified if its looks differ from the
one below: kind, mode, owner, device number, capability, and for all but directories size and time. A
directory in which something changed counts as modified itself.

Order: parents before what is in them, siblings by name, a directory's deletions last.

Source: moby, pkg/archive/changes.go, for what counts as different.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from sampan.errors import InvalidArgument
from sampan.sandbox.marks import OPAQUE, OPAQUE_XATTR, is_whiteout
from sampan.sandbox.trees import Trees

MODIFIED, ADDED, DELETED = 0, 1, 2
"""Docker's numbers for kinds of changes."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CAPABILITY = "security.capability"
_PLAIN, _INSIDE, _OTHER = range(3)
_MARK = os.fsdecode(OPAQUE)
_LONGEST = 4096  # bytes of a path; what lies deeper has no name that a system call takes

Change = tuple[int, bytes]
"""A kind and an absolute path."""


def differences(upper: int, lower: Trees, *, whole: bool = False) -> Iterator[Change]:
    """The changes of the upper directory over what is below it; both stay the caller's.

    ``whole``: the upper directory is the whole tree, and what is not in it was deleted. fuse-overlayfs marks
    what hides all below by a file as well, which is no change.
    """
    unsaid: list[bytes] = []
    below = Trees(os.dup(fd) for fd in lower.fds)
    for change in _below(os.dup(upper), below, b"", unsaid, whole=whole):
        # A directory is mentioned once something in it is.
        for path in unsaid:
            yield MODIFIED, path
        unsaid.clear()
        yield change


def _below(upper: int, lower: Trees, path: bytes, unsaid: list[bytes], *, whole: bool) -> Iterator[Change]:
    """The changes in one directory, whose descriptors are owned. ``unsaid`` are parents nobody mentioned."""
    if not lower.fds:
        yield from _added(upper, path, whole=whole)
        return
    try:
        deleted: list[bytes] = []
        names = sorted(os.fsencode(name) for name in os.listdir(upper) if name != _MARK or whole)
        for name in names:
            with suppress(FileNotFoundError, NotADirectoryError):  # the container goes on meanwhile
                there = os.stat(name, dir_fd=upper, follow_symlinks=False)
                before = lower.find(name)
                if is_whiteout(there):
                    if before is not None:
                        deleted.append(name)
                    continue
                yield from _entry(upper, lower, path + b"/" + name, there, before, unsaid, whole=whole)
        if whole or _is_opaque(upper):
            deleted += lower.names() - set(names)
        for name in sorted(deleted):
            yield DELETED, path + b"/" + name
    finally:
        os.close(upper)
        lower.close()


def _added(directory: int, path: bytes, *, whole: bool) -> Iterator[Change]:
    """All that is in a directory, whose descriptor is owned, and that nothing lies below.

    The kind of most entries stands beside their names, so that nobody has to look at each.
    """
    try:
        if len(path) >= _LONGEST:
            raise InvalidArgument("file name too long: the tree is too deep")
        with os.scandir(directory) as entries:
            kinds = {
                os.fsencode(entry.name): _PLAIN
                if entry.is_file(follow_symlinks=False) or entry.is_symlink()
                else _INSIDE
                if entry.is_dir(follow_symlinks=False)
                else _OTHER
                for entry in entries
                if entry.name != _MARK or whole
            }
        start = path + b"/"
        for name in sorted(kinds):
            kind = kinds[name]
            if kind == _PLAIN:
                yield ADDED, start + name
                continue
            with suppress(FileNotFoundError, NotADirectoryError):  # the container goes on meanwhile
                if kind == _OTHER:
                    if not is_whiteout(os.stat(name, dir_fd=directory, follow_symlinks=False)):
                        yield ADDED, start + name
                    continue
                inside = os.open(name, _DIRECTORY, dir_fd=directory)
                yield ADDED, start + name
                yield from _added(inside, start + name, whole=whole)
    finally:
        os.close(directory)


def _entry(
    upper: int,
    lower: Trees,
    path: bytes,
    there: os.stat_result,
    found: tuple[int, os.stat_result] | None,
    unsaid: list[bytes],
    *,
    whole: bool,
) -> Iterator[Change]:
    name = path.rpartition(b"/")[2]
    directory = stat.S_ISDIR(there.st_mode)
    said = True
    if found is None:
        yield ADDED, path
    elif _differ(there, found[1]) or _capability(upper, name, there) != _capability(found[0], name, found[1]):
        yield MODIFIED, path
    else:
        said = False
    if not directory:
        return
    if len(path) >= _LONGEST:
        raise InvalidArgument("file name too long: the tree is too deep")
    inside = os.open(name, _DIRECTORY, dir_fd=upper)
    outside = lower.inside(name)
    if not said:
        unsaid.append(path)
    yield from _below(inside, outside, path, unsaid, whole=whole)
    if unsaid and unsaid[-1] == path:
        unsaid.pop()


def _differ(there: os.stat_result, before: os.stat_result) -> bool:
    if (there.st_mode, there.st_uid, there.st_gid, there.st_rdev) != (
        before.st_mode,
        before.st_uid,
        before.st_gid,
        before.st_rdev,
    ):
        return True
    if stat.S_ISDIR(there.st_mode):
        return False
    return there.st_size != before.st_size or not _same_time(there.st_mtime_ns, before.st_mtime_ns)


def _same_time(one: int, other: int) -> bool:
    """Whole seconds may stand for a time whose rest was not kept."""
    second = 1_000_000_000
    return one == other or (one // second == other // second and (one % second == 0 or other % second == 0))


def _capability(directory: int, name: bytes, there: os.stat_result) -> bytes:
    """A file's capability, empty without one."""
    if not stat.S_ISREG(there.st_mode):
        return b""
    fd = os.open(name, _FILE, dir_fd=directory)
    try:
        return os.getxattr(fd, _CAPABILITY)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _is_opaque(directory: int) -> bool:
    try:
        return os.getxattr(directory, OPAQUE_XATTR) == b"y"
    except OSError:
        return False
