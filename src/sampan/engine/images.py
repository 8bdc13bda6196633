"""What a user does with images: list, inspect, tag, remove, load, import, save, history, prune.

Images and their files are the affair of ``sampan.images``; here are Docker's rules about them, its words and
its events. The image ``sampan/base`` is made when it is first asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence

import msgspec

from sampan.build import changes
from sampan.engine import imageplatforms, imageselection
from sampan.engine.image_removal import Removal, Removed, Users
from sampan.engine.imagefilters import matches, passes_labels
from sampan.engine.imageplatforms import Platforms, Wanted
from sampan.engine.imageselection import by_index
from sampan.engine.lookups import created_before
from sampan.engine.model import Event, EventType, Filters
from sampan.engine.telling import told
from sampan.errors import InvalidArgument, NotFound
from sampan.images import base, loading, saving
from sampan.images.catalog import Catalog, NewImage
from sampan.images.holds import Hold
from sampan.images.indexes import ImageIndex, Platform
from sampan.images.model import Image, Progress, Span, format_time
from sampan.images.space import Spaces
from sampan.spec import image as documents
from sampan.spec import platform as platforms
from sampan.spec import reference as references
from sampan.spec.digest import Digest
from sampan.spec.image import HistoryEntry, RunConfig
from sampan.spec.reference import Reference

Summaries = list["Summary"]

_LIST_FILTERS = frozenset(("dangling", "label", "label!", "before", "since", "reference", "until"))
_PRUNE_FILTERS = frozenset(("dangling", "label", "label!", "until"))
_BASE = references.parse(base.NAME).tagged()
_SECOND = 1_000_000_000  # ns


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """An image as a list shows it, ``size`` with all its platforms. ``shared_size`` and ``containers`` are -1
    when not counted, ``platforms`` None when not asked for.
    """

    image: Image
    names: tuple[Reference, ...]
    size: int
    platforms: Platforms | None = None
    containers: int = -1
    shared_size: int = -1


class ImagesUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What images take of the disk: their sizes are those, ``total`` counts what they share once.

    ``held`` are the bytes that images in use need.
    """

    summaries: Summaries
    total: int
    held: int


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """An image as inspect shows it; ``directories`` are its layers' files as ``driver`` keeps them, topmost
    first.
    """

    image: Image
    names: tuple[Reference, ...]
    directories: tuple[str, ...]
    driver: str = "overlay2"
    platforms: Platforms | None = None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an image's history. ``size`` in bytes; ``image`` where the step's result is an image."""

    entry: HistoryEntry
    size: int
    image: Image | None
    names: tuple[Reference, ...]


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What a prune removed; ``space_reclaimed`` in bytes."""

    removed: list[Removed]
    space_reclaimed: int


class ImportOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How an imported tar becomes an image. ``source`` is where it came from, for the default message."""

    repository: str = ""
    tag: str = ""
    message: str = ""
    changes: tuple[str, ...] = ()
    platform: str = ""
    source: str = "-"


class Images:
    """The use cases. ``users`` says which containers use an image; ``publish`` takes an event."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        users: Users,
        publish: Callable[[Event], None],
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._catalog = catalog
        self._users = users
        self._publish = publish
        self._clock = clock
        self._spaces = Spaces(catalog)
        self._building_base = asyncio.Lock()
        self._changing = asyncio.Lock()
        catalog.supply_with(self._supply)
        catalog.used_by(lambda image_id: bool(users(image_id)))

    # ------------------------------------------------------------------ looking

    def list(
        self,
        filters: Filters | None = None,
        *,
        show_all: bool = False,
        shared_size: bool = False,
        manifests: bool = False,
    ) -> Summaries:
        """Images, newest first. InvalidArgument for a filter that Docker does not have.

        Without ``show_all``, images that only are steps to others are left out; always those that are only
        a further platform of another. With ``manifests``, an image is there once for each of its indexes.
        """
        filters = filters or Filters()
        filters.accept(_LIST_FILTERS)
        dangling = filters.flag("dangling")
        after, before = self._bounds(filters)
        shared = self._shared_layers() if shared_size else frozenset()
        found = []
        for image in self._catalog:
            if not (after < image.created < before) or not passes_labels(filters, image):
                continue
            names = tuple(self._catalog.names_of(image.id))
            if names and "reference" in filters:
                names = tuple(name for name in names if matches(name, filters.get("reference")))
                if not names:
                    continue
            if names and dangling:
                continue
            if not names and not self._shows_nameless(image, filters, show_all=show_all, dangling=dangling):
                continue
            layers = self._catalog.layers.chain(image.chain_id)
            common = sum(one.size for one in layers if one.chain_id in shared) if shared_size else -1
            one = [(names, self._catalog.indexes.of(image.id))]
            for own, index in by_index(self._catalog, image, names) if manifests else one:
                size = imageplatforms.size(self._catalog, image, index)
                summary = Summary(image=image, names=own, size=size, shared_size=common)
                if manifests:
                    told = self._platforms(image, index)
                    count = sum(len(one.containers) for one in told.manifests)
                    size += imageplatforms.content(self._catalog, image, index)
                    summary = msgspec.structs.replace(summary, platforms=told, containers=count, size=size)
                found.append(summary)
        return sorted(found, key=lambda summary: summary.image.created, reverse=True)

    def _platforms(self, image: Image, index: ImageIndex | None) -> Platforms:
        def users(image_id: str) -> list[str]:
            return [use.container_id for use in self._users(image_id)]

        return imageplatforms.describe(self._catalog, image, index, users)

    async def usage(self, containers: Mapping[str, int]) -> ImagesUsage:
        """Every image with what it takes of the disk; ``containers`` counts those of an image by its id."""
        inventory = await self._spaces.measure()
        summaries = [
            msgspec.structs.replace(
                found,
                size=inventory.size_of(self._all_platforms(found.image)),
                containers=sum(containers.get(one, 0) for one in self._all_platforms(found.image)),
                shared_size=inventory.shared(found.image.id),
            )
            for found in self.list()
            if found.image.id in inventory.images
        ]
        used = [image_id for image_id, count in containers.items() if count and image_id in inventory.images]
        return ImagesUsage(summaries=summaries, total=inventory.total, held=inventory.held(used))

    def _all_platforms(self, image: Image) -> tuple[str, ...]:
        """The ids of all images that are shown as this one."""
        indexes = self._catalog.indexes.mains(image.id)
        return tuple(dict.fromkeys((image.id, *(one for index in indexes for one in index.images))))

    async def inspect(self, text: str, wanted: Platform | None = None, *, manifests: bool = False) -> Details:
        """The image by name, id or prefix, for a platform; NotFound in Docker's words."""
        if wanted is not None and manifests:
            raise InvalidArgument("conflicting options: manifests and platform options cannot both be set")
        image = await self._catalog.resolve(text)
        image = image if wanted is None else self._catalog.find_on(text, wanted)
        index = self._catalog.index_of(text)
        layers = self._catalog.layers.chain(image.chain_id)
        return Details(
            image=image,
            names=tuple(self._catalog.names_of(index.main if index else image.id)),
            directories=tuple(self._catalog.layers.directory(layer) for layer in layers),
            driver=self._catalog.layers.driver.name,
            platforms=self._platforms(image, index) if manifests else None,
        )

    async def history(self, text: str, wanted: Platform | None = None) -> Sequence[Step]:
        """The steps that made an image, newest first."""
        image = await self._catalog.resolve(text)
        image = image if wanted is None else self._catalog.find_on(text, wanted)
        sizes = [self._catalog.layers[chain_id].size for chain_id in image.chain]
        steps: list[tuple[HistoryEntry, int]] = []
        for entry in image.config.history:
            size = 0 if entry.empty_layer or not sizes else sizes.pop(0)
            steps.append((entry, size))
        owner: Image | None = image
        found = []
        for entry, size in reversed(steps):
            names = tuple(self._catalog.names_of(owner.id)) if owner else ()
            found.append(Step(entry=entry, size=size, image=owner, names=names))
            owner = self._catalog.get(owner.config.parent) if owner else None
        return found

    # ------------------------------------------------------------------ naming and removing

    async def tag(self, text: str, repository: str, tag: str = "") -> None:
        """Name an image ``repository:tag``, taking the name from whoever has it."""
        image = self._catalog.find(text)
        reference = references.with_tag(repository, tag)
        async with self._changing:
            await self._catalog.tag(image, reference, self._catalog.index_of(text))
        self._event(image, "tag", name=reference.familiar)

    async def remove(
        self, text: str, *, force: bool = False, prune: bool = True, wanted: Wanted = ()
    ) -> Sequence[Removed]:
        """Remove a name, and the image with its last one; or only some of an image's platforms.

        Conflict, NotFound in Docker's words.
        """
        async with self._changing:
            if wanted and self._catalog.index_of(text) is not None:
                return await self._removal().remove_platforms(text, wanted, force=force)
            for platform in wanted:
                self._catalog.find_on(text, platform)
            return await self._removal().remove(text, force=force, prune=prune)

    async def prune(self, filters: Filters | None = None) -> Pruned:
        """Remove images that no container uses: the nameless ones, or all with ``dangling=false``."""
        filters = filters or Filters()
        filters.accept(_PRUNE_FILTERS)
        only_dangling = filters.flag("dangling") is not False
        limit = self._limit(filters)
        removed: list[Removed] = []
        before = await self._spaces.measure()
        async with self._changing:
            for image in sorted(self._catalog, key=lambda image: image.created, reverse=True):
                names = self._catalog.names_of(image.id)
                gone = self._catalog.get(image.id) is None or self._catalog.indexes.is_hidden(image.id)
                used = gone or any(self._users(one) for one in self._all_platforms(image))
                if used or self._catalog.children_of(image.id) or (names and only_dangling):
                    continue
                if not image.created < limit or not passes_labels(filters, image):
                    continue
                removal = self._removal()
                for text in [name.familiar for name in names] or [image.id]:
                    await removal.remove(text, force=False, prune=True)
                removed += removal.records
        space = before.gone(await self._spaces.measure()) if removed else 0
        event = Event(type=EventType.IMAGE, action="prune", actor_id="", attributes={"reclaimed": str(space)})
        self._publish(event)
        return Pruned(removed=removed, space_reclaimed=space)

    # ------------------------------------------------------------------ in and out

    def load(
        self, body: AsyncIterable[bytes], *, quiet: bool = False, wanted: Wanted = ()
    ) -> AsyncIterator[Progress]:
        """Load an archive of images, or only some platforms of it; says what was loaded.

        InvalidArgument for a bad archive, NotFound for one without the platform.
        """
        return told(lambda tell: self._load(body, tell, wanted, quiet=quiet))

    async def _load(
        self, body: AsyncIterable[bytes], tell: Callable[[Progress], None], wanted: Wanted, *, quiet: bool
    ) -> None:
        def report(progress: Progress) -> None:
            if not quiet:
                tell(progress)

        before: dict[str, Image | None] = {}

        async def keep(new: Sequence[NewImage], hold: Hold) -> list[Image]:
            async with self._changing:
                before.update(
                    {name.canonical: self._catalog.owner(name) for one in new for name in one.names}
                )
                return await self._catalog.add(new, hold)

        said: set[str] = set()
        for one, image in await loading.load(self._catalog, body, report, keep, wanted):
            self._event(image, "load", name=image.id)
            for name in one.names:
                if one.index is not None and name.canonical in said:
                    continue  # another platform of what was told of
                said.add(name.canonical)
                old, new = before[name.canonical], self._catalog.owner(name)
                if old is not None and (new is None or old.id != new.id):
                    tell(Progress(stream=_renaming(name, old)))
                tell(Progress(stream=f"Loaded image: {name.familiar}\n"))
            if not one.names:
                tell(Progress(stream=f"Loaded image ID: {image.id}\n"))

    async def import_(self, body: AsyncIterable[bytes], options: ImportOptions) -> Image:
        """Make an image of one layer from a tar stream. Bad options are refused before any reading."""
        if options.repository and references.parse(options.repository).digest:
            raise InvalidArgument("cannot import digest reference")
        names = (references.with_tag(options.repository, options.tag),) if options.repository else ()
        system, architecture, variant = _platform(options.platform)
        config = changes.apply(RunConfig(), options.changes)
        created = format_time(self._clock())
        comment = options.message or f"Imported from {options.source}"

        def describe(diff_id: Digest) -> bytes:
            members = {
                "architecture": architecture,
                **({"variant": variant} if variant else {}),
                "os": system,
                "created": created,
                "comment": comment,
                "config": config.document(),
                "rootfs": {"type": "layers", "diff_ids": [diff_id]},
                "history": [{"created": created, "comment": comment}],
            }
            return documents.encode(members)

        image = await loading.add_layer_image(self._catalog, body, describe, names)
        for name in names:
            self._event(image, "tag", name=name.familiar)
        self._event(image, "import", name=image.id)
        return image

    async def keep(self, new: Sequence[NewImage], hold: Hold) -> Sequence[Image]:
        """Keep images that were made here, whose layers are held, all or none."""
        async with self._changing:
            return await self._catalog.add(new, hold)

    async def keep_name(self, image: Image, name: Reference, index: ImageIndex | None = None) -> None:
        """Give an image, or its index, a name that it has earned elsewhere; gone meanwhile, it needs none."""
        async with self._changing:
            owner = self._catalog.owner(name)
            if owner is not None and owner.id == image.id:
                return
            with contextlib.suppress(NotFound):
                await self._catalog.tag(image, name, index)

    def tell(self, image: Image, action: str, name: str = "") -> None:
        """Publish an event of an image that another use case made or named."""
        self._event(image, action, name=name)

    def save(self, texts: Sequence[str], wanted: Wanted = ()) -> AsyncIterator[bytes | Span]:
        """One archive of all images named, of the platforms wanted. NotFound before anything is sent."""
        selected = imageselection.select(self._catalog, texts, wanted)
        for one in selected:
            self._event(one.image, "save", name=one.image.id)
        return saving.save(self._catalog, selected)

    # ------------------------------------------------------------------ the base image

    async def ensure_base(self) -> Image:
        """The image ``sampan/base:latest``, built from the host's programs if it is not here. Idempotent."""
        async with self._building_base:
            image = self._catalog.owner(_BASE)
            if image is not None:
                return image
            config = RunConfig(env=(f"PATH={base.PATH}",), cmd=("sh",))
            created = format_time(base.created_ns())

            def describe(diff_id: Digest) -> bytes:
                members = {
                    "architecture": platforms.own_architecture(),
                    "os": "linux",
                    "created": created,
                    "config": config.document(),
                    "rootfs": {"type": "layers", "diff_ids": [diff_id]},
                    "history": [{"created": created, "created_by": "sampan: programs of this host"}],
                }
                return documents.encode(members)

            image = await loading.add_layer_image(self._catalog, _base_stream(), describe, (_BASE,))
            self._event(image, "import", name=image.id)
            return image

    async def supplies(self, reference: Reference) -> bool:
        """Make the image if it is one that the engine makes by itself; whether it is."""
        return await self._supply(reference)

    async def _supply(self, reference: Reference) -> bool:
        if reference != _BASE:
            return False
        await self.ensure_base()
        return True

    # ------------------------------------------------------------------ details

    def _removal(self) -> Removal:
        return Removal(self._catalog, self._users, lambda image, action: self._event(image, action))

    def _event(self, image: Image, action: str, *, name: str = "") -> None:
        attributes = {**image.config.config.labels, "name": name or image.id}
        self._publish(Event(type=EventType.IMAGE, action=action, actor_id=image.id, attributes=attributes))

    def _bounds(self, filters: Filters) -> tuple[float, float]:
        """The open interval of creation times, in seconds, that ``since``, ``before`` and ``until`` leave."""
        after = max((self._created(text) for text in filters.get("since")), default=float("-inf"))
        before = min((self._created(text) for text in filters.get("before")), default=float("inf"))
        return after, min(before, self._limit(filters))

    def _created(self, text: str) -> float:
        return self._catalog.find(text).created

    def _limit(self, filters: Filters) -> float:
        limit = created_before(filters, self._clock())
        return float("inf") if limit is None else limit / _SECOND

    def _shows_nameless(
        self, image: Image, filters: Filters, *, show_all: bool, dangling: bool | None
    ) -> bool:
        if dangling is False or "reference" in filters or self._catalog.indexes.is_hidden(image.id):
            return False
        return show_all or not self._catalog.children_of(image.id)

    def _shared_layers(self) -> frozenset[Digest]:
        seen: set[Digest] = set()
        shared: set[Digest] = set()
        for image in self._catalog:
            shared |= seen & set(image.chain)
            seen |= set(image.chain)
        return frozenset(shared)


def _renaming(name: Reference, old: Image) -> str:
    return (
        f"The image {name.familiar} already exists, renaming the old one with ID {old.id} to empty string\n"
    )


async def _base_stream() -> AsyncIterator[bytes]:
    pieces = base.archive()
    while piece := await asyncio.to_thread(next, pieces, b""):
        yield piece


def _platform(text: str) -> tuple[str, str, str]:
    """(os, architecture, variant) that an import is given."""
    system, architecture, variant = platforms.parse(text)
    if system != "linux":
        raise InvalidArgument("operating system is not supported")
    return system, architecture, variant
