"""Snapshots: a container's root as directories. They are described here and mounted by its keeper.

Theory: the writable directory ``snapshots/<key>/fs`` lies over the image's layers, and those over the *init
layer*, which holds the mount points that every container needs and that an image may lack. A key is the
container's id. What a snapshot stands on is recorded in the snapshot itself, as the target of the link
``parent``: so it can be mounted, and keeps its layers, when its image has been removed.

Law: a snapshot is made before the container's row is written, and removed after it is gone; what no container
names is removed at start by the engine, which asks for ``keys``. A container holds the layers of an image
that it mounts elsewhere by a snapshot of its own, whose key is its id, a dot and a number (``part``); it
comes and goes with the container's.

Making one waits for no disk where it is three empty directories: what a loss of power took of them is made
again by the next start (``complete``). A copy of a whole tree waits (``sync``) if its container is to last.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from contextlib import suppress

from sampan.errors import Conflict, Internal
from sampan.images.directories import spread, sync_file_system
from sampan.images.layers import INIT, LayerStore
from sampan.images.model import Image
from sampan.linux import tree
from sampan.linux.diskspace import Space
from sampan.sandbox.messages import RootFilesystem
from sampan.spec.digest import Digest

_NO_LAYERS = "scratch"
_PARENT = "parent"

_MOUNT_DIRECTORIES = ("dev", "proc", "sys", "etc")
_MOUNT_FILES = ("etc/hosts", "etc/hostname", "etc/resolv.conf", ".dockerenv")


class Snapshots:
    """Writable layers below ``root``, over ``layers``; both lie below ``base``, the data root."""

    def __init__(self, base: str, root: str, layers: LayerStore) -> None:
        self._base = base
        self._root = root
        self._layers = layers
        os.makedirs(root, mode=0o711, exist_ok=True)
        spread(root)
        self._released: Callable[[Digest], None] | None = None
        self._parents: dict[str, Digest | None] = {
            key: chain for key in os.listdir(root) if (chain := _read_parent(f"{root}/{key}")) is not None
        }
        self._parents |= {key: None for key in os.listdir(root) if key not in self._parents}
        _make_init_layer(f"{layers.root}/{INIT}")

    @property
    def driver(self) -> str:
        """The name of the storage driver."""
        return self._layers.driver.name

    async def prepare(self, key: str, image: Image) -> RootFilesystem:
        """Make the writable layer of a new container. Conflict if the key is in use."""
        chain_id, layers = image.chain_id, self._layers
        place = f"{self._root}/{key}"
        try:
            os.mkdir(place, 0o711)
        except FileExistsError as error:
            raise Conflict(f"snapshot {key} exists already") from error
        # In memory first: from now on the layers below are needed.
        self._parents[key] = chain_id
        os.symlink(chain_id or _NO_LAYERS, f"{place}/{_PARENT}")
        await self._made(place, await layers.see(chain_id))
        return self.mounts(key)

    async def _made(self, place: str, views: tuple[str, ...]) -> None:
        driver, init = self._layers.driver, f"{self._layers.root}/{INIT}/fs"
        if driver.kind:
            await asyncio.to_thread(driver.make, place, views, init)
        else:
            driver.make(place, views, init)  # three directories: sooner done than handed to a thread

    async def sync(self, key: str) -> None:
        """Have what ``prepare`` copied on the disk; what it only made needs no waiting."""
        if self._layers.driver.kind == "tree":
            await asyncio.to_thread(sync_file_system, f"{self._root}/{key}")

    def is_whole(self, key: str) -> bool:
        """Whether all of what ``prepare`` makes is there."""
        return all(os.path.lexists(f"{self._root}/{key}/{name}") for name in (_PARENT, "fs", "work"))

    async def complete(self, key: str, chain_id: Digest | None) -> None:
        """Make again what a loss of power took of a snapshot on ``chain_id``.

        What the container wrote and had synced is on the disk with the directories that it is in, and stays.
        """
        place = f"{self._root}/{key}"
        if self._layers.driver.kind == "tree":
            await asyncio.to_thread(_remove, self._root, key, None)
        os.makedirs(place, 0o711, exist_ok=True)
        with suppress(FileExistsError):
            os.symlink(chain_id or _NO_LAYERS, f"{place}/{_PARENT}")
        self._parents[key] = _read_parent(place)
        await self._made(place, await self._layers.see(self._parents[key]))

    def mounts(self, key: str) -> RootFilesystem:
        """The directories of an existing snapshot, relative to the data root, topmost lower first.

        Needs no image: a container outlives the removal of its image.
        """
        if key not in self._parents:
            raise Internal(f"snapshot {key} is missing")
        below = len(self._base) + 1
        place = f"{self._root[below:]}/{key}"
        views = (*self._layers.views(self._parents[key]), f"{self._layers.root}/{INIT}/fs")
        return RootFilesystem(
            base=self._base,
            lowers=tuple(view[below:] for view in views),
            upper=f"{place}/fs",
            work=f"{place}/work",
            kind=self._layers.driver.kind,
        )

    def layers(self, key: str) -> tuple[str, ...]:
        """The directories of the image that a snapshot stands on, absolute, topmost first."""
        if key not in self._parents:
            raise Internal(f"snapshot {key} is missing")
        return self._layers.views(self._parents[key])

    async def remove(self, key: str, *, then: Callable[[], object] | None = None) -> None:
        """Remove the writable layer and the snapshot's parts; it must not be mounted. Succeeds if it is
        already gone. ``then`` is done last, in the thread that removes."""
        for name in [name for name in self._parents if name.startswith(f"{key}.")]:
            await self._remove(name, None)
        await self._remove(key, then)

    async def _remove(self, name: str, then: Callable[[], object] | None) -> None:
        await asyncio.to_thread(_remove, self._root, name, then)
        chain_id = self._parents.pop(name, None)
        if chain_id is not None and self._released is not None:
            self._released(chain_id)

    def when_released(self, released: Callable[[Digest], None]) -> None:
        """Have ``released`` called with what a snapshot stood on, after each removal."""
        self._released = released

    def keys(self) -> tuple[str, ...]:
        """Every snapshot there is; a part counts as what it is a part of."""
        return tuple({key.partition(".")[0]: None for key in self._parents})

    def parents(self) -> Iterable[Digest]:
        """The chain ids that snapshots stand on."""
        return [chain_id for chain_id in self._parents.values() if chain_id is not None]

    def parent(self, key: str) -> Digest | None:
        """The chain id that a snapshot stands on; None for no layers."""
        return self._parents.get(key)

    def max_id(self, key: str) -> int:
        """The largest owner in the layers below: the id range of a run must cover it."""
        layers = self._layers.chain(self._parents.get(key))
        return max((max(layer.max_uid, layer.max_gid) for layer in layers), default=0)

    async def usage(self, keys: Iterable[str]) -> dict[str, Space]:
        """What containers have written, by key."""
        driver, init = self._layers.driver, f"{self._layers.root}/{INIT}/fs"
        wanted = {key: self._layers.views(self._parents.get(key)) for key in keys}
        return await asyncio.to_thread(
            lambda: {key: driver.written(f"{self._root}/{key}", views, init) for key, views in wanted.items()}
        )


def part(key: str, number: int) -> str:
    """The key of a further snapshot that comes and goes with ``key``."""
    return f"{key}.{number}"


def _read_parent(place: str) -> Digest | None:
    """What the snapshot at ``place`` stands on; None for no layers, and for a snapshot half made."""
    try:
        target = os.readlink(f"{place}/{_PARENT}")
    except OSError:
        return None
    return None if target == _NO_LAYERS else Digest(target)


def _make_init_layer(place: str) -> None:
    """Empty mount points, and the list of mounts that old programs read. Idempotent."""
    root = f"{place}/fs"
    os.makedirs(root, mode=0o755, exist_ok=True)
    os.chmod(root, 0o755)
    for name in _MOUNT_DIRECTORIES:
        os.makedirs(f"{root}/{name}", mode=0o755, exist_ok=True)
        os.chmod(f"{root}/{name}", 0o755)
    with suppress(FileExistsError):
        os.symlink("/proc/mounts", f"{root}/etc/mtab")
    for name in _MOUNT_FILES:
        fd = os.open(f"{root}/{name}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o755)
        try:
            os.fchmod(fd, 0o755)
        finally:
            os.close(fd)


def _remove(root: str, key: str, then: Callable[[], object] | None) -> None:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        tree.remove_tree(fd, key)
    finally:
        os.close(fd)
    if then is not None:
        then()
