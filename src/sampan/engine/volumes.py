"""What a user does with volumes: create, find, remove, prune; and what a container's start needs of them.

Laws: a volume that is used, by a container that runs or not or by a copy, is never removed; changes to one
name happen one after the other; a volume exists for callers exactly while it is in the table in memory.
A driver's own word counts for what it keeps: what it does not know is not shown, what it made itself is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sampan.engine.drivervolumes import DriverVolumes
from sampan.engine.model import Event, EventType, Filters, Pruned
from sampan.engine.model.volumes import ANONYMOUS_LABEL, LOCAL, Volume, VolumeUsage
from sampan.engine.volumemounts import VolumeMounts
from sampan.errors import Conflict, Internal, NotFound, Unavailable, of_host
from sampan.images.turns import Turns
from sampan.linux.diskspace import measure
from sampan.volumes.local import LocalVolumes, check_name
from sampan.volumes.mounting import Marks, check_options
from sampan.volumes.populate import beside, inside, populate
from sampan.volumes.records import VolumeRecord

if TYPE_CHECKING:
    from sampan.sandbox.messages import RootFilesystem
    from sampan.volumes.plugins import Plugins

logger = logging.getLogger(__name__)

_LIST_FILTERS = frozenset(("dangling", "driver", "label", "name"))
_PRUNE_FILTERS = frozenset(("all", "label", "label!"))

Users = Callable[[str], Sequence[str]]
"""From a volume's name to the ids of the containers that use it."""


