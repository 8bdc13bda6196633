"""Health checks: a command that is run in the container time and again, and what its exit codes say.

Laws, all Docker's:
- A start makes the container ``starting``, a success ``healthy``, ``retries`` failures in a row
  ``unhealthy``. Failures that begin in the start period do not count while it is starting.
- A check begins ``interval`` after the end of the one before (``start_interval`` in the start period while
  starting). The next one waits for it.
- A container that is paused or has ended is not checked, and is ``unhealthy`` meanwhile; its results stay.
- What a check finds is shown at once and recorded with the container's next change: results are not worth a
  write each.

The keeper ends a check that takes too long, so that none is left when the daemon dies meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sampan.engine import restarts
from sampan.engine.killing import stop_signal
from sampan.engine.model import (
    Cause,
    ContainerConfig,
    ExecConfig,
    Health,
    HealthStatus,
    ProbeResult,
)
from sampan.errors import Failure
from sampan.wire import durations, stdcopy

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from sampan.engine.events import Events
    from sampan.engine.execs import Execs
    from sampan.engine.killing import Killing
    from sampan.engine.settings import Settings
    from sampan.engine.store import ContainerStore, Instance
    from sampan.engine.timers import Timer

logger = logging.getLogger(__name__)

_SECOND = 1_000_000_000
_INTERVAL = 30 * _SECOND
_TIMEOUT = 30 * _SECOND
_START_INTERVAL = 5 * _SECOND
_RETRIES = 3
_KEPT_RESULTS = 5
_KEPT_OUTPUT = 4096  # bytes
_SHELL = ("/bin/sh", "-c")
_NOT_RUN = -1
TOOK_TOO_LONG = -1
"""The exit code of a check that was ended for taking too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A health check with its defaults filled in. Durations are nanoseconds."""

    command: tuple[str, ...]
    interval: int
    timeout: int
    start_period: int
    start_interval: int
    retries: int

    @classmethod
    def of(cls, config: ContainerConfig) -> Check | None:
        """What the configuration asks for; None when it asks for nothing that could be run."""
        asked = config.healthcheck
        if asked is None or not asked.test:
            return None
        kind, *arguments = asked.test
        if not arguments or kind not in ("CMD", "CMD-SHELL"):
            return None
        shell = (config.shell or _SHELL) if kind == "CMD-SHELL" else ()
        return cls(
            command=(*shell, *arguments),
            interval=asked.interval or _INTERVAL,
            timeout=asked.timeout or _TIMEOUT,
            start_period=asked.start_period,
            start_interval=asked.start_interval or _START_INTERVAL,
            retries=asked.retries or _RETRIES,
        )

    def wait(self, status: HealthStatus, age: int) -> int:
        """Nanoseconds until the next check of a container that was started ``age`` ago."""
        return self.start_interval if self._is_starting(status, age) else self.interval

    def _is_starting(self, status: HealthStatus, age: int) -> bool:
        # A clock that was set back must not make a start of what has no start period.
        return bool(self.start_period) and status is HealthStatus.STARTING and age < self.start_period

    def judge(self, before: Health, result: ProbeResult, age: int) -> Health:
        """What ``result`` makes of ``before``; the check began ``age`` after the container's start."""
        log = (*before.log, result)[-_KEPT_RESULTS:]
        if result.exit_code == 0:
            return Health(status=HealthStatus.HEALTHY, log=log)
        if self._is_starting(before.status, age):
            return replace(before, log=log)
        streak = before.failing_streak + 1
        status = HealthStatus.UNHEALTHY if streak >= self.retries else before.status
        return Health(status=status, failing_streak=streak, log=log)


def output_text(data: bytes) -> str:
    """What a check wrote, as it is shown: its first 4096 bytes, and a sign that there was more."""
    text = data[:_KEPT_OUTPUT].decode(errors="replace")
    return text + "..." if len(data) > _KEPT_OUTPUT else text


