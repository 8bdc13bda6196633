"""Commit: an image from what a container has changed, by Docker's rules.

Theory: the container's upper directory becomes one layer over those it stands on (none, if nothing was
changed); its configuration, changed as asked, becomes the image's.

Laws:
- The container stands still while its files are read, if it runs and that is wished.
- The image is there as a whole or not at all; a failure, and a crash, leave nothing of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from sampan.build import changes
from sampan.engine.model import Container, ContainerConfig, Status
from sampan.errors import Conflict, Internal, NotFound
from sampan.images.catalog import NewImage
from sampan.images.model import Image, format_time
from sampan.images.packing import Pack, Packed, packed, stack
from sampan.spec import image as documents
from sampan.spec import platform as platforms
from sampan.spec import reference as references
from sampan.spec.image import RunConfig

if TYPE_CHECKING:
    from sampan.engine.events import Events
    from sampan.engine.images import Images
    from sampan.engine.stillness import Stillness
    from sampan.engine.store import ContainerStore
    from sampan.images.catalog import Catalog
    from sampan.images.holds import Hold
    from sampan.images.snapshots import Snapshots
    from sampan.spec.digest import Digest

structs = msgspec.structs


class CommitOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the image is to be called, to say and to run. ``config`` None: as the container."""

    repository: str = ""
    tag: str = ""
    comment: str = ""
    author: str = ""
    pause: bool = True
    changes: tuple[str, ...] = ()
    config: ContainerConfig | None = None


