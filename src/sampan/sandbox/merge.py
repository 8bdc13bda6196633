"""Several layers' directories as one, which hides and adds over what is below them just what they did.

Laws:
- Of each name the topmost layer's entry counts. A directory is put together of all layers down to one that
  has something else there, or says that it hides what is below: then the merged one hides it too.
- Every name is taken by itself from an open directory: no link is followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from sampan.sandbox.marks import OPAQUE_XATTR

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 1 << 20
_OVERLAY = "trusted.overlay."


class Merger:
    """Fills the empty directory ``target``."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._linked: dict[tuple[int, int], str] = {}

    def run(self, layers: Sequence[int]) -> None:
        """``layers`` are directories, the topmost first."""
        self._merge(self._target, layers, "")

    def _merge(self, target: int, directories: Sequence[int], path: str) -> None:
        seen: set[str] = set()
        for depth, directory in enumerate(directories):
            for name in sorted(os.listdir(directory)):
                if name not in seen:
                    seen.add(name)
                    self._take(target, directories[depth:], name, f"{path}/{name}" if path else name)

    def _take(self, target: int, directories: Sequence[int], name: str, path: str) -> None:
        top = directories[0]
        there = os.stat(name, dir_fd=top, follow_symlinks=False)
        if not stat.S_ISDIR(there.st_mode):
            self._copy(target, top, name, there, path)
            return
        parts, hides = _parts(directories, name)
        try:
            os.mkdir(name, 0o700, dir_fd=target)
            made = os.open(name, _DIRECTORY, dir_fd=target)
            try:
                self._merge(made, parts, path)
                _dress(made, parts[0], there)
                if hides:
                    os.setxattr(made, OPAQUE_XATTR, b"y")
            finally:
                os.close(made)
        finally:
            for part in parts:
                os.close(part)

    def _copy(self, target: int, origin: int, name: str, there: os.stat_result, path: str) -> None:
        key = (there.st_dev, there.st_ino)
        if there.st_nlink > 1 and key in self._linked and stat.S_ISREG(there.st_mode):
            os.link(
                self._linked[key], name, src_dir_fd=self._target, dst_dir_fd=target, follow_symlinks=False
            )
            return
        if stat.S_ISREG(there.st_mode):
            self._linked[key] = path
            source = os.open(name, _READ, dir_fd=origin)
            try:
                made = os.open(name, _NEW, 0o600, dir_fd=target)
                try:
                    while os.copy_file_range(source, made, _BLOCK):
                        pass
                    _dress(made, source, there)
                finally:
                    os.close(made)
            finally:
                os.close(source)
            return
        if stat.S_ISLNK(there.st_mode):
            os.symlink(os.readlink(name, dir_fd=origin), name, dir_fd=target)
        else:
            os.mknod(name, there.st_mode, there.st_rdev, dir_fd=target)
            os.chmod(name, stat.S_IMODE(there.st_mode), dir_fd=target)
        os.chown(name, there.st_uid, there.st_gid, dir_fd=target, follow_symlinks=False)
        times = (there.st_atime_ns, there.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)


def _parts(directories: Sequence[int], name: str) -> tuple[list[int], bool]:
    """The directories of that name that are seen as one, and whether they hide what is below them all."""
    parts: list[int] = []
    for directory in directories:
        try:
            there = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(there.st_mode):
            return parts, True
        parts.append(os.open(name, _DIRECTORY, dir_fd=directory))
        if _hides(parts[-1]):
            return parts, True
    return parts, False


def _hides(directory: int) -> bool:
    with suppress(OSError):
        return os.getxattr(directory, OPAQUE_XATTR) == b"y"
    return False


def _dress(made: int, origin: int, there: os.stat_result) -> None:
    os.fchown(made, there.st_uid, there.st_gid)
    os.fchmod(made, stat.S_IMODE(there.st_mode))
    for attribute in os.listxattr(origin):
        if not attribute.startswith(_OVERLAY):
            os.setxattr(made, attribute, os.getxattr(origin, attribute))
    os.utime(made, ns=(there.st_atime_ns, there.st_mtime_ns))
