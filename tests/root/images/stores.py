"""A whole image store in a temporary directory, as ``daemon.main`` would build it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sampan.engine.images import Images, ImportOptions
from sampan.engine.lookups import ImageUse
from sampan.engine.model import Event
from sampan.images.blobs import BlobStore
from sampan.images.catalog import Catalog
from sampan.images.drivers import choose
from sampan.images.layers import EMPTY, INIT, LayerStore
from sampan.images.model import Image, Span
from sampan.images.snapshots import Snapshots
from sampan.linux import kernel
from sampan.sandbox.unpack import Limits
from sampan.state import Database


@dataclass
class Store:
    """The use cases with all below them. ``users`` is what the tests say uses an image."""

    root: Path
    images: Images
    catalog: Catalog
    layers: LayerStore
    snapshots: Snapshots
    database: Database
    users: dict[str, list[ImageUse]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    async def load(self, archive: bytes, *, quiet: bool = True) -> list[str]:
        """The messages of a load."""
        return [m.stream or m.status or "" async for m in self.images.load(pieces(archive), quiet=quiet)]

    async def import_(self, layer: bytes, name: str, changes: Sequence[str] = ()) -> Image:
        return await self.images.import_(
            pieces(layer), ImportOptions(repository=name, changes=tuple(changes))
        )

    def names(self) -> list[str]:
        """Every name there is."""
        return sorted(name.familiar for image in self.catalog for name in self.catalog.names_of(image.id))

    async def settle(self) -> None:
        await self.catalog.close()

    def files(self) -> list[str]:
        """What lies on the disk: blobs, layers and unfinished things."""
        data = [f"blob {name}" for name in os.listdir(self.root / "blobs/sha256")]
        data += [f"layer {name}" for name in os.listdir(self.root / "layers") if name not in (INIT, EMPTY)]
        return sorted(data + [f"part {name}" for name in os.listdir(self.root / "tmp/images")])

    def tree(self, image: Image, number: int = 0) -> Path:
        """The files of a layer, counted from the bottom."""
        return Path(self.layers.directory(self.layers[image.chain[number]]))


async def pieces(data: bytes, size: int = 50_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def read(piece: bytes | Span) -> bytes:
    """The bytes of a piece of a saved archive."""
    return piece if isinstance(piece, bytes) else os.pread(piece.fd, piece.size, 0)


@contextlib.asynccontextmanager
async def opened(
    root: Path, *, boot: str = "", limits: Limits | None = None, driver: str = "", drop: bool = False
) -> AsyncIterator[Store]:
    """Open the store; ``boot`` pretends that the machine was started again."""
    root.mkdir(exist_ok=True)
    database = Database.open(f"{root}/state.db")
    try:
        blobs = BlobStore(f"{root}/blobs", f"{root}/tmp/images")
        layers = LayerStore(
            f"{root}/layers",
            database,
            blobs,
            boot_id=boot or kernel.boot_id(),
            driver=choose(str(root), driver),
            limits=limits or Limits(),
            drop_archives=drop,
        )
        snapshots = Snapshots(str(root), f"{root}/snapshots", layers)
        catalog = Catalog(database, blobs, layers, snapshots)
        users: dict[str, list[ImageUse]] = {}
        events: list[Event] = []
        images = Images(catalog=catalog, users=lambda image: users.get(image, []), publish=events.append)
        store = Store(
            root=root,
            images=images,
            catalog=catalog,
            layers=layers,
            snapshots=snapshots,
            database=database,
            users=users,
            events=events,
        )
        await catalog.recover(store.lost.append)
        yield store
        await catalog.close()
    finally:
        database.close()
