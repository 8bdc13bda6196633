"""Removing containers: on request, by ``--rm``, by prune, and what a crash left half removed.

A container is gone once its record is; its name is free then, and its remains (writable layer, directory)
follow in the background. What a crash leaves of them belongs to no record, and the next start removes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sampan.engine import lifecycle
from sampan.engine.lifecycle import Move
from sampan.engine.lookups import created_before
from sampan.engine.model import (
    Container,
    Event,
    EventType,
    ExitStatus,
    Filters,
    Pruned,
    Status,
    WaitCondition,
)
from sampan.engine.visitors import leave
from sampan.errors import Conflict, DiskFull, Failure, HostFailure, Internal, NotFound, of_host
from sampan.sandbox import external

if TYPE_CHECKING:
    from sampan.engine.events import Events
    from sampan.engine.killing import Killing
    from sampan.engine.ports import Snapshots, VolumeStore
    from sampan.engine.settings import Settings
    from sampan.engine.shipping import Shipping
    from sampan.engine.store import ContainerStore, Instance

logger = logging.getLogger(__name__)

_PRUNE_FILTERS = frozenset(("until", "label", "label!"))


class Removal:
    """Removes containers and everything that was theirs."""

    def __init__(
        self,
        *,
        store: ContainerStore,
        snapshots: Snapshots,
        volumes: VolumeStore,
        events: Events,
        killing: Killing,
        shipping: Shipping,
        settings: Settings,
    ) -> None:
        self._store = store
        self._snapshots = snapshots
        self._volumes = volumes
        self._events = events
        self._killing = killing
        self._shipping = shipping
        self._settings = settings
        self._clearing: set[asyncio.Task[None]] = set()
        self.unfinished = 0
        """How many containers' remains are being removed."""

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        """Conflict when it runs and ``force`` is not set, or when somebody else is removing it already."""
        instance = self._store.find(ref)
        if instance.state.status is Status.REMOVING:
            lifecycle.after(instance.container, Move.REMOVE, ref=ref)
        async with instance.lock:
            if instance.removed:
                if force:
                    return
                raise NotFound(f"No such container: {ref}")
            if force:
                await self._end(instance, ref)
            if instance.removed:  # it ran with --rm: its end removed it
                return
            await self._remove(instance, ref=ref, volumes=volumes or instance.container.host.auto_remove)

    async def _end(self, instance: Instance, ref: str) -> None:
        while instance.state.active and not instance.removed:
            try:
                await self._killing.kill(instance, ref=ref)
            except Conflict:  # it ended by itself meanwhile
                continue

    async def _remove(self, instance: Instance, *, ref: str, volumes: bool) -> None:
        status = lifecycle.after(instance.container, Move.REMOVE, ref=ref)
        before = instance.container
        self._store.update(instance, replace(before, state=replace(before.state, status=status)))
        await _settled(instance)
        durable = not (before.host.auto_remove or before.temporary)
        try:
            try:
                await self._store.forget(instance.id, durable=durable)
            except DiskFull:
                # On a full disk the remains have to make room for the record of their removal.
                await self._clear_files(instance)
                await self._store.forget(instance.id, durable=durable)
        except (OSError, Failure) as error:
            dead = lifecycle.after(instance.container, Move.FAIL)
            state = replace(before.state, status=dead, error=str(error))
            self._store.update(instance, replace(before, state=state))
            host = of_host(error) or error
            kind = type(host) if isinstance(host, HostFailure) else Internal
            raise kind(f"container {instance.id}: {host}") from error
        self.withdraw(instance, recorded=False)
        if volumes:
            await self._clear_volumes(instance)
        task = asyncio.get_running_loop().create_task(self.clear(instance, volumes=False))
        self._clearing.add(task)
        task.add_done_callback(self._clearing.discard)

    async def settle(self) -> None:
        """Wait for the remains that are being removed."""
        while self._clearing:
            await asyncio.wait(self._clearing)

    def withdraw(self, instance: Instance, *, recorded: bool = True) -> None:
        """Let the container be gone for everybody, and answer those who wait for that. Its remains follow.

        ``recorded``: its record is still there and has to go too.
        """
        if instance.removed:
            return
        self._store.withdraw(instance)
        self._events.container(instance.container, "destroy")
        status = ExitStatus(code=instance.state.exit_code)
        instance.release(*WaitCondition, status=status)
        for stream, _ in instance.pending:
            sock, _ = stream.detach()
            sock.close()
        instance.pending.clear()
        if recorded:
            self._store.forget_soon(instance.id)

    async def clear(self, instance: Instance, *, volumes: bool) -> None:
        """Remove the remains of a withdrawn container; failures are logged, a restart tries again."""
        self.unfinished += 1
        try:
            await self._clear_files(instance)
            if volumes:
                await self._clear_volumes(instance)
        except (OSError, Failure) as error:
            logger.warning("container %s: its remains could not be removed: %s", instance.id, error)
        finally:
            self.unfinished -= 1

    async def _clear_files(self, instance: Instance) -> None:
        await leave(instance)
        await self._shipping.forget(instance.id)
        # A file's removal waits for the file system's journal, which the event loop must not.
        directory = self._settings.paths.container(instance.id)
        await self._snapshots.remove(instance.id, then=partial(remove_directory, directory))

    async def _clear_volumes(self, instance: Instance) -> None:
        for point in instance.container.mounts:
            if point.type == "volume" and point.anonymous:
                # In use by another container, or gone already: either way it is not ours to remove.
                with contextlib.suppress(Failure):
                    await self._volumes.remove(point.name)

    async def remove_temporary(self) -> None:
        """Remove the containers of builds, running or not."""
        for instance in self._store:
            if instance.container.temporary:
                try:
                    await self.remove(instance.id, force=True, volumes=True)
                except Failure as error:
                    logger.warning("a step of a build was not removed: %s: %s", instance.id, error)

    async def prune(self, filters: Filters) -> Pruned:
        """Remove what is created, exited or dead and passes the filters."""
        filters.accept(_PRUNE_FILTERS)
        before = created_before(filters, self._settings.now())
        gone: list[str] = []
        freed = 0
        for instance in self._store:
            container = instance.container
            if container.temporary or not _prunable(container, filters, before):
                continue
            try:
                used = (await self._snapshots.usage((container.id,)))[container.id].occupied
                await self.remove(container.id)
            except Failure as error:
                logger.info("container %s was not pruned: %s", container.id, error)
                continue
            gone.append(container.id)
            freed += used
        attributes = {"reclaimed": str(freed)}
        self._events.publish(
            Event(type=EventType.CONTAINER, action="prune", actor_id="", attributes=attributes)
        )
        return Pruned(ids=tuple(gone), space_reclaimed=freed)


def _prunable(container: Container, filters: Filters, before: int | None) -> bool:
    labels = container.config.labels
    return (
        container.state.status in (Status.CREATED, Status.EXITED, Status.DEAD)
        and (before is None or container.created < before)
        and filters.matches_labels(labels)
        and not ("label!" in filters and filters.matches_labels(labels, "label!"))
    )


async def _settled(instance: Instance) -> None:
    """Wait for what the last exit left to be released."""
    if instance.teardown is not None and instance.teardown is not asyncio.current_task():
        await asyncio.wait((instance.teardown,))


def remove_directory(path: str) -> None:
    """Remove a container's small directory of files; succeeds when it is gone already."""
    try:
        with os.scandir(path) as entries:
            found = list(entries)
    except FileNotFoundError:
        return
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)
    os.rmdir(path)


def remove_bundle(path: str) -> None:
    """Remove a dead container's run-time directory: files and empty directories only.

    Whatever is mounted or full below is left and told: it may be somebody's data.
    """
    external.clear(path)
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    os.rmdir(entry.path)
                else:
                    os.unlink(entry.path)
        os.rmdir(path)
    except FileNotFoundError:
        return
    except OSError as error:
        logger.warning("%s could not be removed: %s", path, error)