class HealthChecks:
    """Has a monitor for every running container that is to be checked."""

    def __init__(
        self, *, store: ContainerStore, events: Events, execs: Execs, killing: Killing, settings: Settings
    ) -> None:
        self._store = store
        self._events = events
        self._execs = execs
        self._killing = killing
        self._settings = settings
        self._work: set[asyncio.Task[None]] = set()

    def watch(self, instance: Instance) -> None:
        """Check the container from now on; it has been started, or found running by a new daemon."""
        check = Check.of(instance.container.config)
        if check is None:
            return
        before = instance.state.health
        self.show(instance, Health(log=before.log if before is not None else ()))
        instance.monitor = monitor = Monitor(self, instance, check, self._settings)
        if instance.state.cause is Cause.UNHEALTHY:
            self.spawn(self._end(instance))  # the last daemon died over it
        elif not instance.state.paused:
            monitor.resume()

    def show(self, instance: Instance, health: Health) -> None:
        state = replace(instance.state, health=health)
        self._store.show(instance, replace(instance.container, state=state))

    def found(self, instance: Instance, health: Health) -> None:
        """A check has ended: show what it found, and tell a change."""
        before = instance.state.health
        self.show(instance, health)
        if before is not None and before.status is health.status:
            return
        self._events.container(instance.container, f"health_status: {health.status}")
        policy = instance.container.host.restart_policy
        if health.status is HealthStatus.UNHEALTHY and restarts.ends_unhealthy(policy):
            self.spawn(self._end(instance))

    async def _end(self, instance: Instance) -> None:
        """End an unhealthy container by its stop rules; its restart policy does the rest."""
        async with instance.lock:
            stopped = instance.stopped
            if instance.removed or stopped is None or not instance.state.running:
                return
            state = replace(instance.state, cause=Cause.UNHEALTHY)
            self._store.update(instance, replace(instance.container, state=state))
            # Before the signal: the next daemon must know why it ended.
            await self._store.recorded()
            await self._killing.signal(instance, stop_signal(instance.container))
        await self._killing.see_off(instance, stopped, self._killing.grace(instance.container))

    async def run(self, instance: Instance, check: Check) -> tuple[int, str]:
        """Run the check once: its exit code and what it wrote. Raises Failure when it cannot be run."""
        config = ExecConfig(attach_stdout=True, attach_stderr=True, cmd=check.command)
        output = Output()
        try:
            ended = await self._execs.run(instance, config, output, limit=check.timeout / 1e9)
            await output.read()
            code = await ended
        finally:
            output.close()
        text = output_text(output.data)
        if code == TOOK_TOO_LONG:
            said = f"Health check exceeded timeout ({durations.shown(check.timeout)})"
            return code, f"{said}: {text}" if text else said
        return code, text

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a health check failed: %s", error, exc_info=error)

    async def close(self) -> None:
        """Check nothing more; what is being checked is left to its keeper."""
        for instance in self._store:
            if instance.monitor is not None:
                instance.monitor.rest()
        for task in tuple(self._work):
            task.cancel()
        if self._work:
            await asyncio.wait(self._work)


class Monitor:
    """The checks of one run of one container."""

    __slots__ = ("_check", "_checks", "_instance", "_probing", "_settings", "_timer")

    def __init__(self, checks: HealthChecks, instance: Instance, check: Check, settings: Settings) -> None:
        self._checks = checks
        self._instance = instance
        self._check = check
        self._settings = settings
        self._timer: Timer | None = None
        self._probing: asyncio.Task[None] | None = None

    def resume(self) -> None:
        """Begin, or go on after a pause."""
        wait = self._check.wait(self._health.status, self._age(self._settings.now()))
        self._timer = self._settings.later(wait / 1e9, self._due)

    def pause(self) -> None:
        """Check nothing until ``resume``; a check that runs does not count."""
        self.rest()
        self._checks.show(self._instance, replace(self._health, status=HealthStatus.UNHEALTHY))

    def end(self) -> None:
        """The container has ended."""
        self.pause()
        self._instance.monitor = None

    def rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._probing is not None:
            self._probing.cancel()
            self._probing = None

    @property
    def _health(self) -> Health:
        return self._instance.state.health or Health()

    def _age(self, moment: int) -> int:
        return moment - self._instance.state.started_at

    def _due(self) -> None:
        self._probing = self._checks.spawn(self._probe())

    async def _probe(self) -> None:
        start = self._settings.now()
        try:
            code, text = await self._checks.run(self._instance, self._check)
        except Exception as error:
            if not isinstance(error, Failure | OSError):
                logger.exception("container %s: its health could not be checked", self._instance.id)
            code, text = _NOT_RUN, str(error)
        if self._probing is not asyncio.current_task():
            return  # it was paused or ended meanwhile
        self._probing = None
        result = ProbeResult(start=start, end=self._settings.now(), exit_code=code, output=text)
        health = self._check.judge(self._health, result, self._age(start))
        # The next check first: whoever hears of this one may end the container.
        self._timer = self._settings.later(
            self._check.wait(health.status, self._age(result.end)) / 1e9, self._due
        )
        self._checks.found(self._instance, health)


class Output:
    """A client's stream of our own: what a command writes, as much of it as is kept."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self.data = b""

    def detach(self) -> tuple[socket.socket, bytes]:
        return self._theirs, b""

    async def read(self) -> None:
        """Take everything until the end; what is too much is forgotten."""
        loop = asyncio.get_running_loop()
        rest = b""
        while chunk := await loop.sock_recv(self._ours, 1 << 16):
            frames, rest = stdcopy.split(rest + chunk)
            for _, payload in frames:
                if len(self.data) <= _KEPT_OUTPUT:
                    self.data += payload[: _KEPT_OUTPUT + 1]

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()
