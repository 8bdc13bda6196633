"""Who is at a container's files, and when: visitors from outside, beside its own processes.

Theory: a running container is visited inside its own mounts, one that does not run in mounts made for the
visit. Both keep its upper directory mounted.

Laws:
- One upper directory is never mounted twice. Visitors of a container that does not run come one at a time;
  a start waits for all visitors, and after ``PATIENCE`` ends those that are still there, so that a client
  that stopped reading cannot keep a container from starting.
- A visitor begins under the container's lock, so that the state it was begun for is the state it finds.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import TYPE_CHECKING, Any

from sampan.engine.model import Container, Status
from sampan.errors import Conflict, NotFound, Unavailable
from sampan.runtime.visits import Gone

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sampan.engine.ports import Snapshots, Visit, Visits, VolumeStore
    from sampan.engine.store import ContainerStore, Instance

PATIENCE = 5.0
"""Seconds that a start waits for visitors."""

_EXIT = 5.0  # seconds until the exit of a container whose processes are gone is known
_ATTEMPTS = 5


class Visitors:
    """Sends visitors, and has them leave."""

    def __init__(
        self, *, store: ContainerStore, snapshots: Snapshots, volumes: VolumeStore, visits: Visits
    ) -> None:
        self._store = store
        self._snapshots = snapshots
        self._volumes = volumes
        self._visits = visits
        self._numbers = itertools.count(1)

    async def send(self, ref: str, op: str, *, flow: str = "", **arguments: Any) -> Stay:
        """Begin ``op`` (see ``sandbox.visit``) at the container's files; close what is returned.

        Raises NotFound for an unknown container, Conflict for one that is being removed.
        """
        instance = self._store.find(ref)
        for _ in range(_ATTEMPTS):
            stay = await self._inside(instance, op, flow, arguments)
            if stay is None:
                stay = await self._aside(instance, op, flow, arguments)
            if stay is not None:
                return stay
        raise Unavailable(f"container {instance.id} keeps starting and stopping")

    async def _inside(self, instance: Instance, op: str, flow: str, arguments: dict[str, Any]) -> Stay | None:
        """A visit of the running container; None when it does not run (any more)."""
        async with instance.lock:
            container = _alive(instance)
            if not container.state.running:
                return None
            stopped = instance.stopped
            stay = Stay(instance)
        # Not under the lock: a container that makes its visitor wait must not escape being killed.
        try:
            return await self._begin(stay, op, flow, {"pid": container.state.pid, **arguments})
        except Gone:
            if stopped is not None:
                await asyncio.wait((stopped,), timeout=_EXIT)
            return None

    async def _aside(self, instance: Instance, op: str, flow: str, arguments: dict[str, Any]) -> Stay | None:
        """A visit of the container that does not run; None when it runs."""
        if instance.turn is None:
            instance.turn = asyncio.Lock()
        turn = instance.turn
        await turn.acquire()
        stay = None
        try:
            async with instance.lock:
                container = _alive(instance)
                if container.state.running:
                    return None
                if instance.teardown is not None:
                    await asyncio.wait((instance.teardown,))
                await leave(instance)
                stay = Stay(instance, turn)
        finally:
            if stay is None:
                turn.release()
        try:
            binds = await self._binds(container, stay)
        except BaseException:
            await stay.aclose()
            raise
        place = {
            "root": self._snapshots.mounts(container.id),
            "binds": binds,
            "writable": not container.host.readonly_rootfs,
        }
        return await self._begin(stay, op, flow, {**place, **arguments})

    async def _begin(self, stay: Stay, op: str, flow: str, arguments: dict[str, Any]) -> Stay | None:
        """Let the visit begin; None when it was to be over before that."""
        try:
            stay.visit = await self._visits.begin(stay.container.id, op, flow=flow, **arguments)
            if stay.closing:
                await stay.visit.aclose()
                return None
            stay.said = await stay.visit.answer()
            return stay
        except BaseException:
            await stay.aclose()
            raise

    async def _binds(self, container: Container, stay: Stay) -> list[dict[str, Any]]:
        """What is mounted in the container and can be mounted without it, as ``sandbox.places.Bind``.

        Its volumes are held until the stay is over.
        """
        holder = f"visit-{next(self._numbers)}"
        stay.let_go = lambda: self._volumes.release(holder)
        own = (
            (container.hostname_path, "/etc/hostname"),
            (container.hosts_path, "/etc/hosts"),
            (container.resolv_conf_path, "/etc/resolv.conf"),
        )
        binds: list[dict[str, Any]] = [
            {"source": source, "destination": target, "writable": not container.host.readonly_rootfs}
            for source, target in own
            if os.path.exists(source)
        ]
        for point in container.mounts:
            if point.type not in ("bind", "volume"):
                continue
            source = point.source
            if point.type == "volume":
                source = await self._volumes.hold(point.name, holder)
            binds.append(
                {
                    "source": source,
                    "destination": point.destination,
                    "writable": point.rw,
                    "recursive": not point.non_recursive,
                    "subpath": point.subpath,
                }
            )
        return binds


class Stay:
    """One visitor's stay. ``said`` is its first answer, where it speaks before data flows in.

    ``turn`` is held by it until it is over.
    """

    __slots__ = ("_instance", "closing", "container", "let_go", "over", "said", "turn", "visit")

    def __init__(self, instance: Instance, turn: asyncio.Lock | None = None) -> None:
        self._instance = instance
        self.container = instance.container
        self.turn = turn
        self.visit: Visit | None = None
        self.said: dict[str, Any] = {}
        self.closing = False
        self.let_go: Callable[[], Awaitable[None]] | None = None
        self.over = asyncio.Event()
        instance.guests.add(self)

    @property
    def at_work(self) -> Visit:
        """The visit, once it has begun."""
        assert self.visit is not None
        return self.visit

    async def aclose(self) -> None:
        """End it, and wait until it is gone. Idempotent."""
        if self.closing:
            await self.over.wait()
            return
        self.closing = True
        try:
            if self.visit is not None:
                await self.visit.aclose()
            if self.let_go is not None:
                await self.let_go()
        finally:
            self._instance.guests.discard(self)
            if self.turn is not None:
                self.turn.release()
            self.over.set()


async def leave(instance: Instance) -> None:
    """Wait until nobody is at the container's files; whoever stays too long is made to leave."""
    waiting = [asyncio.ensure_future(stay.over.wait()) for stay in instance.guests]
    if not waiting:
        return
    await asyncio.wait(waiting, timeout=PATIENCE)
    for task in waiting:
        task.cancel()
    for stay in tuple(instance.guests):
        await stay.aclose()


def _alive(instance: Instance) -> Container:
    container = instance.container
    if instance.removed:
        raise NotFound(f"No such container: {container.id}")
    if container.state.status in (Status.REMOVING, Status.DEAD):
        raise Conflict(f"container {container.id} is marked for removal")
    return container
