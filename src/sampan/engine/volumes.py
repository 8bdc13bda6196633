"""What a user does with volumes: create, find, remove, prune; and what a container's start needs of them.

Laws: a volume that a container uses, running or not, is never removed; changes to one name happen one after
the other; a volume exists for callers exactly while it is in the table in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from sampan import errors
from sampan.engine.model import Event, EventType, Filters, Pruned
from sampan.errors import Conflict, Internal, InvalidArgument, NotFound
from sampan.linux.diskspace import measure
from sampan.volumes.local import LocalVolumes, VolumeRecord, check_name
from sampan.volumes.populate import populate

if TYPE_CHECKING:
    from sampan.sandbox.messages import RootFilesystem

logger = logging.getLogger(__name__)

LOCAL = "local"
ANONYMOUS_LABEL = "com.docker.volume.anonymous"
_LIST_FILTERS = frozenset(("dangling", "driver", "label", "name"))
_PRUNE_FILTERS = frozenset(("all", "label", "label!"))

Users = Callable[[str], Sequence[str]]
"""From a volume's name to the ids of the containers that use it."""


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """A volume: ``mountpoint`` is the host's directory of its data."""

    name: str
    mountpoint: str
    created_ns: int
    labels: dict[str, str] | None
    driver: str = LOCAL
    options: dict[str, str] | None = None

    @property
    def anonymous(self) -> bool:
        return self.labels is not None and ANONYMOUS_LABEL in self.labels


class VolumeUsage(msgspec.Struct, frozen=True, kw_only=True):
    """``size`` in bytes of the disk; ``references`` counts the containers that use it."""

    volume: Volume
    size: int
    references: int


