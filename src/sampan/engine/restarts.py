"""Restart policies: which ends of a container are answered by another start, and when.

A policy is one of Docker's words, or a list with commas in which ``on-unhealthy`` stands beside one of them
or alone: ``on-unhealthy:3``, ``always,on-unhealthy``. ``on-unhealthy`` ends a container whose health check
says unhealthy by its stop rules, and starts it again.

Laws:
- What a policy answers is a function of how the run ended (``RULES``); nothing else is looked at.
- The wait before a start doubles from ``_FIRST`` to ``_LONGEST`` and is ``_FIRST`` again after a run of
  ``_LONG_RUN``, all as in Docker.
- Who asks for an end (stop, kill) calls the policy off until somebody starts the container by hand.
- A container that waits for its start is recorded as ``restarting``: the next daemon starts it.
- A start by policy that fails is the last, as in Docker, unless processes of our own died over it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sampan.engine import lifecycle
from sampan.engine.lifecycle import Move
from sampan.engine.model import Cause, Container, ExitStatus, RestartPolicy, Status, WaitCondition
from sampan.errors import Failure, InvalidArgument, StartCutShort

if TYPE_CHECKING:
    from sampan.engine.settings import Settings
    from sampan.engine.store import ContainerStore, Instance
    from sampan.engine.timers import Timer

logger = logging.getLogger(__name__)

_FIRST = 0.1  # seconds
_LONGEST = 60.0
_LONG_RUN = 10.0

ON_UNHEALTHY = "on-unhealthy"
_NEVER = frozenset(("", "no"))


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a run ended. ``restarts``: starts by policy so far; ``by_hand``: somebody asked for the end."""

    code: int
    restarts: int = 0
    by_hand: bool = False
    unhealthy: bool = False


RULES: dict[str, Callable[[End], bool]] = {
    "always": lambda _: True,
    "unless-stopped": lambda end: not end.by_hand,
    "on-failure": lambda end: end.code != 0,
    ON_UNHEALTHY: lambda end: end.unhealthy,
}
_COUNTED = frozenset(("on-failure", ON_UNHEALTHY))


def check(policy: RestartPolicy) -> None:
    """Raise InvalidArgument, in Docker's words, for a policy that there is not."""
    if not policy.name:
        return  # a count without a policy was taken by old daemons
    words = policy.name.split(",")
    own = [word for word in words if word != ON_UNHEALTHY]
    known = policy.name in _NEVER or all(word in RULES for word in words)
    if not known or len(own) > 1 or len(set(words)) < len(words):
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{policy.name}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    count = policy.maximum_retry_count
    if count and not _COUNTED.issuperset(words):
        too = " and cannot be negative" if count < 0 else ""
        raise InvalidArgument(
            f"invalid restart policy: maximum retry count can only be used with 'on-failure'{too}"
        )
    if count < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")


def answers(policy: RestartPolicy, end: End) -> bool:
    """Whether the container is to be started again."""
    if policy.name in _NEVER:
        return False
    most = policy.maximum_retry_count
    if most and end.restarts >= most:
        return False
    return any(RULES[word](end) for word in policy.name.split(",") if word in RULES)


def wait_after(last: float, ran: float) -> float:
    """Seconds until the next start, after a wait of ``last`` (0: none yet) and a run of ``ran``."""
    if ran >= _LONG_RUN or not last:
        return _FIRST
    return min(last * 2, _LONGEST)


def ends_unhealthy(policy: RestartPolicy) -> bool:
    """Whether a container is ended for being unhealthy."""
    return ON_UNHEALTHY in policy.name.split(",")


class Backoff:
    """What is known of one container's starts by policy since somebody started it by hand."""

    __slots__ = ("called_off", "seconds", "timer")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.called_off = False
        self.timer: Timer | None = None


Start = Callable[["Instance"], Coroutine[None, None, None]]
"""Start a container under its lock; raises Failure."""


