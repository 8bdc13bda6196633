"""Ending a container by its stop rules while the test holds the clock: after the grace period, not before."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.engine import STUBBORN, FakeTimers, World

from sampan.engine.model import ContainerConfig, HostConfig, NetworkingConfig, Status


@pytest.fixture
def timers() -> FakeTimers:
    return FakeTimers()


@pytest.fixture
def world(tmp_path: Path, timers: FakeTimers) -> Iterator[World]:
    made = World(str(tmp_path), timers=timers)
    yield made
    made.database.close()


async def stubborn(world: World, **config: object) -> str:
    """A container whose process 1 ignores SIGTERM."""
    asked = ContainerConfig(image="base", cmd=(STUBBORN,), **config)  # type: ignore[arg-type]
    made = await world.containers.create("web", asked, HostConfig(), NetworkingConfig())
    await world.containers.start(made.id)
    return made.id


@pytest.mark.parametrize(("own", "asked", "grace"), [(None, None, 10), (3, None, 3), (3, 7, 7)])
async def test_who_ignores_the_stop_signal_is_killed_after_the_grace_period_and_not_before(
    world: World, timers: FakeTimers, own: int | None, asked: int | None, grace: int
) -> None:
    web = await stubborn(world, stop_timeout=own)
    stopping = asyncio.ensure_future(world.containers.stop(web, timeout=asked))
    await timers.elapse(grace - 0.001)
    assert world.task(web).signals == [signal.SIGTERM]
    assert world.containers.get(web).state.status is Status.RUNNING
    await timers.elapse(0.001)
    assert world.task(web).signals == [signal.SIGTERM, signal.SIGKILL]
    assert await stopping
    assert world.containers.get(web).state.exit_code == 137


async def test_who_shall_never_be_killed_is_not(world: World, timers: FakeTimers) -> None:
    web = await stubborn(world)
    stopping = asyncio.ensure_future(world.containers.stop(web, timeout=-1))
    await timers.elapse(1e9)
    assert world.task(web).signals == [signal.SIGTERM]
    assert not stopping.done()
    world.task(web).end(4)
    assert await stopping
    assert world.containers.get(web).state.exit_code == 4


async def test_who_ends_in_time_is_not_killed(world: World, timers: FakeTimers) -> None:
    web = await stubborn(world)
    stopping = asyncio.ensure_future(world.containers.stop(web))
    await timers.elapse(9)
    world.task(web).end(0)
    assert await stopping
    assert timers.waits == []
    assert world.task(web).signals == [signal.SIGTERM]


async def test_a_restart_has_its_own_signal_and_grace(world: World, timers: FakeTimers) -> None:
    web = await stubborn(world)
    first = world.task(web)
    restarting = asyncio.ensure_future(world.containers.restart(web, signal="USR1", timeout=2))
    await timers.elapse(1.9)
    assert first.signals == [signal.SIGUSR1]
    await timers.elapse(0.1)
    await restarting
    assert first.signals == [signal.SIGUSR1, signal.SIGKILL]
    assert world.task(web) is not first
    assert world.containers.get(web).state.status is Status.RUNNING