class Commits:
    """The use case."""

    def __init__(
        self,
        *,
        store: ContainerStore,
        catalog: Catalog,
        snapshots: Snapshots,
        images: Images,
        stillness: Stillness,
        events: Events,
        pack: Pack | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._snapshots = snapshots
        self._images = images
        self._stillness = stillness
        self._events = events
        self._pack = pack
        self._clock = clock

    async def commit(self, ref: str, options: CommitOptions) -> Image:
        """Make the image. InvalidArgument, NotFound or Conflict before anything is done."""
        name = references.with_tag(options.repository, options.tag) if options.repository else None
        instance = self._store.find(ref)
        container = instance.container
        _check(container)
        config = _config(container, options)
        parent = self._snapshots.parent(container.id)
        root = self._snapshots.mounts(container.id)
        with self._catalog.layers.holding() as hold:
            if parent is not None:
                hold.add(self._catalog.layers[parent])
            async with AsyncExitStack() as unkept:
                async with self._stillness.of(instance, wanted=options.pause):
                    try:
                        catalog = self._catalog
                        work = packed(catalog.blobs, root, catalog.layers.directories, self._pack)
                        layer = await unkept.enter_async_context(work)
                    except (OSError, Internal, NotFound):
                        if not instance.removed:
                            raise
                if instance.removed:  # and its files with it, while they were read
                    raise NotFound(f"No such container: {ref}")
                try:
                    image = await self._keep(container, options, config, parent, layer, hold, name)
                except BaseException:
                    hold.end()
                    await self._catalog.garbage.sweep(hold.blobs)
                    raise
        if name is not None:
            self._images.tell(image, "tag", name.familiar)
        attributes = {
            "comment": options.comment,
            "imageID": image.id,
            "imageRef": name.familiar if name else "",
        }
        self._events.container(instance.container, "commit", **attributes)
        return image

    async def _keep(
        self,
        container: Container,
        options: CommitOptions,
        config: RunConfig,
        parent: Digest | None,
        layer: Packed,
        hold: Hold,
        name: references.Reference | None,
    ) -> Image:
        layers = self._catalog.layers
        top = parent if layer.empty else await stack(layers, hold, parent, layer)
        diff_ids = [one.diff_id for one in reversed(layers.chain(top))]
        raw = self._document(container, options, config, diff_ids, empty=layer.empty)
        new = NewImage(raw=raw, names=() if name is None else (name,))
        return (await self._images.keep([new], hold))[0]

    def _document(
        self,
        container: Container,
        options: CommitOptions,
        config: RunConfig,
        diff_ids: Sequence[Digest],
        *,
        empty: bool,
    ) -> bytes:
        parent = self._catalog.get(container.image_id)
        created = format_time(self._clock())
        step: dict[str, Any] = {"created": created, "created_by": " ".join(container.config.cmd or ())}
        step |= {"author": options.author} if options.author else {}
        step |= {"comment": options.comment} if options.comment else {}
        step |= {"empty_layer": True} if empty else {}
        members: dict[str, Any] = {
            "architecture": parent.config.architecture if parent else platforms.own_architecture(),
            **({"variant": parent.config.variant} if parent and parent.config.variant else {}),
            "os": parent.config.os if parent else "linux",
            "created": created,
            **({"author": options.author} if options.author else {}),
            **({"comment": options.comment} if options.comment else {}),
            **({"parent": parent.id} if parent else {}),
            "config": config.document(),
            "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
            "history": [*_history(parent, len(diff_ids) - (not empty)), step],
        }
        return documents.encode(members)


def _check(container: Container) -> None:
    if container.state.status is Status.DEAD:
        raise Conflict(f"You cannot commit container {container.id} which is Dead")
    if container.state.status is Status.REMOVING:
        raise Conflict(f"You cannot commit container {container.id} which is being removed")


def _history(parent: Image | None, layers: int) -> list[dict[str, Any]]:
    """The steps that made what the container stands on; its layers alone, if its image is gone."""
    if parent is not None:
        history: list[dict[str, Any]] = documents.history(parent.config)
        return history
    return [{"created_by": ""} for _ in range(layers)]


# ------------------------------------------------------------------ configuration


def _config(container: Container, options: CommitOptions) -> RunConfig:
    """The image's: as asked, then the changes, then the container's for what is left open."""
    own = run_config(container.config)
    wanted = own if options.config is None else run_config(options.config)
    return merged(changes.apply(wanted, options.changes), own)


def run_config(config: ContainerConfig) -> RunConfig:
    """The part of a container's configuration that an image has."""
    health = config.healthcheck
    return RunConfig(
        user=config.user,
        exposed_ports=tuple(config.exposed_ports or ()),
        env=config.env or (),
        entrypoint=config.entrypoint,
        cmd=config.cmd,
        volumes=tuple(config.volumes or ()),
        working_dir=config.working_dir,
        labels=config.labels or {},
        stop_signal=config.stop_signal,
        healthcheck=None if health is None else msgspec.to_builtins(health),
        on_build=config.on_build or (),
        shell=config.shell,
        args_escaped=config.args_escaped,
    )


def merged(wanted: RunConfig, below: RunConfig) -> RunConfig:
    """``wanted``, with ``below`` for what it leaves open."""
    entrypoint, cmd = wanted.entrypoint, wanted.cmd
    if not entrypoint:
        cmd = cmd or below.cmd
        entrypoint = below.entrypoint if entrypoint is None else entrypoint
    known = {entry.partition("=")[0] for entry in wanted.env}
    env = (*wanted.env, *(entry for entry in below.env if entry.partition("=")[0] not in known))
    health = wanted.healthcheck
    if below.healthcheck:
        health = {**below.healthcheck, **{key: value for key, value in (health or {}).items() if value}}
    return replace(
        wanted,
        user=wanted.user or below.user,
        exposed_ports=tuple(dict.fromkeys((*wanted.exposed_ports, *below.exposed_ports))),
        env=env,
        entrypoint=entrypoint,
        cmd=cmd,
        volumes=tuple(dict.fromkeys((*wanted.volumes, *below.volumes))),
        working_dir=wanted.working_dir or below.working_dir,
        labels={**below.labels, **wanted.labels},
        stop_signal=wanted.stop_signal or below.stop_signal,
        healthcheck=health,
    )