class Volumes:
    """``publish`` takes an event; ``users`` says who uses a volume."""

    def __init__(self, *, local: LocalVolumes, users: Users, publish: Callable[[Event], object]) -> None:
        self._local = local
        self._users = users
        self._publish = publish
        self._volumes: dict[str, Volume] = {}
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

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

        An existing volume keeps its labels.
        """
        shown = name or "volume"
        if driver not in ("", LOCAL):
            raise NotFound(
                f'create {shown}: error looking up volume plugin {driver}: plugin "{driver}" not found'
            )
        if options:
            _check_options(shown, options)
        if not name:
            name, labels = secrets.token_hex(32), {**(labels or {}), ANONYMOUS_LABEL: ""}
        found = self._volumes.get(name)
        if found is not None:
            return found
        check_name(name)
        async with self._only(name):
            found = self._volumes.get(name)
            if found is None:
                with _directory_errors(f"create {name}"):
                    found = self._of(await self._local.create(name, labels, options))
                self._volumes[name] = found
                self._tell("create", name)
        return found

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
        """Those that every filter lets through, oldest first."""
        filters = filters or Filters()
        filters.accept(_LIST_FILTERS)
        dangling = filters.flag("dangling")
        return [
            volume
            for volume in self._volumes.values()
            if (dangling is None or dangling is not bool(self._users(volume.name)))
            and _named(volume.name, filters.get("name"))
            and (volume.driver in filters.get("driver") or not filters.get("driver"))
            and filters.matches_labels(volume.labels)
        ]

    def mount_source(self, name: str) -> str:
        """The directory to mount in a container; made anew, empty, if it was deleted behind our back.

        Of a volume that stands for a directory of the host it is that; InvalidArgument if it is not there.
        """
        if device := (self.get(name).options or {}).get("device"):
            if not os.path.exists(device):
                raise InvalidArgument(
                    f"error while mounting volume '{self.get(name).mountpoint}': failed to mount local "
                    f"volume: mount {device}: no such file or directory"
                )
            return device
        with _directory_errors(f"mount volume {name}"):
            return self._local.ensure_directory(name)

    async def populate(self, name: str, root: RootFilesystem, path: str) -> None:
        """Copy what the image has at ``path`` into the volume, if the volume is empty.

        ``root`` is the container's root as ``Snapshots`` describes it; only its read-only layers are read.
        """
        self.mount_source(name)
        if self.get(name).options:  # somebody else's files
            return
        async with self._only(name):
            with _directory_errors(f"failed to copy the image's content at {path} into volume {name}"):
                await asyncio.to_thread(populate, root, path, self._local.directory, name)

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove the volume with its data. Conflict while a container uses it, also with ``force``;
        ``force`` only makes a missing volume no error."""
        async with self._only(name):
            if name not in self._volumes:
                if force:
                    return
                raise NotFound(f"get {name}: no such volume")
            self._refuse_if_used(name)
            await self._remove(name)

    async def prune(self, filters: Filters | None = None, *, all_unused: bool = False) -> Pruned:
        """Remove the anonymous volumes that no container uses; all unused ones if ``all_unused``, which API
        versions before 1.42 imply, or by the filter ``all=1``."""
        filters = filters or Filters()
        filters.accept(_PRUNE_FILTERS)
        everything = all_unused or bool(filters.flag("all"))
        removed, reclaimed = [], 0
        for volume in list(self._volumes.values()):
            if not (everything or volume.anonymous) or not _prunable(volume, filters):
                continue
            async with self._only(volume.name):
                if volume.name not in self._volumes or self._users(volume.name):
                    continue
                size = (await asyncio.to_thread(measure, volume.mountpoint)).occupied
                if self._users(volume.name):
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
        """Every volume with its size, for disk usage."""
        found = []
        for volume in list(self._volumes.values()):
            space = await asyncio.to_thread(measure, volume.mountpoint)
            users = self._users(volume.name)
            found.append(VolumeUsage(volume=volume, size=space.occupied, references=len(users)))
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
            self._tell("destroy", name)
            await asyncio.to_thread(self._local.discard, name)

    def _refuse_if_used(self, name: str) -> None:
        users = self._users(name)
        if users:
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")

    def _of(self, record: VolumeRecord) -> Volume:
        return Volume(
            name=record.name,
            mountpoint=self._local.mountpoint(record.name),
            created_ns=record.created_ns,
            labels=record.labels,
            options=record.options,
        )

    def _tell(self, action: str, name: str) -> None:
        self._publish(
            Event(type=EventType.VOLUME, action=action, actor_id=name, attributes={"driver": LOCAL})
        )

    @contextlib.asynccontextmanager
    async def _only(self, name: str) -> AsyncIterator[None]:
        """One change of this name at a time; the lock lives while somebody wants it."""
        lock, wanted = self._locks.get(name) or (asyncio.Lock(), 0)
        self._locks[name] = (lock, wanted + 1)
        try:
            async with lock:
                yield
        finally:
            lock, wanted = self._locks[name]
            if wanted == 1:
                del self._locks[name]
            else:
                self._locks[name] = (lock, wanted - 1)


_REQUIRED = {"device": ("type",), "type": ("device",), "o": ("device", "type")}


def _check_options(name: str, options: Mapping[str, str]) -> None:
    """Raise, in Docker's words, for options that the local driver has not, or not yet."""
    for option in sorted(options):
        if option not in ("type", "o", "device", "size"):
            raise InvalidArgument(f'create {name}: invalid option: "{option}"')
    for option, others in _REQUIRED.items():
        for other in others:
            if option in options and other not in options:
                raise InvalidArgument(f'create {name}: missing required option: "{other}"')
    flags = set(options.get("o", "").split(",")) - {"", "rw"}
    if "size" in options or not flags or flags - {"bind", "rbind"}:
        raise errors.NotImplemented(
            f"create {name}: of the local driver's mounts only directories of the host (type=none, o=bind) "
            "are offered yet"
        )
    if not options["device"].startswith("/") or "\0" in options["device"]:
        raise InvalidArgument(f"create {name}: invalid device: {options['device']!r}")


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
        raise Internal(f"{what}: {error.strerror or error}") from error
