"""What a starting daemon does about what the last one left.

Files are truth for exits, keepers for what runs: a recorded state is only what the daemon knew last. For each
container, in this order: a living keeper is followed again; else what still runs of it is ended, and an exit
record newer than the state is taken over; else what was recorded as running is recorded as killed (137; 255
when the host was started again), with the reason. What a loss of power took of its directories is made again.
Half-done removals are finished,
``--rm`` containers that ended are removed, and what belongs to nobody is cleaned away. At last restart
policies get their due: for what ended while no daemon watched, for what waited for its start, and for what a
starting daemon brings back.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sampan.engine import files
from sampan.engine.endpoints import connected
from sampan.engine.launches import with_ids
from sampan.engine.model import Status
from sampan.engine.removal import remove_bundle, remove_directory
from sampan.engine.sandboxes import target
from sampan.engine.stillness import let_go
from sampan.errors import Failure, NotFound
from sampan.sandbox.messages import Exit
from sampan.sandbox.stdio import read_exit

if TYPE_CHECKING:
    from sampan.engine.egress import Egress
    from sampan.engine.endpoints import Places
    from sampan.engine.exits import Exits
    from sampan.engine.idranges import IdRanges
    from sampan.engine.model import Container
    from sampan.engine.ports import Bridges, Runtime, Snapshots, Task, VolumeStore
    from sampan.engine.publishing import Publishing
    from sampan.engine.remaking import Remaking
    from sampan.engine.removal import Removal
    from sampan.engine.restarts import Restarts
    from sampan.engine.running import Starting
    from sampan.engine.settings import Settings
    from sampan.engine.shipping import Shipping
    from sampan.engine.store import ContainerStore, Instance

logger = logging.getLogger(__name__)

_ADOPTION = 10.0  # seconds for a keeper to answer
_LOST = 137
_SWITCHED_OFF = 255
"""As in Docker, of what ran when its host was switched off."""
_REASON = "the container ended while no daemon was running, and left no record of its exit"


class Recovery:
    """Runs once, before the api is served."""

    def __init__(
        self,
        *,
        store: ContainerStore,
        runtime: Runtime,
        exits: Exits,
        starting: Starting,
        restarts: Restarts,
        removal: Removal,
        remaking: Remaking,
        leftovers: Leftovers,
        shipping: Shipping,
        settings: Settings,
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._exits = exits
        self._starting = starting
        self._restarts = restarts
        self._removal = removal
        self._remaking = remaking
        self._leftovers = leftovers
        self._shipping = shipping
        self._settings = settings
        self._unrecorded: list[Instance] = []

    async def run(self) -> None:
        """Idempotent, and safe to be killed at any point."""
        instances = self._store.load(self._settings.paths.data)
        await asyncio.gather(*(self._settle(instance) for instance in instances))
        for instance in instances:
            if instance.teardown is not None:
                await asyncio.wait((instance.teardown,))
        await self._leftovers.clean(self._store)
        for instance in self._unrecorded:
            if instance.task is not None:
                container = self._leftovers.reconnected(instance.container, self._store)
                self._store.update(instance, container)
        self._unrecorded.clear()
        for instance in instances:
            if instance.task is not None:
                await self._resume(instance, instance.task)
        await self._leftovers.settle_network()
        self._restarts.begin(functools.partial(self._starting.start, by_policy=True), self._starting.start)

    async def _resume(self, instance: Instance, task: Task) -> None:
        """Let a container that lives on have what a daemon gives: names and ports. It may end meanwhile."""
        await self._leftovers.follow_names(instance)
        before = instance.container
        container = await self._leftovers.republished(before)
        if instance.task is not task:
            # Its end is recorded, and what it had was given back: perhaps before it was given here once more.
            await self._leftovers.part(instance.id)
        elif container is not before:
            self._store.update(instance, container)

    async def _settle(self, instance: Instance) -> None:
        state = instance.state
        begun = os.path.exists(self._settings.paths.bundle(instance.id))
        if state.status in (Status.REMOVING, Status.DEAD):
            if begun:
                self._leftovers.end_processes(instance)
            await self._finish_removal(instance)
            return
        if state.running or begun:
            task = await self._adopt(instance.id)
            if task is not None:
                await let_go(self._settings.paths.container(instance.id), task)
                self._follow(instance, task)
                return
            # A start or an exit that was cut short: whatever of it still runs has nobody who watches it.
            self._leftovers.end_processes(instance)
        await self._remaking.complete(instance.container)
        self._shipping.resume(instance.container)
        ended = read_exit(self._settings.paths.container(instance.id))
        known = ended is not None and int(ended.finished_at * 1e9) > state.finished_at
        if ended is not None and (known or state.running):
            self._end(instance, ended)
        elif state.running:
            logger.warning("container %s: %s", instance.id, _REASON)
            code = _LOST if begun else _SWITCHED_OFF
            ended = Exit(code=code, finished_at=self._settings.now() / 1e9, error=_REASON)
            self._end(instance, ended, answered=begun)
        elif instance.container.host.auto_remove and state.started_at:
            await self._finish_removal(instance)

    async def _adopt(self, container_id: str) -> Task | None:
        try:
            return await asyncio.wait_for(self._runtime.adopt(container_id), _ADOPTION)
        except (Failure, OSError, TimeoutError) as error:
            logger.warning("container %s: its keeper does not answer: %s", container_id, error)
            return None

    def _follow(self, instance: Instance, task: Task) -> None:
        state = instance.state
        # The kernel knows: the last daemon may have died between a pause, or its end, and the record of it.
        status = Status.PAUSED if self._leftovers.stands_still(instance) else Status.RUNNING
        base, span = _id_map(task.pid)
        if not state.running:  # the daemon died before it could record what the start was given
            instance.container = _begun(instance.container)
            self._unrecorded.append(instance)
            reason = "" if span else state.host_ids or "found at its start"
            state = replace(state, id_base=base, id_span=span, host_ids=reason, exit_code=0, error="")
        elif span:
            state = replace(state, id_base=base, id_span=span)
        state = replace(state, status=status, pid=task.pid, started_at=int(task.started_at * 1e9))
        self._store.update(instance, replace(instance.container, state=state))
        if state.id_span:
            self._leftovers.claim_ids(instance.id, state.id_base, state.id_span)
        self._exits.follow(instance, task)

    def _end(self, instance: Instance, ended: Exit, *, answered: bool = True) -> None:
        if not instance.state.running:  # it was started, and ended, without a record of the start
            state = replace(instance.state, status=Status.RUNNING)
            instance.container = replace(_begun(instance.container), state=state)
        self._exits.record(instance, ended, answered=answered)

    async def _finish_removal(self, instance: Instance) -> None:
        self._removal.withdraw(instance)
        await self._removal.clear(instance, volumes=instance.container.host.auto_remove)


class Leftovers:
    """What containers leave on the host outside the database."""

    def __init__(
        self,
        *,
        snapshots: Snapshots,
        volumes: VolumeStore,
        bridges: Bridges,
        places: Places,
        egress: Egress,
        publishing: Publishing,
        id_ranges: IdRanges,
        end_group: Callable[[str], None],
        is_frozen: Callable[[str], bool],
        settings: Settings,
    ) -> None:
        self._snapshots = snapshots
        self._volumes = volumes
        self._bridges = bridges
        self._places = places
        self._egress = egress
        self._publishing = publishing
        self._id_ranges = id_ranges
        self._end_group = end_group
        self._is_frozen = is_frozen
        self._settings = settings

    def claim_ids(self, container_id: str, base: int, span: int) -> None:
        if not self._id_ranges.claim(container_id, base, span):
            logger.warning("container %s: its ids from %d on are not ours any more", container_id, base)

    def reconnected(self, container: Container, store: ContainerStore) -> Container:
        """A running container with the network and ids that it was found to have."""
        state = container.state
        if (owner := target(container.host.network_mode)) is not None:
            return files.sharing(container, store.find(owner).container) if owner in store else container
        container = with_ids(container, (state.id_base, state.id_span), state.host_ids)
        try:
            return connected(container, self._places.found(container))
        except NotFound as error:
            logger.warning("container %s: %s", container.id, error)
            return container

    async def follow_names(self, instance: Instance) -> None:
        """Let a container that lives on be found by its names, and ask for others'."""
        if instance.task is None or target(instance.container.host.network_mode) is not None:
            return
        try:
            await self._egress.resume(instance.container, self._places.found(instance.container))
            await self._places.follow(instance.container, instance.task.pid)
        except (OSError, Failure) as error:
            logger.warning("container %s cannot ask for names: %s", instance.id, error)

    async def republished(self, container: Container) -> Container:
        """A container that lives on, with its ports published by this daemon."""
        host = container.host
        if not (host.port_bindings or host.publish_all_ports):
            return container
        try:
            return await self._publishing.resume(container, self._places.found(container))
        except Failure as error:
            logger.warning("container %s: its ports are not published: %s", container.id, error)
            return container

    async def part(self, container_id: str) -> None:
        """Take back what ``follow_names`` and ``republished`` gave. Idempotent."""
        self._places.part(container_id)
        await self._publishing.withdraw(container_id)
        await self._egress.release(container_id)

    async def settle_network(self) -> None:
        await self._publishing.settle()
        await self._egress.settle()

    def end_processes(self, instance: Instance) -> None:
        """Kill what a container without a keeper still runs, and remove its cgroup."""
        self._end_group(self._group(instance))

    def stands_still(self, instance: Instance) -> bool:
        """Whether a container is paused."""
        return self._is_frozen(self._group(instance))

    def _group(self, instance: Instance) -> str:
        parent = instance.container.host.cgroup_parent or self._settings.options.cgroup_parent
        return f"/{parent.strip('/')}/{instance.id}"

    async def clean(self, store: ContainerStore) -> None:
        """Remove directories, layers and leases that no container owns; failures are logged."""
        paths = self._settings.paths
        running = {instance.id: instance.task.pid for instance in store if instance.task is not None}
        for name in _entries(paths.bundles):
            if name not in running:
                if name not in store:  # the others have been settled
                    self._end_group(f"/{self._settings.options.cgroup_parent.strip('/')}/{name}")
                remove_bundle(paths.bundle(name))
        for name in _entries(paths.containers):
            if name not in store:
                _try(remove_directory, paths.container(name))
        for key in list(self._snapshots.keys()):
            if key not in store:
                try:
                    await self._snapshots.remove(key)
                except (Failure, OSError) as error:
                    logger.warning("layer %s could not be removed: %s", key, error)
        await self._bridges.reconcile(running)
        await self._volumes.settle(running)


def _begun(container: Container) -> Container:
    """A container whose start was not recorded: unless it waited for that, somebody asked for it, and a stop
    before holds its policy back no longer."""
    if container.state.status is Status.RESTARTING:
        return container
    return replace(container, has_been_manually_stopped=False, restart_count=0)


def _id_map(pid: int) -> tuple[int, int]:
    """(first id of the host, number of ids) of a container's private user namespace; zeros without one."""
    try:
        with open(f"/proc/{pid}/uid_map") as file:
            inside, base, span = map(int, file.readline().split())
    except (OSError, ValueError):
        return 0, 0
    return (base, span) if inside == 0 and base else (0, 0)


def _entries(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []


def _try(work: Callable[[str], None], path: str) -> None:
    try:
        work(path)
    except OSError as error:
        logger.warning("%s could not be removed: %s", path, error)
