"""Whether the store tells the truth: every blob, layer and relation looked at, and mended where it can be.

Laws:
- A check can run at any time: what it looks at is held, what others are making is passed over.
- Mending never takes away what is whole. A layer is unpacked again from its blob, unless a container stands
  on it; a configuration is written anew from memory; a damaged blob goes, so that the next pull or load
  brings it back; what nothing needs goes.
- The order of writing holds for mending too: the new thing first, then the row.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sampan.errors import Failure
from sampan.linux.treecompare import difference
from sampan.spec import digest as digests

if TYPE_CHECKING:
    from sampan.images.catalog import Catalog
    from sampan.images.holds import Hold
    from sampan.images.model import Image, Layer
    from sampan.images.snapshots import Snapshots
    from sampan.spec.digest import Digest
    from sampan.state import Database

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """``kind`` is image, blob, layer, container or database; ``remedy`` what was done about it, or can be."""

    kind: str
    name: str
    text: str
    remedy: str = ""
    mended: bool = False


@dataclass(slots=True, kw_only=True)
class Report:
    """What was looked at: numbers, and ``size`` in bytes of blobs."""

    images: int = 0
    layers: int = 0
    blobs: int = 0
    size: int = 0
    problems: list[Problem] = field(default_factory=list)


class Checker:
    """Checks one store. ``mend`` repairs what can be."""

    def __init__(self, catalog: Catalog, snapshots: Snapshots, database: Database) -> None:
        self._catalog = catalog
        self._snapshots = snapshots
        self._database = database

    async def check(self, *, mend: bool) -> Report:
        report = Report()
        layers = self._catalog.layers
        for text in await self._database.write(_integrity, durable=False):
            report.problems.append(Problem(kind="database", name="state.db", text=text))
        self._rows(report)
        with layers.holding() as hold:
            images = list(self._catalog)
            every = list(layers)
            for layer in every:
                hold.add(layer)
            # What is held now stays until the end of the check.
            wanted = self._wanted(images, every, hold)
            dropped = layers.dropping.dropped(self._catalog.garbage.archives())
            wanted = {digest: size for digest, size in wanted.items() if digest not in dropped}
            damaged = await self._blobs(wanted, images, report, mend=mend)
            await self._layers(every, damaged, report, mend=mend)
            for image in images:
                self._image(image, report)
            report.images = len(images)
        # What was removed meanwhile has left behind what was held.
        await self._catalog.garbage.sweep(hold.blobs)
        self._containers(report)
        await self._strays(report, mend=mend)
        return report

    def _wanted(self, images: Iterable[Image], every: Iterable[Layer], hold: Hold) -> dict[Digest, int]:
        """Every blob that something needs, with the size that it should have (-1: unknown)."""
        wanted: dict[Digest, int] = {layer.blob: layer.blob_size for layer in every}
        for image in images:
            wanted[image.id] = len(image.config.raw)
            wanted |= {blob.digest: blob.size for blob in image.blobs}
            if image.manifest is not None:
                wanted[image.manifest] = -1
        for index in self._catalog.indexes:
            wanted[index.digest] = len(index.document.raw)
            for part in index.parts:
                wanted[part.descriptor.digest] = len(part.manifest.raw)
                wanted |= {blob.digest: blob.size for blob in (part.manifest.config, *part.manifest.layers)}
        for digest in wanted:
            hold.pin(digest)
        return wanted

    # ------------------------------------------------------------------ blobs

    async def _blobs(
        self, wanted: dict[Digest, int], images: list[Image], report: Report, *, mend: bool
    ) -> set[Digest]:
        """Look at every blob; those that are damaged or missing."""
        damaged: set[Digest] = set()
        for digest, size in wanted.items():
            found = await asyncio.to_thread(_blob_problem, self._catalog.blobs.path(digest), digest, size)
            if not found:
                report.blobs += 1
                report.size += os.stat(self._catalog.blobs.path(digest)).st_size
                continue
            damaged.add(digest)
            report.problems.append(await self._damaged(digest, found, images, mend=mend))
        return damaged

    async def _damaged(self, digest: Digest, text: str, images: list[Image], *, mend: bool) -> Problem:
        document = self._document(digest)
        if document is None:
            names = sorted({_shown(self._catalog, image) for image in images if _needs(image, digest)})
            remedy = f"pull or load {', '.join(names) or 'what needs it'} again"
            if mend:
                self._catalog.blobs.discard(digest)
            return Problem(kind="blob", name=digest, text=text, remedy=remedy)
        if mend:
            self._catalog.blobs.discard(digest)
            await asyncio.to_thread(self._catalog.blobs.put, document)
        remedy = "written anew" if mend else "can be written anew"
        return Problem(kind="blob", name=digest, text=text, remedy=remedy, mended=mend)

    def _document(self, digest: Digest) -> bytes | None:
        """A document that is in memory too: a configuration, an index, or a manifest of one."""
        owner = self._catalog.get(digest)
        if owner is not None:
            return owner.config.raw
        for index in self._catalog.indexes:
            if index.digest == digest:
                return index.document.raw
            for part in index.parts:
                if part.descriptor.digest == digest:
                    return part.manifest.raw
        return None

    # ------------------------------------------------------------------ layers

    async def _layers(
        self, every: Iterable[Layer], damaged: set[Digest], report: Report, *, mend: bool
    ) -> None:
        for layer in every:
            report.layers += 1
            if layer.parent is not None and self._catalog.layers.get(layer.parent) is None:
                text = f"the layer below it, {layer.parent}, is missing"
                report.problems.append(Problem(kind="layer", name=layer.chain_id, text=text))
                continue
            if layer.blob in damaged:
                if not os.path.isdir(self._catalog.layers.directory(layer)):
                    problem = Problem(kind="layer", name=layer.chain_id, text="its directory is missing")
                    report.problems.append(problem)
                continue  # there is nothing to hold it against
            again = self._made_again if self._catalog.layers.dropping.has(layer) else self._compared
            if (problem_found := await again(layer, mend=mend)) is not None:
                report.problems.append(problem_found)

    async def _compared(self, layer: Layer, *, mend: bool) -> Problem | None:
        """What is wrong with a layer, held against its archive unpacked again."""
        layers = self._catalog.layers
        try:
            async with layers.unpacked_again(layer) as (number, implied):
                here = layers.directory(layer)
                text = (
                    await asyncio.to_thread(difference, here, layers.directories.path(number), implied)
                    if os.path.isdir(here)
                    else "its directory is missing"
                )
                if not text:
                    return None
                if self._is_stood_on(layer):
                    remedy = "containers stand on it: remove them, then it can be mended"
                    return Problem(kind="layer", name=layer.chain_id, text=text, remedy=remedy)
                if mend:
                    await layers.replace(layer, number)
                remedy = "unpacked again" if mend else "can be unpacked again"
                return Problem(kind="layer", name=layer.chain_id, text=text, remedy=remedy, mended=mend)
        except (Failure, OSError) as error:
            return Problem(kind="layer", name=layer.chain_id, text=f"cannot be unpacked again: {error}")

    async def _made_again(self, layer: Layer, *, mend: bool) -> Problem | None:
        """What is wrong with a layer whose archive was dropped: it must be possible to make it again."""
        dropping = self._catalog.layers.dropping
        found = await asyncio.to_thread(dropping.problem, layer)
        if not found:
            return None
        if mend:  # so that whoever brings the archive again is not told that it can be made
            dropping.forget(layer)
        names = sorted({_shown(self._catalog, one) for one in self._catalog if layer.chain_id in one.chain})
        remedy = f"pull or load {', '.join(names) or 'what needs it'} again, then it can be mended"
        text = f"its archive was dropped and cannot be made again: {found}"
        return Problem(kind="layer", name=layer.chain_id, text=text, remedy=remedy)

    def _is_stood_on(self, layer: Layer) -> bool:
        layers = self._catalog.layers
        return any(
            layer.chain_id in {below.chain_id for below in layers.chain(parent)}
            for parent in self._snapshots.parents()
            if layers.get(parent) is not None
        )

    # ------------------------------------------------------------------ relations

    def _image(self, image: Image, report: Report) -> None:
        if digests.of(image.config.raw) != image.id:
            report.problems.append(Problem(kind="image", name=image.id, text="is not its configuration"))
        for chain_id in digests.chain_ids(image.config.diff_ids):
            if self._catalog.layers.get(chain_id) is None:
                report.problems.append(
                    Problem(kind="image", name=image.id, text=f"layer {chain_id} is missing")
                )

    def _rows(self, report: Report) -> None:
        """What is known here is what a later daemon will read."""
        query = "SELECT digest, image_id FROM image_indexes"
        indexes = set(self._database.read(lambda connection: connection.execute(query).fetchall()))
        images, layers = self._database.read(
            lambda connection: tuple(
                {row[0] for row in connection.execute(query)}
                for query in ("SELECT id FROM images", "SELECT chain_id FROM layers")
            )
        )
        for index in self._catalog.indexes:
            if (index.digest, index.main) not in indexes:
                report.problems.append(Problem(kind="image", name=index.digest, text="its index has no row"))
        for image in self._catalog:
            if image.id not in images:
                report.problems.append(Problem(kind="image", name=image.id, text="has no row"))
            for chain_id in image.chain:
                if chain_id not in layers:
                    report.problems.append(Problem(kind="layer", name=chain_id, text="has no row"))

    def _containers(self, report: Report) -> None:
        keys = self._snapshots.keys()
        for key in keys:
            parent = self._snapshots.parent(key)
            if parent is not None and self._catalog.layers.get(parent) is None:
                text = f"its layer {parent} is missing"
                report.problems.append(Problem(kind="container", name=key, text=text))

    async def _strays(self, report: Report, *, mend: bool) -> None:
        """What lies there and nothing needs."""
        blobs, layers = self._catalog.blobs, self._catalog.layers
        await layers.drain()
        lying = await asyncio.to_thread(lambda: set(blobs.digests()))
        spare = {digest for digest in lying - self._catalog.garbage.needed_blobs() if blobs.has(digest)}
        for digest in sorted(spare):
            text = "nothing needs it"
            remedy = "removed" if mend else "can be removed"
            report.problems.append(Problem(kind="blob", name=digest, text=text, remedy=remedy, mended=mend))
        if mend:
            self._catalog.garbage.drop_blobs(spare)
        numbers = layers.strays()
        for number in numbers:
            remedy = "removed" if mend else "can be removed"
            report.problems.append(
                Problem(kind="layer", name=str(number), text="nothing names it", remedy=remedy, mended=mend)
            )
        if mend:
            layers.directories.discard(numbers)
            await layers.drain()


def _integrity(connection: sqlite3.Connection) -> list[str]:
    found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
    found += [
        f"{row[0]} names what is not in {row[2]}" for row in connection.execute("PRAGMA foreign_key_check")
    ]
    return [text for text in found if text != "ok"]


def _blob_problem(path: str, digest: Digest, size: int) -> str:
    """What is wrong with a blob's file; empty for nothing."""
    hasher = hashlib.sha256()
    try:
        with open(path, "rb", buffering=0) as file:
            found = os.fstat(file.fileno()).st_size
            if size not in (-1, found):
                return f"{found} bytes, expected {size}"
            while block := file.read(_BLOCK):
                hasher.update(block)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if f"sha256:{hasher.hexdigest()}" != digest:
        return f"damaged: its digest is sha256:{hasher.hexdigest()}"
    return ""


def _needs(image: Image, digest: Digest) -> bool:
    return digest == image.manifest or any(blob.digest == digest for blob in image.blobs)


def _shown(catalog: Catalog, image: Image) -> str:
    names = catalog.names_of(image.id)
    return names[0].familiar if names else digests.short(image.id)
