"""Creating containers, and naming them.

Order: everything is checked, then the name is taken, then things are made, then the record is written. A
failure on the way takes back what was made, so that a refused request changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sampan.engine import defaults, logfiles, mounts, names, runtimes, validation
from sampan.engine.model import (
    Container,
    ContainerConfig,
    Created,
    HostConfig,
    Mount,
    MountPoint,
    NetworkingConfig,
    Status,
)
from sampan.engine.model.container import OWNER
from sampan.engine.model.volumes import LOCAL
from sampan.engine.removal import remove_directory
from sampan.errors import Conflict, Failure, InvalidArgument, NotFound
from sampan.images.snapshots import part
from sampan.spec import platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.engine.events import Events
    from sampan.engine.forecast import Forecast
    from sampan.engine.links import Links
    from sampan.engine.ports import Catalog, Snapshots, VolumeStore
    from sampan.engine.sandboxes import Sandboxes
    from sampan.engine.settings import Settings
    from sampan.engine.store import ContainerStore
    from sampan.engine.users import Users
    from sampan.images.model import Image


class Creation:
    """Makes and renames containers."""

    def __init__(
        self,
        *,
        store: ContainerStore,
        catalog: Catalog,
        snapshots: Snapshots,
        volumes: VolumeStore,
        events: Events,
        users: Users,
        sandboxes: Sandboxes,
        links: Links,
        forecast: Forecast,
        settings: Settings,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._snapshots = snapshots
        self._volumes = volumes
        self._events = events
        self._users = users
        self._sandboxes = sandboxes
        self._links = links
        self._forecast = forecast
        self._settings = settings

    async def create(
        self,
        name: str | None,
        config: ContainerConfig,
        host: HostConfig,
        networking: NetworkingConfig,
        wanted: tuple[str, str, str] | None = None,
        over: Image | None = None,
    ) -> Created:
        """``wanted`` is the platform (os, architecture, variant) that the image must be of, if any.

        ``over`` is an image that is in no catalogue: the container is a step of a build, and temporary.
        """
        if name:
            name = names.check(name)
        runtimes.find(host.runtime, self._settings.options)
        host, warnings = validation.check(config, host, networking, self._settings.facts)
        host = self._links.resolved(self._sandboxes.resolved(host))
        image = over or await self._catalog.resolve(config.image, wanted)
        warnings += _check_platform(config.image, image, wanted)
        container = self._describe(name or "", config, host, networking, image)
        container = replace(container, temporary=over is not None)
        self._store.reserve(container.name, container.id)
        try:
            self._store.announce(container)
            container = await self._make(container, image)
        except BaseException:
            self._store.unreserve(container.name)
            raise
        self._links.note(container)
        self._events.container(container, "create")
        warnings += self._users.warnings(container)
        return Created(id=container.id, warnings=tuple(warnings))

    def _describe(
        self,
        name: str,
        config: ContainerConfig,
        host: HostConfig,
        networking: NetworkingConfig,
        image: Image,
    ) -> Container:
        settings = self._settings
        own_volumes = tuple(config.volumes or {})
        run = image.config.config
        config = defaults.merge_image(config, run)
        host = defaults.fill_host(host, settings.options, settings.facts)
        logfiles.check(host.log_config)
        points = mounts.settle(
            host,
            run.volumes,
            own_volumes,
            inherited=self._inherited(host),
            daemon_root=settings.paths.data,
        )
        container_id = self._forecast.take()
        if not config.hostname:
            shared = host.network_mode == "host" or host.uts_mode == "host"
            hostname = settings.facts.hostname if shared else container_id[:12]
            config = replace(config, hostname=hostname)
        command = defaults.command(config)
        home = settings.paths.container(container_id)
        own_log = host.log_config.type == "json-file"
        container = Container(
            id=container_id,
            name=name or names.generate(self._store.taken, settings.chance),
            created=settings.now(),
            path=command[0],
            args=command[1:],
            image_id=image.id,
            driver=self._snapshots.driver,
            config=config,
            host=host,
            network=defaults.network_settings(config, host, networking),
            mounts=tuple(points),
            hostname_path=f"{home}/hostname",
            hosts_path=f"{home}/hosts",
            resolv_conf_path=f"{home}/resolv.conf",
            log_path=settings.paths.container_log(container_id) if own_log else "",
        )
        logfiles.check_tag(container)
        return container

    async def _make(self, container: Container, image: Image) -> Container:
        made: list[str] = []  # anonymous volumes
        home = self._settings.paths.container(container.id)
        try:
            asked = {posixpath.normpath(mount.target): mount for mount in container.host.mounts or ()}
            owner = (container.config.labels or {}).get(OWNER)
            points = [
                await self._with_volume(point, asked.get(point.destination), made, owner)
                for point in container.mounts
            ]
            container = replace(container, mounts=tuple(points))
            reason = self._users.reason(container, image=image.max_id)
            self._users.allow(reason, container)
            container = replace(container, state=replace(container.state, host_ids=reason))
            self._store.announce(container)
            root = await self._snapshots.prepare(container.id, image)
            for number, point in enumerate(points):
                if point.type == "image":
                    mounted = await self._catalog.resolve(point.source)
                    await self._snapshots.prepare(part(container.id, number), mounted)
            for point in points:
                if point.type == "volume" and not point.no_copy:
                    await self._volumes.populate(point.name, root, point.destination)
            os.makedirs(home, mode=0o710, exist_ok=True)
            lasting = not (container.host.auto_remove or container.temporary)
            if lasting:
                await self._snapshots.sync(container.id)
            await self._store.add(container, durable=lasting)
        except BaseException:
            with contextlib.suppress(Failure, OSError):
                await self._snapshots.remove(container.id)
                remove_directory(home)
            for name in made:
                with contextlib.suppress(Failure):
                    await self._volumes.remove(name)
            raise
        return container

    def _inherited(self, host: HostConfig) -> list[MountPoint]:
        """The mounts that ``--volumes-from`` takes from other containers; a later one replaces an earlier."""
        found: dict[str, MountPoint] = {}
        for text in host.volumes_from or ():
            ref, mode = mounts.parse_volumes_from(text)
            if not ref:
                raise InvalidArgument('invalid name or ID supplied: ""')
            try:
                points = mounts.inherit(self._store.find(ref).container.mounts, mode)
            except NotFound as error:  # not an image that is missing, which a client would pull
                raise InvalidArgument(str(error)) from error
            found |= {point.destination: point for point in points}
        return list(found.values())

    async def _with_volume(
        self, point: MountPoint, asked: Mount | None, made: list[str], owner: str | None
    ) -> MountPoint:
        """The mount with the volume or the image that it is of; ``asked`` is its --mount, if it has one.

        A volume that is made for the container of a group is the group's, whatever labels are asked for.
        """
        if point.type == "image":
            try:
                image = await self._catalog.resolve(point.name)
            except NotFound as error:  # not the container's own, which a client would pull
                raise InvalidArgument(str(error)) from error
            if not image.chain:
                raise InvalidArgument(f"image {point.name} has no layers to mount")
            return replace(point, source=image.id)
        if point.type != "volume":
            return point
        options = asked.volume_options if asked is not None else None
        config = options.driver_config if options is not None else None
        labels = options.labels if options is not None else None
        if owner is not None:
            labels = {**(labels or {}), OWNER: owner}
        name = await self._volumes.ensure(
            point.name or None,
            # A name alone means the volume of that name, whoever keeps it.
            driver="" if point.driver == LOCAL else point.driver,
            options=config.options if config is not None else None,
            labels=labels,
        )
        if point.anonymous:
            made.append(name)
        volume = self._volumes.get(name)
        return replace(
            point,
            name=name,
            source=self._volumes.mount_source(name),
            driver=volume.driver,
            rw=point.rw and not volume.read_only,
        )

    async def rename(self, ref: str, name: str) -> None:
        """Give the container another name, which is free."""
        instance = self._store.find(ref)
        if not name.removeprefix("/"):
            raise InvalidArgument("Neither old nor new names may be empty")
        with _allocating():
            name = names.check("/" + name.removeprefix("/"))
        async with instance.lock:
            before = instance.container
            if instance.removed:
                raise NotFound(f"No such container: {ref}")
            if before.state.status in (Status.REMOVING, Status.DEAD):
                raise Conflict(f"container {before.id} is marked for removal and cannot be renamed")
            if before.name == name:
                raise InvalidArgument("Renaming a container with the same name as its current name")
            with _allocating():
                self._store.reserve(name, before.id)
            try:
                await self._store.rename(instance, name)
            except BaseException:
                self._store.unreserve(name)
                raise
        self._events.container(instance.container, "rename", oldName="/" + before.name)


def _check_platform(reference: str, image: Image, wanted: tuple[str, str, str] | None) -> list[str]:
    """Warn of an image for another machine, which may run all the same; NotFound for one of another platform
    than was asked for."""
    found = (image.config.os, image.config.architecture, image.config.variant)
    if not platform.fits(found, wanted or platform.parse("")):
        if wanted is not None:
            raise NotFound(
                f"image with reference {reference} was found but its platform ({platform.shown(*found)}) "
                f"does not match the specified platform ({platform.shown(*wanted)})"
            )
        return [
            f"The requested image's platform ({platform.shown(*found)}) does not match the detected host "
            f"platform ({platform.shown(*platform.parse(''))}) and no specific platform was requested"
        ]
    return []


@contextlib.contextmanager
def _allocating() -> Iterator[None]:
    """Say of a failure that it befell a new name, as Docker does."""
    try:
        yield
    except (InvalidArgument, Conflict) as error:
        raise type(error)(f"Error when allocating new name: {error}") from None
