"""The directories of layers: placed, given the looks of what they cover, removed, synced. Blocks."""

from __future__ import annotations

import contextlib
import ctypes
import os

from sampan.errors import Internal
from sampan.linux import inodeflags, tree
from sampan.linux.process import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, openat2
from sampan.wire import compression


def spread(root: str) -> None:
    """Have the file system place layers apart from one another, where it knows how.

    ext4 does not reuse inodes deleted in the last minutes, and looks at each of them again for every file it
    creates nearby: without this, unpacking soon after a removal takes several times as long.
    """
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            inodeflags.add_flag(fd, inodeflags.TOP_DIRECTORY)
    finally:
        os.close(fd)


def dress_implied(directory: str, below: list[str], implied: list[str]) -> None:
    """Give directories that only a member's path named the looks of those they cover in the layers below."""
    if not below:
        return
    lowers = [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in below]
    root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in reversed(implied):
            for lower in lowers:
                looks = _looks(lower, path)
                if looks is not None:
                    _dress(root, path, looks)
                    break
    finally:
        for fd in (*lowers, root):
            os.close(fd)


def _looks(root: int, path: str) -> os.stat_result | None:
    try:
        fd = openat2(root, path, os.O_PATH | os.O_DIRECTORY, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
    except OSError:
        return None
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def _dress(root: int, path: str, looks: os.stat_result) -> None:
    try:
        fd = openat2(root, path, os.O_RDONLY | os.O_DIRECTORY, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
    except OSError:
        return  # replaced by a later member
    try:
        os.fchown(fd, looks.st_uid, looks.st_gid)
        os.fchmod(fd, looks.st_mode & 0o7777)
        os.utime(fd, ns=(looks.st_atime_ns, looks.st_mtime_ns))
    finally:
        os.close(fd)


def remove_directories(root: str, numbers: tuple[int, ...]) -> None:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for number in numbers:
            tree.remove_tree(fd, str(number))
    finally:
        os.close(fd)


def detect_compression(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return compression.detect(file.read(compression.MAGIC_LENGTH))
    except OSError:
        return ""


def sync_file_system(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
            raise Internal(f"sync of {path} failed: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(fd)
