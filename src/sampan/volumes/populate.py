"""First use of a volume: an empty one takes over what the image has at that place, as in Docker.

Laws:
- All or nothing, over kill -9 and a loss of power: the copy is made beside the volume under
  ``.populating-NAME``, renamed to ``.populated-NAME`` when all of it is on the disk, and only then moved in;
  what was moved in is on the disk before the name goes. ``finish`` completes what a crash left. In
  a volume that is mounted from elsewhere it is made inside, and the next use completes what a crash left.
- The image cannot lead outside itself: its layers are merged in a mount namespace of one short-lived thread,
  where the path is opened with the kernel's RESOLVE_IN_ROOT, and everything below by descriptor.
- A volume that holds anything is left alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.linux import mount, process
from sampan.volumes.copy import copy_attributes, copy_tree
from sampan.volumes.tree import remove_tree, sync_file_system

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.sandbox.messages import RootFilesystem

COPYING, COPIED = ".populating-", ".populated-"
INSIDE = ".sampan"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CLONE_NEWNS = 0x00020000
_LOWER_ONLY = "redirect_dir=nofollow,metacopy=off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """``data`` is to be filled; ``copying`` and ``copied`` are the copy's passing names."""

    data: str
    copying: str
    copied: str

    @property
    def empty(self) -> bool:
        ours = {os.path.basename(self.copying), os.path.basename(self.copied)}
        with os.scandir(self.data) as entries:
            return all(entry.name in ours for entry in entries)


def beside(volumes: str, name: str) -> Room:
    """For the volume whose data is in ``volumes/name/_data``."""
    return Room(
        data=os.path.join(volumes, name, "_data"),
        copying=os.path.join(volumes, COPYING + name),
        copied=os.path.join(volumes, COPIED + name),
    )


def inside(data: str) -> Room:
    """For a volume that is mounted at ``data``."""
    return Room(data=data, copying=f"{data}/{INSIDE}{COPYING}", copied=f"{data}/{INSIDE}{COPIED}")


def populate(root: RootFilesystem, path: str, room: Room) -> None:
    """Fill an empty volume with the image's ``path``.

    Does nothing if the volume holds anything or the image has no directory there. Blocks; raises OSError,
    and the volume is then as it was.
    """
    if os.path.isdir(room.copied):
        _move_in(room)
        return
    if not room.empty or os.statvfs(room.data).f_flag & os.ST_RDONLY:
        return
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with _merged(root) as root_fd:
                _populate_from(root_fd, path, room)
        except BaseException as error:
            failures.append(error)

    # A thread of its own: it keeps its private mount namespace until it ends, and the mounts end with it.
    thread = threading.Thread(target=work, name="populate")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def populate_from(root_fd: int, path: str, room: Room) -> None:
    """As ``populate``, from an image's root that is open already."""
    if room.empty:
        _populate_from(root_fd, path, room)


def finish(volumes: str) -> None:
    """Complete or undo what a crash left half done."""
    for entry in os.listdir(volumes):
        if entry.startswith(COPYING):
            remove_tree(os.path.join(volumes, entry))
        elif entry.startswith(COPIED):
            _move_in(beside(volumes, entry.removeprefix(COPIED)))


@contextlib.contextmanager
def _merged(root: RootFilesystem) -> Iterator[int]:
    """The layers as one read-only tree, seen by the calling thread alone until it ends."""
    # Mounted on one of its own layers, which hides nothing that is needed: the volume may lie below the base.
    directory = os.path.join(root.base, root.lowers[0])
    if len(root.lowers) > 1 and not root.kind:  # whose first is the whole image
        process.unshare(_CLONE_NEWNS)  # and with it, this thread's working directory
        mount.mount("none", "/", "", mount.MS_REC | mount.MS_PRIVATE)
        os.chdir(root.base)
        options = f"lowerdir={':'.join(root.lowers)},{_LOWER_ONLY}"
        mount.mount("overlay", directory, "overlay", mount.MS_RDONLY, options)
    root_fd = os.open(directory, _DIRECTORY)
    try:
        yield root_fd
    finally:
        os.close(root_fd)


def _populate_from(root_fd: int, path: str, room: Room) -> None:
    flags = _DIRECTORY
    try:
        source = process.openat2(
            root_fd, path, flags, resolve=process.RESOLVE_IN_ROOT | process.RESOLVE_NO_MAGICLINKS
        )
    except OSError as error:
        # A path that leads nowhere has nothing to copy; whether it can be mounted on is seen later.
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return
        raise
    try:
        remove_tree(room.copying)
        os.mkdir(room.copying, 0o700)
        destination = os.open(room.copying, _DIRECTORY)
        try:
            copy_tree(source, destination)
        finally:
            os.close(destination)
        if os.listdir(room.copying):
            sync_file_system(room.copying)
    except OSError:
        with contextlib.suppress(OSError):
            remove_tree(room.copying)
        raise
    finally:
        os.close(source)
    os.rename(room.copying, room.copied)
    _move_in(room)


def _move_in(room: Room) -> None:
    """Move a complete copy into the volume. Idempotent; what the volume has by now is kept."""
    if not os.path.isdir(room.data):
        remove_tree(room.copied)  # the volume was removed meanwhile
        return
    source, destination = os.open(room.copied, _DIRECTORY), os.open(room.data, _DIRECTORY)
    try:
        times = os.fstat(source)
        for entry in os.listdir(source):
            with contextlib.suppress(FileExistsError):
                _rename_new(entry, source, destination)
        copy_attributes(source, destination)
        os.utime(destination, ns=(times.st_atime_ns, times.st_mtime_ns))
        os.fsync(destination)
    finally:
        os.close(source)
        os.close(destination)
    remove_tree(room.copied)


def _rename_new(entry: str, source: int, destination: int) -> None:
    """Move one entry unless the destination has one of that name."""
    try:
        found = os.stat(entry, dir_fd=destination, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(entry, entry, src_dir_fd=source, dst_dir_fd=destination)
        return
    raise FileExistsError(stat.filemode(found.st_mode), entry)
