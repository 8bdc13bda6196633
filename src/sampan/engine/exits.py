"""The end of a run: recorded, told, answered, and only then torn down.

Law: everything that others can see changes in one step of the event loop: state, events, waiters. What is
left to give back (address, ids) is done afterwards; the next start waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sampan.engine import timeouts
from sampan.engine.launches import disconnected
from sampan.engine.lifecycle import MOVES, Move
from sampan.engine.model import Cause, Container, Event, EventType, ExitStatus, WaitCondition
from sampan.engine.removal import remove_bundle
from sampan.sandbox.messages import Exit

if TYPE_CHECKING:
    from sampan.engine.events import Events
    from sampan.engine.health import HealthChecks
    from sampan.engine.launches import Launches
    from sampan.engine.ports import Task
    from sampan.engine.removal import Removal
    from sampan.engine.restarts import Restarts
    from sampan.engine.settings import Settings
    from sampan.engine.shipping import Shipping
    from sampan.engine.store import ContainerStore, Instance

logger = logging.getLogger(__name__)

_LOST = 137
_DRIVERS = {"none": "null", "host": "host"}


class Exits:
    """Follows running containers to their end."""

    def __init__(
        self,
        *,
        store: ContainerStore,
        events: Events,
        launches: Launches,
        removal: Removal,
        restarts: Restarts,
        checks: HealthChecks,
        shipping: Shipping,
        settings: Settings,
    ) -> None:
        self._store = store
        self._events = events
        self._launches = launches
        self._restarts = restarts
        self._checks = checks
        self._removal = removal
        self._shipping = shipping
        self._settings = settings

    def follow(self, instance: Instance, task: Task) -> None:
        """Record the exit of ``task`` when it comes. The container is running from this call on."""
        instance.task = task
        task.on_detach = lambda: self._events.container(instance.container, "detach")
        instance.stopped = asyncio.get_running_loop().create_future()
        task.exited.add_done_callback(lambda exited: self._ended(instance, task, exited))
        self._shipping.follow(instance.container, task)
        if instance.container.config.healthcheck is not None:
            self._checks.watch(instance)

    def _ended(self, instance: Instance, task: Task, exited: asyncio.Future[Exit]) -> None:
        if instance.task is not task or exited.cancelled():
            return
        error = exited.exception()
        if error is not None:
            logger.error("container %s was lost: %s", instance.id, error)
            result = Exit(code=_LOST, error=f"the container was lost: {error}")
        else:
            result = exited.result()
        self.record(instance, result)

    def record(self, instance: Instance, result: Exit, *, answered: bool = True) -> None:
        """Make the container exited with ``result``, tell it, answer waiters, start the tear-down.

        Where its restart policy answers the end, it is ``restarting`` instead, and waits for its start. With
        ``answered`` False the policy is not asked: a daemon that starts on a host that was started again
        brings back what ran, in the order of links, and counts no restart, as in Docker.
        """
        if instance.monitor is not None:
            instance.monitor.end()
        before = instance.container
        finished = int(result.finished_at * 1e9) or self._settings.now()
        ran = (finished - before.state.started_at) / 1e9
        again = answered and self._restarts.wanted(instance, code=result.code, ran=ran)
        limit = timeouts.limit_of(before) if result.timed_out else ""
        state = replace(
            before.state,
            status=MOVES[(before.state.status, Move.RECOIL if again else Move.DIE)],
            pid=0,
            exit_code=result.code,
            oom_killed=result.oom_killed,
            error=f"the container was ended after its time limit of {limit}" if limit else result.error,
            finished_at=finished,
            cause=Cause.TIMEOUT if limit else before.state.cause,
        )
        after = disconnected(replace(before, state=state, restart_count=before.restart_count + again))
        instance.task = None
        self._store.update(instance, after)
        if limit:
            self._events.container(after, "timeout", timeout=limit)
        self._tell(before, after)
        status = ExitStatus(code=result.code)
        instance.release(WaitCondition.NOT_RUNNING, WaitCondition.NEXT_EXIT, status=status)
        stopped, instance.stopped = instance.stopped, None
        if stopped is not None and not stopped.done():
            stopped.set_result(None)
        remove = after.host.auto_remove and not instance.keep
        if remove:
            self._removal.withdraw(instance)
        instance.teardown = asyncio.get_running_loop().create_task(
            self._tear_down(instance, remove=remove, orphaned=bool(result.error))
        )
        if again:
            self._restarts.schedule(instance)

    def _tell(self, before: Container, after: Container) -> None:
        if after.state.oom_killed:
            self._events.container(after, "oom")
        seconds = max(0, after.state.finished_at - after.state.started_at) // 1_000_000_000
        self._events.container(after, "die", execDuration=str(seconds), exitCode=str(after.state.exit_code))
        announce_network(self._events, before, "disconnect")
        announce_volumes(self._events, after, "unmount")

    async def _tear_down(self, instance: Instance, *, remove: bool, orphaned: bool) -> None:
        try:
            await self._launches.release(instance.id)
        except Exception:
            logger.exception("container %s: its network could not be released", instance.id)
        if orphaned:  # its keeper did not tidy up
            remove_bundle(self._settings.paths.bundle(instance.id))
        if remove:
            await self._removal.clear(instance, volumes=True)


def announce_volumes(events: Events, container: Container, action: str) -> None:
    """Publish a mount or unmount of each of the container's volumes."""
    for point in container.mounts:
        if point.type != "volume":
            continue
        attributes = {"container": container.id, "driver": point.driver}
        if action == "mount":
            attributes |= {
                "destination": point.destination,
                "read/write": "true" if point.rw else "false",
                "propagation": point.propagation,
            }
        event = Event(type=EventType.VOLUME, action=action, actor_id=point.name, attributes=attributes)
        events.about(container, event)


def announce_network(events: Events, container: Container, action: str) -> None:
    """Publish a connect or disconnect for the container's network."""
    for name in container.network.networks:
        events.about(container, network_event(container, name, action))


def network_event(container: Container, name: str, action: str) -> Event:
    """That the container came to one of its networks, or left it."""
    return Event(
        type=EventType.NETWORK,
        action=action,
        actor_id=container.network.networks[name].network_id,
        attributes={"container": container.id, "name": name, "type": _DRIVERS.get(name, "bridge")},
    )
