"""Layers whose archives are not kept: dropped once they can be made again, made again when they are needed.

Theory: an archive is *dropped* when its blob is not there and the layer has a recipe (``recipes``). Nothing
else says so: no row, nothing in memory. Rows and manifests go on naming the blob that it was.

Laws:
- A blob that a layer came from, or a manifest names for it, goes only after the layer and its recipe are on
  the disk, and the recipe has made the plain archive out of the layer's files; of several layers, each.
  Dying at any moment leaves the blob, or a recipe that was proved.
- What is pinned stays.
- What comes back is the plain archive; a compressed one has another digest then. An image of which one is
  missing is shown as one that came without a manifest (``available``), and no index is whole with it.
- What was made again has its digest checked before it is a blob, and goes when nobody holds it any more.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from sampan.errors import Failure, Internal
from sampan.images import recipes
from sampan.images.blobs import BlobStore, Part
from sampan.images.directories import detect_compression
from sampan.images.turns import Turns
from sampan.spec import image as documents
from sampan.spec.image import Descriptor

if TYPE_CHECKING:
    from sampan.images.holds import Hold
    from sampan.images.layers import LayerStore
    from sampan.images.model import Image, Layer
    from sampan.spec.digest import Digest


class Dropping:
    """Of one store of layers; ``wanted``: whether archives are dropped, those that are can always be had."""

    def __init__(self, layers: LayerStore, blobs: BlobStore, *, wanted: bool) -> None:
        self.wanted = wanted
        self._layers = layers
        self._blobs = blobs
        self._turns = Turns()
        self._ended = threading.Event()
        self._made: set[Digest] = set()
        self.wake: Callable[[], None] = lambda: None
        """Called when blobs are not held any more."""

    # ------------------------------------------------------------------ what is dropped

    def recipe(self, layer: Layer) -> str:
        """Where the layer's recipe lies, or would."""
        return f"{self._layers.directories.place(layer.id)}/{recipes.NAME}"

    def occupied(self, layer: Layer) -> int:
        """Bytes that the layer's recipe takes of the disk."""
        try:
            return os.stat(self.recipe(layer)).st_blocks * 512
        except FileNotFoundError:
            return 0

    def has(self, layer: Layer) -> bool:
        """Whether the layer's archive was dropped."""
        return not self._blobs.has(layer.blob) and self._is_recorded(layer)

    def is_spared(self, layer: Layer, digest: Digest) -> bool:
        """Whether an archive of the layer with that digest need not be brought: it would be dropped again."""
        return self.wanted and not self._blobs.has(digest) and self._is_recorded(layer)

    def dropped(self, archives: Iterable[tuple[Digest, Digest]]) -> set[Digest]:
        """Of archives, each with the chain id of a layer, those that were dropped."""
        return {
            blob
            for blob, chain_id in archives
            if not self._blobs.has(blob)
            and (layer := self._layers.get(chain_id)) is not None
            and self._is_recorded(layer)
        }

    def _is_recorded(self, layer: Layer) -> bool:
        return recipes.plain_size(self.recipe(layer)) is not None

    def is_whole(self, digests: Iterable[Digest]) -> bool:
        """Whether all these blobs are here byte for byte, or can be."""
        return all(self.size(digest) is not None for digest in digests)

    def size(self, digest: Digest) -> int | None:
        """Bytes of a blob that is here or can be made; None otherwise."""
        try:
            return self._blobs.size(digest)
        except Internal:
            layer = self._maker(digest)
            return recipes.plain_size(self.recipe(layer)) if layer is not None else None

    def available(self, image: Image, hold: Hold) -> Image:
        """The image as it can be sent: where an archive was dropped, with the plain one, and without its
        manifest. All that it needs is held.
        """
        for blob in image.blobs:
            hold.pin(blob.digest)
        blobs = []
        for blob, chain_id in zip(image.blobs, image.chain, strict=True):
            layer = self._layers.get(chain_id)
            if self._blobs.has(blob.digest) or layer is None:
                blobs.append(blob)
                continue
            size = recipes.plain_size(self.recipe(layer))
            hold.add(layer)
            hold.pin(layer.diff_id)
            if size is None or blob.digest == layer.diff_id:
                blobs.append(blob)
            else:
                plain = Descriptor(media_type=documents.OCI_LAYER, digest=layer.diff_id, size=size)
                blobs.append(plain)
        if tuple(blobs) == image.blobs:
            return image
        return msgspec.structs.replace(image, blobs=tuple(blobs), manifest=None)

    def shown(self, layer: Layer, hold: Hold) -> Layer:
        """The layer as it can be sent: with its plain archive, if its own was dropped. It is held."""
        hold.add(layer)
        for blob in (layer.blob, layer.diff_id):
            hold.pin(blob)
        if self._blobs.has(layer.blob) or (size := recipes.plain_size(self.recipe(layer))) is None:
            return layer
        return msgspec.structs.replace(
            layer, blob=layer.diff_id, media_type=documents.OCI_LAYER, blob_size=size
        )

    def _maker(self, digest: Digest) -> Layer | None:
        for layer in self._layers:
            if layer.diff_id == digest and self._is_recorded(layer):
                return layer
        return None

    # ------------------------------------------------------------------ making again

    async def bring(self, digest: Digest) -> None:
        """Have a blob here that its holder has pinned. Internal if it was dropped and cannot be made."""
        async with self._turns.of(digest):
            if self._blobs.has(digest) or (layer := self._maker(digest)) is None:
                return  # whoever opens it is told
            with self._layers.holding() as hold:
                hold.add(layer)
                await asyncio.to_thread(self._make, layer)

    def _make(self, layer: Layer) -> None:
        with self._blobs.workspace() as workspace:
            part = Part(f"{workspace}/layer")
            try:
                recipes.make(self.recipe(layer), self._layers.directory(layer), part.write)
            finally:
                part.close()
            self._made.add(layer.diff_id)
            if part.digest != layer.diff_id:
                raise Internal(f"layer {layer.chain_id} has changed: its archive cannot be made again")
            self._blobs.adopt(part)

    def problem(self, layer: Layer) -> str:
        """Why the archive of a layer cannot be made again; empty if it can. Blocks."""
        try:
            made = recipes.make(self.recipe(layer), self._layers.directory(layer), lambda _piece: None)
        except Failure as error:
            return str(error)
        return "" if made == layer.diff_id else "its files have changed"

    def forget(self, layer: Layer) -> None:
        """Take away a recipe that is no good, so that the archive can be brought again."""
        os.unlink(self.recipe(layer))

    # ------------------------------------------------------------------ dropping

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to drop, now and ever."""
        return not (self.wanted or self._made)

    def spare(self) -> set[Digest]:
        """The blobs that were made again and that nobody holds now; told once."""
        spare = {digest for digest in self._made if digest not in self._layers.pinned}
        self._made -= spare
        return spare

    def end(self) -> None:
        """Begin nothing any more."""
        self._ended.set()

    async def drop(self, archives: Callable[[], Iterable[tuple[Digest, Digest]]]) -> list[str]:
        """Drop what can be of ``archives``, each with the chain id of a layer; where the files of the blobs
        wait to be unlinked.
        """
        retired: list[str] = []
        if not self.wanted:
            return retired
        for blob in {blob for blob, _ in archives()}:
            if blob in self._layers.pinned or not self._blobs.has(blob):
                continue
            proved: set[int] = set()
            for layer in self._of(blob, archives()):
                if self._ended.is_set() or layer.boot is not None or not await self._record(layer):
                    break
                proved.add(layer.id)
            # Nothing waits from here on: who pins the blob does so before, or finds it gone.
            there = {layer.id for layer in self._of(blob, archives())}
            if there and there <= proved and blob not in self._layers.pinned:
                place = self._blobs.retire(blob)
                retired += [place] if place is not None else []
        return retired

    def _of(self, blob: Digest, archives: Iterable[tuple[Digest, Digest]]) -> list[Layer]:
        chain_ids = {chain_id for digest, chain_id in archives if digest == blob}
        return [layer for chain_id in chain_ids if (layer := self._layers.get(chain_id)) is not None]

    async def _record(self, layer: Layer) -> bool:
        """Whether the layer has a recipe, which is written if it was not tried yet."""
        path = self.recipe(layer)
        if os.path.exists(path):
            return self._is_recorded(layer)
        with self._layers.holding() as hold:
            hold.add(layer)
            try:
                return await asyncio.to_thread(self._write, layer)
            except (Failure, OSError):
                return False  # the blob stays

    def _write(self, layer: Layer) -> bool:
        place, files = self._layers.directories.place(layer.id), self._layers.directory(layer)
        kind = detect_compression(self._blobs.path(layer.blob))
        archive = self._blobs.open(layer.blob)
        try:
            return recipes.record(place, files, archive, kind, layer.diff_id, self._ended.is_set)
        finally:
            os.close(archive)
