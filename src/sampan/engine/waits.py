"""Waiting for a container's end, by Docker's three conditions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sampan.engine.model import ExitStatus, WaitCondition
from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from sampan.engine.store import ContainerStore


class Waits:
    """Registers waiters; exits and removals answer them."""

    def __init__(self, *, store: ContainerStore) -> None:
        self._store = store

    def wait(self, ref: str, condition: str = "") -> asyncio.Future[ExitStatus]:
        """A future, registered when this returns; cancelling it withdraws it.

        ``not-running`` (the default) is answered at once for a container that does not run, with its last
        exit code, and by every exit, also of one that is started again; a removal answers everybody, so
        that nobody waits for ever.
        """
        try:
            wanted = WaitCondition(condition or WaitCondition.NOT_RUNNING)
        except ValueError:
            raise InvalidArgument(f'invalid condition: "{condition}"') from None
        instance = self._store.find(ref)
        future: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        if wanted is WaitCondition.NOT_RUNNING and not instance.state.active:
            future.set_result(ExitStatus(code=instance.state.exit_code))
        else:
            instance.waiters.append((wanted, future))
            future.add_done_callback(lambda done: _withdraw(instance.waiters, done))
        return future


def _withdraw(
    waiters: list[tuple[WaitCondition, asyncio.Future[ExitStatus]]], future: asyncio.Future[ExitStatus]
) -> None:
    if future.cancelled():
        waiters[:] = [entry for entry in waiters if entry[1] is not future]