class Volumes:
    """``publish`` takes an event; ``users`` says who uses a volume."""

    def __init__(
        self,
        *,
        local: LocalVolumes,
        plugins: Plugins,
        marks: Marks,
        users: Users,
        publish: Callable[[Event], object],
    ) -> None:
        self._local = local
        self._drivers = DriverVolumes(plugins)
        self._users = users
        self._publish = publish
        self._mounts = VolumeMounts(local=local, plugins=plugins, marks=marks)
        self._volumes: dict[str, Volume] = {}
        self._busy: Counter[str] = Counter()
        self._turns = Turns()

    async def start(self) -> None:
        """Recover the directory and load every volume. Before any other call."""
        self._volumes = {record.name: self._of(record) for record in await self._local.recover()}

    async def create(
        self,
        name: str = "",
        *,
        driver: str = "",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Volume:
        """The volume of that name, made if there is none; without a name an anonymous one.

        An existing volume keeps its labels; Conflict if it is of another driver than was asked for.
        """
        wanted, driver = driver, driver or LOCAL
        if driver == LOCAL and options:
            check_options(name or "volume", options)
        if not name:
            name, labels = secrets.token_hex(32), {**(labels or {}), ANONYMOUS_LABEL: ""}
        found = self._volumes.get(name)
        if found is not None:
            return _same_driver(found, wanted)
        if driver == LOCAL:
            check_name(name)
        async with self.only(name):
            found = self._volumes.get(name)
            if found is not None:
                return _same_driver(found, wanted)
            if driver == LOCAL:
                found = await self._create(name, labels, options)
            else:
                found = await self._create_by_plugin(name, driver, labels, options)
            self._volumes[name] = found
            self._tell("create", found)
        return found

    async def made(
        self, name: str, labels: Mapping[str, str] | None, fill: Callable[[str], Awaitable[None]]
    ) -> Volume:
        """A new local volume with what ``fill`` puts into it. Conflict if there is one of that name."""
        check_name(name)
        self.free(name)
        async with self.only(name):
            self.free(name)
            found = await self._create(name, labels, None, fill=fill)
            self._volumes[name] = found
            self._tell("create", found)
        return found

    def free(self, name: str) -> None:
        """Raise Conflict if there is a volume of that name."""
        if name in self._volumes:
            raise Conflict(f"create {name}: a volume of that name exists already")

    async def _create(
        self,
        name: str,
        labels: Mapping[str, str] | None,
        options: Mapping[str, str] | None,
        *,
        fill: Callable[[str], Awaitable[None]] | None = None,
    ) -> Volume:
        with _directory_errors(f"create {name}"):
            return self._of(await self._local.create(name, labels, options, fill=fill))

    async def _create_by_plugin(
        self,
        name: str,
        driver: str,
        labels: Mapping[str, str] | None,
        options: Mapping[str, str] | None,
    ) -> Volume:
        scope = await self._drivers.create(name, driver, options)
        record = VolumeRecord(
            name=name,
            created_ns=time.time_ns(),
            labels=dict(labels) if labels is not None else None,
            options=dict(options) if options else None,
            driver=driver,
        )
        await self._local.record(record)
        return replace(self._of(record), scope=scope)

    async def ensure(
        self,
        name: str | None,
        *,
        labels: Mapping[str, str] | None = None,
        driver: str = "",
        options: Mapping[str, str] | None = None,
    ) -> str:
        """The name of an existing or new volume; an anonymous one when ``name`` is None."""
        return (await self.create(name or "", driver=driver, options=options, labels=labels)).name

    def get(self, name: str) -> Volume:
        """By its full name. NotFound in Docker's words."""
        found = self._volumes.get(name)
        if found is None:
            raise NotFound(f"get {name}: no such volume")
        return found

    def list(self, filters: Filters | None = None) -> Sequence[Volume]:
        """Those known that every filter lets through, oldest first."""
        return self._passing(self._volumes.values(), filters)

    def _passing(self, volumes: Iterable[Volume], filters: Filters | None) -> Sequence[Volume]:
        filters = filters or Filters()
        filters.accept(_LIST_FILTERS)
        dangling = filters.flag("dangling")
        return [
            volume
            for volume in volumes
            if (dangling is None or dangling is not bool(self._users(volume.name)))
            and _named(volume.name, filters.get("name"))
            and (volume.driver in filters.get("driver") or not filters.get("driver"))
            and filters.matches_labels(volume.labels)
        ]

    async def inspect(self, name: str) -> Volume:
        """As ``get``, with what its driver tells of it; one that only a driver knows is found, too."""
        known = self._volumes.get(name)
        if known is not None:
            return known if known.driver == LOCAL else await self._drivers.told(known)
        found = await self._drivers.search(name)
        if found is None:
            raise NotFound(f"get {name}: no such volume")
        await self._adopt(found)
        return found

    async def survey(self, filters: Filters | None = None) -> tuple[Sequence[Volume], Sequence[str]]:
        """As ``list``, with what drivers have by now; and a warning for each that does not answer."""
        found, warnings = await self._drivers.survey(self._volumes.values())
        return self._passing(found, filters), warnings

    def mount_source(self, name: str) -> str:
        """The host's directory of a volume, or where it is going to be mounted."""
        volume = self.get(name)
        if not volume.plain:
            return volume.mountpoint
        with _directory_errors(f"mount volume {name}"):
            return self._local.ensure_directory(name)

    async def hold(self, name: str, holder: str) -> str:
        """The directory to mount, there until ``release``. See ``VolumeMounts``."""
        return await self._mounts.hold(self.get(name), holder)

    async def release(self, holder: str) -> None:
        """Give back what the holder has of all volumes. Idempotent."""
        await self._mounts.release(holder)

    async def settle(self, living: Iterable[str]) -> None:
        """Give back what a killed daemon held for others than the ``living`` containers."""
        await self._mounts.settle(list(self._volumes.values()), living)

    async def populate(self, name: str, root: RootFilesystem, path: str) -> None:
        """Copy what the image has at ``path`` into the volume, if the volume is empty.

        ``root`` is the container's root as ``Snapshots`` describes it; only its read-only layers are read.
        """
        volume = self.get(name)
        wrong = f"failed to copy the image's content at {path} into volume {name}"
        if volume.plain:
            self.mount_source(name)
            async with self.only(name):
                with _directory_errors(wrong):
                    await asyncio.to_thread(populate, root, path, beside(self._local.directory, name))
            return
        async with self.only(name):
            holder = f"copy-{secrets.token_hex(8)}"
            data = await self.hold(name, holder)
            try:
                with _directory_errors(wrong):
                    await asyncio.to_thread(populate, root, path, inside(data))
            finally:
                await self.release(holder)

    @contextlib.contextmanager
    def busy(self, name: str) -> Iterator[Volume]:
        """Keep the volume from being removed or renamed while it is copied. NotFound if there is none."""
        volume = self.get(name)
        self._busy[name] += 1
        try:
            yield volume
        finally:
            self._busy[name] -= 1
            if not self._busy[name]:
                del self._busy[name]

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove the volume with its data. Conflict while a container uses it, also with ``force``;
        ``force`` makes a missing volume no error, and gives up one whose driver is gone."""
        if name not in self._volumes:
            with contextlib.suppress(NotFound):
                await self.inspect(name)  # a driver's own
        async with self.only(name):
            if name not in self._volumes:
                if force:
                    return
                raise NotFound(f"get {name}: no such volume")
            self._refuse_if_used(name)
            if self._volumes[name].driver == LOCAL:
                await self._remove(name)
            else:
                await self._remove_by_plugin(name, force=force)

    async def rename(self, name: str, new: str) -> Volume:
        """Give a volume that nobody uses another name, which is free."""
        self.get(name)
        check_name(new)
        first, second = sorted((name, new))
        if first == second:
            raise Conflict(f"rename {name}: it has that name already")
        async with self.only(first), self.only(second):
            volume = self.get(name)
            if volume.driver != LOCAL:
                raise Conflict(f"rename {name}: a volume of the driver {volume.driver} keeps its name")
            self._refuse_if_used(name, "rename")
            self.free(new)
            with _directory_errors(f"rename {name}"):
                # From here on nobody can begin to use it.
                del self._volumes[name]
                try:
                    await self._local.rename(name, new)
                except BaseException:
                    self._volumes[name] = volume
                    raise
            renamed = replace(volume, name=new, mountpoint=self._local.mountpoint(new))
            self._volumes[new] = renamed
            self._tell("rename", renamed, oldName=name)
        return renamed

    async def prune(self, filters: Filters | None = None, *, all_unused: bool = False) -> Pruned:
        """Remove the anonymous volumes that no container uses; all unused ones if ``all_unused``, which API
        versions before 1.42 imply, or by the filter ``all=1``."""
        filters = filters or Filters()
        filters.accept(_PRUNE_FILTERS)
        everything = all_unused or bool(filters.flag("all"))
        removed, reclaimed = [], 0
        for volume in list(self._volumes.values()):
            if (
                volume.driver != LOCAL
                or not (everything or volume.anonymous)
                or not _prunable(volume, filters)
            ):
                continue
            async with self.only(volume.name):
                if volume.name not in self._volumes or self._used(volume.name):
                    continue
                size = (await asyncio.to_thread(measure, volume.mountpoint)).occupied
                if self._used(volume.name):
                    continue  # somebody began to use it while it was measured
                await self._remove(volume.name)
            removed.append(volume.name)
            reclaimed += size
        self._publish(
            Event(
                type=EventType.VOLUME, action="prune", actor_id="", attributes={"reclaimed": str(reclaimed)}
            )
        )
        return Pruned(ids=tuple(removed), space_reclaimed=reclaimed)

    async def usage(self) -> Sequence[VolumeUsage]:
        """Every local volume with its size, for disk usage. What is mounted takes nothing of our disk."""
        found = []
        for volume in list(self._volumes.values()):
            if volume.driver != LOCAL:
                continue
            size = (await asyncio.to_thread(measure, volume.mountpoint)).occupied if volume.plain else 0
            users = self._users(volume.name)
            found.append(VolumeUsage(volume=volume, size=size, references=len(users)))
        return found

    async def _remove(self, name: str) -> None:
        with _directory_errors(f"remove {name}"):
            # From here on nobody can begin to use it.
            volume = self._volumes.pop(name)
            try:
                await self._local.remove(name)
            except BaseException:
                self._volumes[name] = volume
                raise
            self._tell("destroy", volume)
            await asyncio.to_thread(self._local.discard, name)

    async def _remove_by_plugin(self, name: str, *, force: bool) -> None:
        volume = self._volumes[name]
        try:
            await self._drivers.remove(volume)
        except (NotFound, Unavailable):
            if not force:
                raise
        await self._local.forget(name)
        del self._volumes[name]
        self._tell("destroy", volume)

    async def _adopt(self, volume: Volume) -> None:
        """Note a volume that a driver made by itself."""
        async with self.only(volume.name):
            if volume.name not in self._volumes:
                record = VolumeRecord(name=volume.name, created_ns=volume.created_ns, driver=volume.driver)
                await self._local.record(record)
                self._volumes[volume.name] = volume

    def _used(self, name: str) -> bool:
        return bool(self._users(name)) or self._busy[name] > 0 or self._mounts.used(name)

    def _refuse_if_used(self, name: str, what: str = "remove") -> None:
        users = self._users(name)
        if users:
            raise Conflict(f"{what} {name}: volume is in use - [{', '.join(users)}]")
        if self._used(name):
            raise Conflict(f"{what} {name}: volume is in use: it is being read or written")

    def _of(self, record: VolumeRecord) -> Volume:
        return Volume(
            name=record.name,
            mountpoint="" if record.driver else self._local.mountpoint(record.name),
            created_ns=record.created_ns,
            labels=record.labels,
            options=record.options,
            driver=record.driver or LOCAL,
        )

    def _tell(self, action: str, volume: Volume, **more: str) -> None:
        attributes = {"driver": volume.driver, **more}
        self._publish(
            Event(type=EventType.VOLUME, action=action, actor_id=volume.name, attributes=attributes)
        )

    @contextlib.asynccontextmanager
    async def only(self, name: str) -> AsyncIterator[None]:
        """One change of this name at a time."""
        async with self._turns.of(name):
            yield


def _same_driver(found: Volume, driver: str) -> Volume:
    if driver and found.driver != driver:
        raise Conflict(f"create {found.name}: conflict: volume name must be unique")
    return found


def _named(name: str, wanted: Sequence[str]) -> bool:
    """Docker's name filter: a regular expression that matches any part; a broken one matches literally."""
    if not wanted:
        return True
    for pattern in wanted:
        try:
            if re.search(pattern, name):
                return True
        except re.error:
            if pattern in name:
                return True
    return False


def _prunable(volume: Volume, filters: Filters) -> bool:
    unwanted = filters.get("label!")
    spared = any(Filters({"label": (label,)}).matches_labels(volume.labels) for label in unwanted)
    return filters.matches_labels(volume.labels) and not spared


@contextlib.contextmanager
def _directory_errors(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if (host := of_host(error)) is not None:
            raise type(host)(f"{what}: {host}") from error
        raise Internal(f"{what}: {error.strerror or error}") from error