class Restarts:
    """Decides about ends, and starts what waits. Nothing is started before ``begin``."""

    def __init__(self, *, store: ContainerStore, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._start_again: Start | None = None
        self._starting: set[asyncio.Task[None]] = set()

    # -- ends -----------------------------------------------------------------------------------------

    def wanted(self, instance: Instance, *, code: int, ran: float) -> bool:
        """Whether the end of a run of ``ran`` seconds is answered by a start; the wait is settled then."""
        container = instance.container
        policy = container.host.restart_policy
        if policy.name in _NEVER:
            return False
        backoff = instance.backoff
        if backoff is None:
            backoff = instance.backoff = Backoff()
        if backoff.called_off or not answers(policy, end_of(container, code)):
            return False
        backoff.seconds = wait_after(backoff.seconds, ran)
        return True

    def schedule(self, instance: Instance) -> None:
        """Start a ``restarting`` container when its wait is over."""
        if self._start_again is None:
            return  # it is found by its status when there is a start
        backoff = instance.backoff
        if backoff is None:
            backoff = instance.backoff = Backoff()
        seconds = backoff.seconds or _FIRST
        backoff.timer = self._settings.later(seconds, lambda: self._spawn(self._again(instance)))

    def call_off(self, instance: Instance) -> None:
        """Somebody wants the container to end: no start follows, and one that is waited for is given up."""
        backoff = instance.backoff
        if backoff is None:
            if instance.container.host.restart_policy.name in _NEVER:
                return
            backoff = instance.backoff = Backoff()
        backoff.called_off = True
        if backoff.timer is not None:
            backoff.timer.cancel()
        if instance.state.status is Status.RESTARTING:
            self.give_up(instance)

    def give_up(self, instance: Instance, *, error: str = "") -> None:
        """Leave a ``restarting`` container as exited, with its last exit code, and tell who waits."""
        before = instance.container
        status = lifecycle.after(before, Move.REST)
        state = replace(before.state, status=status, error=error)
        self._store.update(instance, replace(before, state=state))
        ended = ExitStatus(code=state.exit_code)
        instance.release(WaitCondition.NOT_RUNNING, WaitCondition.NEXT_EXIT, status=ended)

    def put_off(self, instance: Instance) -> None:
        """A start by policy was cut short by a death among our own processes: try again, a little later.

        Docker gives such a container up; but nothing was found against it, and its policy is to have it run.
        """
        before = instance.container
        status = before.state.status
        if status is not Status.RESTARTING:
            status = lifecycle.after(before, Move.RECOIL)
            self._store.update(instance, replace(before, state=replace(before.state, status=status)))
        backoff = instance.backoff
        if backoff is None:
            backoff = instance.backoff = Backoff()
        backoff.seconds = wait_after(backoff.seconds, 0)
        self.schedule(instance)

    async def _again(self, instance: Instance) -> None:
        async with instance.lock:
            start = self._start_again
            if start is None or instance.removed or instance.state.status is not Status.RESTARTING:
                return
            try:
                await start(instance)
            except Failure as error:
                # Told in its state, too; only what was cut short is tried again.
                logger.warning("container %s was not started again: %s", instance.id, error)

    # -- the daemon's own start and end ---------------------------------------------------------------

    def begin(self, start_again: Start, start_anew: Start) -> None:
        """From now on containers are started; those that the last daemon left to be started come first.

        ``start_anew`` is a start as if by hand, of what a daemon's start brings back: see ``comes_back``.
        """
        self._start_again = start_again
        for instance in self._store:
            if instance.state.status is Status.RESTARTING:
                self.schedule(instance)
        returning = [instance for instance in self._store if comes_back(instance.container)]
        if returning:
            self._spawn(self._bring_back(returning, start_anew))

    async def _bring_back(self, instances: Iterable[Instance], start: Start) -> None:
        # Whoever joins another container's namespaces, or is linked to it, comes after it.
        left = list(instances)
        while left:
            awaited = {one.id for one in left}
            ready = [one for one in left if not (_joins_another(one.container) or _linked(one) & awaited)]
            ready = ready or left
            await asyncio.gather(*(self._bring_one_back(instance, start) for instance in ready))
            left = [instance for instance in left if instance not in ready]

    async def _bring_one_back(self, instance: Instance, start: Start) -> None:
        async with instance.lock:
            if instance.removed or instance.state.status is not Status.EXITED:
                return
            try:
                await start(instance)
            except Failure as error:
                logger.warning("container %s was not started: %s", instance.id, error)
                if isinstance(error, StartCutShort):
                    self.put_off(instance)

    async def close(self) -> None:
        """Start nothing more, and wait for the starts under way."""
        self._start_again = None
        for instance in self._store:
            if instance.backoff is not None and instance.backoff.timer is not None:
                instance.backoff.timer.cancel()
        while self._starting:
            await asyncio.wait(self._starting)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        if self._start_again is None:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._starting.add(task)
        task.add_done_callback(self._started)

    def _started(self, task: asyncio.Task[None]) -> None:
        self._starting.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a start by policy failed: %s", error, exc_info=error)


def end_of(container: Container, code: int) -> End:
    """What a policy asks of the run that ended with ``code``."""
    return End(
        code=code,
        restarts=container.restart_count,
        by_hand=container.has_been_manually_stopped,
        unhealthy=container.state.cause is Cause.UNHEALTHY,
    )


def comes_back(container: Container) -> bool:
    """Whether a starting daemon starts an exited container: if its policy would answer its last end.

    As in Docker, ``always`` answers also an end that was asked for, and ``on-failure`` looks at the exit
    code alone.
    """
    state = container.state
    if state.status is not Status.EXITED or not state.started_at:
        return False
    return answers(container.host.restart_policy, end_of(container, state.exit_code))


def _joins_another(container: Container) -> bool:
    host = container.host
    return any(mode.startswith("container:") for mode in (host.network_mode, host.ipc_mode, host.pid_mode))


def _linked(instance: Instance) -> set[str]:
    """The ids of those that it is linked to."""
    return {text.partition(":")[0] for text in instance.container.host.links or ()}
