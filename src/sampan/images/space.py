"""What images take of the disk: the files of their layers, and the archives and documents these came from.

Theory: a part is a layer or a blob; an image is a set of parts, and images share parts. An index is its main
image's. A layer never changes, so it is measured once in a daemon's life. Numbers are bytes as the disk holds
them (``linux.diskspace``): what goes when nothing has a part any more.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sampan.images.catalog import Catalog
from sampan.images.model import Image, Layer
from sampan.linux.diskspace import measure

_BLOCK = 512
_LAYER = "layer "
"""Begins the name of a part that is a layer: the lowest layer's chain id is also its archive's digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """``parts``: bytes by part; ``images``: the parts of each image, by its id."""

    parts: Mapping[str, int]
    images: Mapping[str, frozenset[str]]

    @property
    def total(self) -> int:
        """All that is here, also layers that only containers keep."""
        return sum(self.parts.values())

    def size(self, image_id: str) -> int:
        return sum(self.parts[part] for part in self.images[image_id])

    def size_of(self, image_ids: Iterable[str]) -> int:
        """Bytes of several images, what they share counted once."""
        return self.held(image_id for image_id in image_ids if image_id in self.images)

    def shared(self, image_id: str) -> int:
        """Bytes of an image that others have as well."""
        counted = Counter(part for parts in self.images.values() for part in parts)
        return sum(self.parts[part] for part in self.images[image_id] if counted[part] > 1)

    def held(self, image_ids: Iterable[str]) -> int:
        """Bytes of all parts of some images."""
        held = frozenset[str]().union(*(self.images[image_id] for image_id in image_ids))
        return sum(self.parts[part] for part in held)

    def gone(self, later: Inventory) -> int:
        """Bytes of the parts that are not there any more."""
        return sum(size for part, size in self.parts.items() if part not in later.parts)


class Spaces:
    """Measures the images of a catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._layers: dict[int, int] = {}  # by the layer's number

    async def measure(self) -> Inventory:
        """As it is now. What was measured before is not measured again."""
        images = {image.id: self._parts(image) for image in self._catalog}
        for index in self._catalog.indexes:
            images[index.main].add(index.digest)
            for part in index.parts:
                images[part.image_id] |= part.blobs
        layers = list(self._catalog.layers)
        blobs = {str(layer.blob) for layer in layers}
        for own in images.values():
            blobs |= {part for part in own if not part.startswith(_LAYER)}
        parts = await asyncio.to_thread(self._measure, layers, blobs)
        known = {layer.id for layer in layers}
        self._layers = {number: size for number, size in self._layers.items() if number in known}
        return Inventory(
            parts=parts,
            images={key: frozenset(part for part in own if part in parts) for key, own in images.items()},
        )

    def _parts(self, image: Image) -> set[str]:
        layers = [self._catalog.layers[chain_id] for chain_id in image.chain]
        found: set[str] = {image.id, *(_LAYER + layer.chain_id for layer in layers)}
        found |= {layer.blob for layer in layers}
        found |= {blob.digest for blob in image.blobs}
        return found | ({image.manifest} if image.manifest else set())

    def _measure(self, layers: Iterable[Layer], blobs: Iterable[str]) -> dict[str, int]:
        parts = {}
        store = self._catalog.layers
        for layer in layers:
            if layer.id not in self._layers:
                files = store.directory(layer)
                top = os.stat(files).st_blocks * _BLOCK
                self._layers[layer.id] = top + measure(files).occupied
            beside = store.driver.beside(store.directories.place(layer.id)) + store.dropping.occupied(layer)
            parts[_LAYER + layer.chain_id] = self._layers[layer.id] + beside
        for digest in blobs:
            try:
                parts[str(digest)] = os.stat(self._catalog.blobs.path(digest)).st_blocks * _BLOCK
            except FileNotFoundError:
                continue  # a layer of a removed image that a container keeps has no archive
        return parts
