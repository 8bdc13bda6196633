"""What a storage driver is.

Theory: a layer is always unpacked into a directory of its own, by whatever driver. What differs is how
several layers are seen as one tree, and how a container writes over it without writing to it. A driver
describes that, and makes on the disk what the description needs; it mounts nothing.

Laws:
- ``views`` of a chain can be read once ``see`` was awaited for it, as long as its layers are here.
- What a driver makes beside a layer's files lies in the layer's own directory, and goes with it.
- A container's directory is complete when ``make`` returns, and can be removed like any tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sampan.linux.diskspace import Space

Places = Sequence[str]
"""The directories of a chain's layers, topmost first, absolute; a layer's files are in ``fs`` below each."""


class Driver(Protocol):
    """All methods but ``see`` are quick or are called in a thread; OSError when the host fails."""

    @property
    def name(self) -> str:
        """As users and Docker call it."""

    @property
    def kind(self) -> str:
        """How a root is put together: ``RootFilesystem.kind``."""

    @property
    def plain_marks(self) -> bool:
        """Whether a layer keeps the archive's own marks for what it hides, and not overlayfs's."""

    def status(self) -> tuple[tuple[str, str], ...]:
        """What ``info`` shows about it."""

    async def see(self, places: Places) -> None:
        """Make what ``views`` of this chain names, if it is missing. Idempotent."""

    def views(self, places: Places) -> tuple[str, ...]:
        """The directories that are this chain, one over another, absolute, topmost first."""

    def make(self, place: str, views: tuple[str, ...], init: str) -> None:
        """Make what a container writes to: ``fs`` and ``work`` in the empty directory ``place``.

        ``init`` is the tree of mount points, beneath everything.
        """

    def written(self, place: str, views: tuple[str, ...], init: str) -> Space:
        """What a container has written: lengths of what it changed, and all that its directory occupies."""

    def beside(self, place: str) -> int:
        """Bytes of the disk that a layer takes beside its files."""

    def forget(self, places: Places) -> None:
        """Remove what was made of these layers beside their files: one of them, or one below, was changed."""
