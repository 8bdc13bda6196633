"""``update``: other limits and another restart policy for a container, running or not, by Docker's rules.

What is zero or empty in the request is not meant; so a limit can be changed and lifted (-1), but not unset.
Laws:

- A container that runs has the new limits when the answer is given, and they are recorded; one that does not
  run gets them when it starts.
- What the kernel refuses changes nothing: the group gets back what it had.
- The restart policy is looked at when the container ends (``restarts``): nothing else has to be told.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sampan.engine import resources, restarts
from sampan.engine.model import HostConfig, Status
from sampan.errors import Conflict, Failure, Internal, InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.engine.events import Events
    from sampan.engine.settings import Settings
    from sampan.engine.store import ContainerStore
    from sampan.spec.runtime import LinuxResources

_DEFAULT_SHARES = 1024
_MEMORY = ("memory", "memory_swap", "memory_reservation", "kernel_memory")
_CPU = (
    "cpu_shares",
    "nano_cpus",
    "cpu_period",
    "cpu_quota",
    "cpu_realtime_period",
    "cpu_realtime_runtime",
    "cpuset_cpus",
    "cpuset_mems",
)

# (what is asked for, what is set already, how they are called): the one is a way of saying the other.
_CONFLICTS = (
    ("nano_cpus", "cpu_period", "Nano CPUs cannot be updated as CPU Period"),
    ("nano_cpus", "cpu_quota", "Nano CPUs cannot be updated as CPU Quota"),
    ("cpu_period", "nano_cpus", "CPU Period cannot be updated as NanoCPUs"),
    ("cpu_quota", "nano_cpus", "CPU Quota cannot be updated as NanoCPUs"),
)


class Updates:
    """Changes containers in place."""

    def __init__(self, *, store: ContainerStore, events: Events, settings: Settings) -> None:
        self._store = store
        self._events = events
        self._settings = settings

    async def update(self, ref: str, asked: HostConfig) -> tuple[str, ...]:
        """Change what ``asked`` mentions; returns warnings about what this host cannot do.

        ``asked`` has nothing but limits and a restart policy. InvalidArgument for what can never be, Conflict
        for what does not go with the container as it is.
        """
        restarts.check(asked.restart_policy)
        asked, warnings = resources.check(asked, self._settings.facts, update=True)
        instance = self._store.find(ref)
        async with instance.lock:
            if instance.removed:
                raise NotFound(f"No such container: {ref}")
            container = instance.container
            with _said_of(container.id):
                if container.state.status in (Status.REMOVING, Status.DEAD):
                    raise Conflict('container is marked for removal and cannot be "update"')
                before = container.host
                host = _merge(before, asked)
                sections = _sections(asked)
                if sections and instance.task is not None and container.state.running:
                    changed = _changed(host, sections)
                    try:
                        await instance.task.update(changed)
                    except Failure:
                        with contextlib.suppress(Failure):
                            await instance.task.update(_changed(before, sections))
                        raise
            # It may have ended meanwhile: its state is the present one.
            self._store.update(instance, replace(instance.container, host=host))
            await self._store.lasting(instance)
        self._events.container(instance.container, "update")
        return tuple(warnings)


@contextlib.contextmanager
def _said_of(container_id: str) -> Iterator[None]:
    try:
        yield
    except (Conflict, InvalidArgument, Internal) as error:
        raise type(error)(f"Cannot update container {container_id}: {error}") from error


def _merge(before: HostConfig, asked: HostConfig) -> HostConfig:
    """The container's configuration with what is asked for. Conflict for what contradicts it."""
    for new, old, what in _CONFLICTS:
        if getattr(asked, new) > 0 and getattr(before, old) > 0:
            raise Conflict(f"Conflicting options: {what} has already been set")
    if asked.memory and asked.memory > before.memory_swap and not asked.memory_swap:
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, "
            "update the memoryswap at the same time"
        )
    changes: dict[str, object] = {
        name: value for name in ("blkio_weight", *_MEMORY, *_CPU) if (value := getattr(asked, name))
    }
    if asked.pids_limit is not None:
        changes["pids_limit"] = asked.pids_limit
    policy = asked.restart_policy
    if policy.name:
        if before.auto_remove and policy.name != "no":
            raise Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
        changes["restart_policy"] = policy
    return replace(before, **changes)


def _sections(asked: HostConfig) -> tuple[str, ...]:
    """The parts of the specification's resources that a request is about."""
    found = []
    if any(getattr(asked, name) for name in _MEMORY):
        found.append("memory")
    if any(getattr(asked, name) for name in _CPU):
        found.append("cpu")
    if asked.pids_limit is not None:
        found.append("pids")
    if asked.blkio_weight:
        found.append("blockIO")
    return tuple(found)


def _changed(host: HostConfig, sections: tuple[str, ...]) -> LinuxResources:
    """Whole sections, since the kernel takes some limits together; "none" is said for what is not limited."""
    everything = resources.linux_resources(host, [])
    changed: LinuxResources = {}
    if "memory" in sections:
        memory = everything.get("memory", {})
        changed["memory"] = {"limit": -1, "swap": host.memory_swap or -1, "reservation": -1, **memory}
    if "cpu" in sections:
        changed["cpu"] = {"quota": -1, "shares": _DEFAULT_SHARES, **everything.get("cpu", {})}
    if "pids" in sections:
        changed["pids"] = {"limit": host.pids_limit or -1}
    if "blockIO" in sections and "blockIO" in everything:
        changed["blockIO"] = {"weight": host.blkio_weight} if host.blkio_weight else {}
    return changed
