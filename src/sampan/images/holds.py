"""What must stay while an image is put together or sent."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sampan.images.model import Layer
    from sampan.spec.digest import Digest


class Hold:
    """Layers and blobs that must stay until the hold is over."""

    def __init__(self, held: Counter[Digest], pinned: Counter[Digest]) -> None:
        self._held = held
        self._pinned = pinned
        self._ended = False
        self.chain_ids: list[Digest] = []
        self.blobs: list[Digest] = []

    def add(self, layer: Layer) -> None:
        """Keep the layer, and those below it."""
        self._held[layer.chain_id] += 1
        self.chain_ids.append(layer.chain_id)

    def pin(self, blob: Digest) -> None:
        """Keep a blob from being removed, whether it is there yet or not."""
        self._pinned[blob] += 1
        self.blobs.append(blob)

    def end(self) -> None:
        """Let go of everything. Idempotent."""
        if self._ended:
            return
        self._held.subtract(self.chain_ids)
        self._pinned.subtract(self.blobs)
        for counter in (self._held, self._pinned):
            for digest in [digest for digest, count in counter.items() if count <= 0]:
                del counter[digest]
        self._ended = True
