"""What the build cache takes of the disk, and its pruning.

A record is a remembered step, a cache mount, or all files of contexts that are held. The size of a step is
that of the layer that it added, once; it is shared when an image has that layer too, so that forgetting the
step frees nothing.

Law: ``prune`` forgets what meets all conditions and is used by no step at work; least recently used goes
first where only so much is to go that the rest fits.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.engine.model import Filters
from sampan.errors import InvalidArgument
from sampan.wire import durations

if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.engine.buildcache import BuildCache
    from sampan.engine.cachemounts import CacheMounts
    from sampan.engine.heldfiles import HeldFiles
    from sampan.images.catalog import Catalog
    from sampan.spec.digest import Digest

STEP, MOUNT, FILES = "regular", "exec.cachemount", "source.local"
_WORDS = "until unused-for id type description inuse shared private label label!"
_FILTERS = frozenset(_WORDS.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRecord:
    """``size`` in bytes; times in ns since the epoch."""

    identity: str
    kind: str
    words: str
    size: int
    shared: bool
    in_use: bool
    created_ns: int
    used_ns: int


class BuildUsage:
    """Looks and prunes."""

    def __init__(
        self,
        *,
        cache: BuildCache,
        mounts: CacheMounts,
        held: HeldFiles,
        catalog: Catalog,
        clock: Callable[[], int],
        limit: Callable[[], int] = lambda: 0,
    ) -> None:
        """``limit`` tells what may stay when ``collect`` was called, in bytes; 0: all."""
        self._held = held
        self._limit = limit
        self._collecting = asyncio.Lock()
        self._cache = cache
        self._mounts = mounts
        self._catalog = catalog
        self._clock = clock

    async def records(self, *, files: bool = True) -> list[CacheRecord]:
        """Every record, least recently used first; without the one for ``files`` of contexts, which takes
        long to look at and has a limit of its own."""
        layers = self._catalog.layers
        of_images = {chain_id for image in self._catalog for chain_id in image.chain}
        seen: set[Digest] = set()
        found: list[CacheRecord] = []
        for step in self._cache:
            layer = layers.get(step.chain_id) if step.chain_id else None
            counted = layer is not None and layer.chain_id not in seen
            if layer is not None:
                seen.add(layer.chain_id)
            found.append(
                CacheRecord(
                    identity=step.key,
                    kind=STEP,
                    words=step.words,
                    size=layer.size if layer is not None and counted else 0,
                    shared=step.chain_id is None or step.chain_id in of_images,
                    in_use=False,
                    created_ns=step.created_ns,
                    used_ns=step.used_ns,
                )
            )
        for mount in await self._mounts.all():
            found.append(
                CacheRecord(
                    identity=mount.name,
                    kind=MOUNT,
                    words=f"cached mount {mount.identity} of RUN",
                    size=mount.size,
                    shared=False,
                    in_use=mount.in_use,
                    created_ns=mount.used_ns,
                    used_ns=mount.used_ns,
                )
            )
        held = await asyncio.to_thread(self._held.usage) if files else None
        if held is not None and held.size:
            found.append(
                CacheRecord(
                    identity="files-of-contexts",
                    kind=FILES,
                    words="files of contexts that clients sent",
                    size=held.size,
                    shared=False,
                    in_use=held.in_use,
                    created_ns=held.used_ns,
                    used_ns=held.used_ns,
                )
            )
        return sorted(found, key=lambda record: record.used_ns)

    async def collect(self) -> None:
        """Forget what was used longest ago until the rest fits; one look after another."""
        if limit := self._limit():
            async with self._collecting:
                records = await self.records(files=False)
                if sum(record.size for record in records if not record.shared) > limit:
                    await self.prune(Filters(), everything=False, keep=limit)

    async def prune(self, filters: Filters, *, everything: bool, keep: int) -> tuple[list[str], int]:
        """Forget records: (their ids, bytes of files that went).

        What images share stays unless ``everything``; of the rest ``keep`` bytes stay. InvalidArgument for
        filters that are not known.
        """
        filters.accept(_FILTERS)
        fits = _condition(filters, self._clock())
        records = [record for record in await self.records() if not record.in_use]
        total = sum(record.size for record in records if not record.shared)
        chosen: list[CacheRecord] = []
        for record in records:
            if keep and total <= keep:
                break
            if fits(record) and (everything or not record.shared):
                chosen.append(record)
                total -= 0 if record.shared else record.size
        steps = [record.identity for record in chosen if record.kind == STEP]
        mounts = [record for record in chosen if record.kind == MOUNT]
        freed = await self._cache.forget(steps) if steps else 0
        await self._mounts.remove(record.identity for record in mounts)
        if any(record.kind == FILES for record in chosen):
            freed += await asyncio.to_thread(self._held.trim, 0)
        return [record.identity for record in chosen], freed + sum(record.size for record in mounts)


_SHARE = 10
_LEAST = 2 << 30


def default_limit(path: str) -> int:
    """What a build cache may take where nobody says: a tenth of the disk of ``path``, at least 2 GB."""
    disk = os.statvfs(path)
    return max(_LEAST, disk.f_blocks * disk.f_frsize // _SHARE)


def _condition(filters: Filters, now: int) -> Callable[[CacheRecord], bool]:
    texts = (*filters.get("until"), *filters.get("unused-for"))
    if len(texts) > 1:
        raise InvalidArgument("unused-for filter expects only one value")
    try:
        before = now - durations.parse(texts[0]) if texts else now + 1
    except ValueError as error:
        raise InvalidArgument(f'invalid filter "until={texts[0]}": {error}') from None
    flags = {name: filters.flag(name) for name in ("inuse", "shared", "private")}

    def fits(record: CacheRecord) -> bool:
        values = {"inuse": record.in_use, "shared": record.shared, "private": not record.shared}
        texts = {"id": record.identity, "type": record.kind, "description": record.words}
        return (
            record.used_ns < before
            and not filters.get("label")  # records have none
            and all(flags[name] in (None, value) for name, value in values.items())
            and all(not (wanted := filters.get(name)) or text in wanted for name, text in texts.items())
        )

    return fits
