"""Whole trees: a chain of layers is laid together once, and each container has a copy of the tree.

Theory: what needs no support of the kernel. The tree lies in ``whole`` beside the files of the chain's
topmost layer, and is made when it is first needed. A copy's contents are shared with the tree where the file
system can do so until one of the two is written to (xfs, btrfs); elsewhere they are copied. With btrfs the
tree is a subvolume, and a copy a snapshot of it.

Laws:
- A tree appears by one rename, when all of it is on the disk.
- A tree is made by hard links to the layers' files, which nobody writes to (or, in a subvolume, by sharing
  contents); it is never written to either.
- ``work`` of a container is a file that was made after the copy: what changed later is younger.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from sampan.images.directories import sync_file_system
from sampan.images.drivers.interface import Places
from sampan.images.turns import Turns
from sampan.linux import btrfs, filesystems, tree
from sampan.linux.diskspace import Space, measure
from sampan.linux.laying import Sharing, lay_beneath, unmark
from sampan.sandbox.trees import Trees, changed_size

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HALF = "whole.new"


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeTrees:
    """See ``interface.Driver``. ``subvolumes``: trees are btrfs's."""

    root: str
    """The data root."""
    name: str
    subvolumes: bool = False
    kind: str = "tree"
    plain_marks: bool = True
    sharing: Sharing = Sharing.FILES
    turns: Turns = field(default_factory=Turns)

    def status(self) -> tuple[tuple[str, str], ...]:
        return (("Backing Filesystem", filesystems.name_of(self.root)),)

    async def see(self, places: Places) -> None:
        if not places:
            return
        async with self.turns.of(places[0]):
            if not os.path.isdir(f"{places[0]}/whole"):
                await asyncio.to_thread(self._lay, places)

    def _lay(self, places: Places) -> None:
        half = f"{places[0]}/{_HALF}"
        _remove(half)
        self._new(half)
        with _opened(half) as upper:
            for depth, place in enumerate(places):
                with _opened(f"{place}/fs") as lower:
                    lay_beneath(upper, lower, share=self.sharing, empty=depth == 0)
            unmark(upper)
        sync_file_system(half)
        os.rename(half, f"{places[0]}/whole")

    def _new(self, path: str) -> None:
        if self.subvolumes:
            btrfs.create(path)
        else:
            os.mkdir(path, 0o700)

    def views(self, places: Places) -> tuple[str, ...]:
        return (f"{places[0]}/whole",) if places else ()

    def make(self, place: str, views: tuple[str, ...], init: str) -> None:
        path = f"{place}/fs"
        if self.subvolumes and views:
            btrfs.snapshot(views[0], path)
        else:
            self._new(path)
            if views:
                self._lay_beneath(path, views[0], empty=True)
        self._lay_beneath(path, init, empty=not views)
        os.chmod(path, 0o755)
        with open(f"{place}/work", "xb"):
            pass

    @staticmethod
    def _lay_beneath(path: str, lower: str, *, empty: bool) -> None:
        with _opened(path) as above, _opened(lower) as below:
            lay_beneath(above, below, share=Sharing.CONTENTS, empty=empty)

    def written(self, place: str, views: tuple[str, ...], init: str) -> Space:
        occupied = measure(f"{place}/fs").occupied
        with (
            suppress(FileNotFoundError),
            _opened(f"{place}/fs") as upper,
            Trees.open((*views, init)) as below,
        ):
            return Space(changed_size(upper, below), occupied)
        return Space(0, occupied)

    def beside(self, place: str) -> int:
        if self.subvolumes:
            return measure(f"{place}/whole").occupied
        return _directories(f"{place}/whole")

    def forget(self, places: Places) -> None:
        for place in places:
            _remove(f"{place}/whole")


@contextmanager
def _opened(path: str) -> Iterator[int]:
    """The directory at ``path`` while a context lasts."""
    fd = os.open(path, _DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def _remove(path: str) -> None:
    parent, name = os.path.split(path)
    with _opened(parent) as directory:
        tree.remove_tree(directory, name)


def _directories(path: str) -> int:
    """Bytes of the directories of a tree whose files are counted elsewhere, and of what has no other name."""
    blocks = 0
    pending = [path]
    while pending:
        with suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                there = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(there.st_mode):
                    pending.append(entry.path)
                elif there.st_nlink > 1:
                    continue
                blocks += there.st_blocks
    return blocks * 512


def copying(root: str) -> WholeTrees:
    """Copies, with any file system."""
    return WholeTrees(root=root, name="vfs")


def snapshots(root: str) -> WholeTrees:
    """Snapshots of btrfs."""
    return WholeTrees(root=root, name="btrfs", subvolumes=True, sharing=Sharing.CONTENTS)


def btrfs_refusal(root: str) -> str:
    """Why there can be no snapshots of btrfs below ``root``; empty if there can. Tries it."""
    if not btrfs.is_btrfs(root):
        return "prerequisites for driver not satisfied (wrong filesystem?)"
    place = f"{root}/.btrfs-{os.getpid()}"
    try:
        btrfs.create(place)
        with _opened(root) as directory:
            btrfs.destroy(directory, os.path.basename(place))
    except OSError as error:
        return (error.strerror or "").lower()
    return ""
