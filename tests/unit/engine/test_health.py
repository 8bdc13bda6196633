"""Health checks: what results mean as values, and monitors whose clock the test holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.engine import STUBBORN, FakeTimers, World, settle

from sampan.engine.health import Check, output_text
from sampan.engine.model import (
    ContainerConfig,
    Filters,
    Health,
    HealthConfig,
    HealthStatus,
    HostConfig,
    ListQuery,
    NetworkingConfig,
    ProbeResult,
    RestartPolicy,
    Status,
)

SECOND = 1_000_000_000


@pytest.fixture
def timers() -> FakeTimers:
    return FakeTimers()


@pytest.fixture
def world(tmp_path: Path, timers: FakeTimers) -> Iterator[World]:
    made = World(str(tmp_path), timers=timers)
    yield made
    made.database.close()


def check(**settings: Any) -> Check:
    made = Check.of(ContainerConfig(healthcheck=HealthConfig(test=("CMD", "check"), **settings)))
    assert made is not None
    return made


async def start(
    world: World, test: tuple[str, ...], policy: str = "", *, command: str = "sleep", **settings: Any
) -> str:
    await world.built.recovery.run()
    health = HealthConfig(test=test, interval=SECOND, **settings)
    config = ContainerConfig(image="base", cmd=(command,), healthcheck=health)
    host = HostConfig(restart_policy=RestartPolicy(name=policy))
    made = await world.containers.create("web", config, host, NetworkingConfig())
    await world.containers.start(made.id)
    return made.id


def health(world: World) -> Health:
    found = world.containers.get("web").state.health
    assert found is not None
    return found


async def until(true: Callable[[], bool]) -> None:
    """The database's thread, or a socket, has to answer first."""
    while not true():
        await asyncio.sleep(0)


def result(code: int) -> ProbeResult:
    return ProbeResult(start=1, end=2, exit_code=code)


def statuses(made: Check, codes: list[int], age: int = 0) -> list[str]:
    found, now = [], Health()
    for code in codes:
        now = made.judge(now, result(code), age)
        found.append(f"{now.status} {now.failing_streak}")
    return found


@pytest.mark.parametrize(
    ("test", "command"),
    [
        (("CMD", "a", "b"), ("a", "b")),
        (("CMD-SHELL", "a | b"), ("/bin/sh", "-c", "a | b")),
        (("NONE",), None),
        ((), None),
        (None, None),
        (("CMD",), None),
        (("CMD-SHELL",), None),
        (("ODD", "a"), None),
    ],
)
def test_what_is_run(test: tuple[str, ...] | None, command: tuple[str, ...] | None) -> None:
    made = Check.of(ContainerConfig(healthcheck=HealthConfig(test=test)))
    assert (made and made.command) == command


def test_the_images_shell_is_used_and_defaults_are_dockers() -> None:
    config = ContainerConfig(shell=("/bin/ash", "-ec"), healthcheck=HealthConfig(test=("CMD-SHELL", "a")))
    made = Check.of(config)
    assert made == Check(
        command=("/bin/ash", "-ec", "a"),
        interval=30 * SECOND,
        timeout=30 * SECOND,
        start_period=0,
        start_interval=5 * SECOND,
        retries=3,
    )


def test_failures_in_a_row_make_unhealthy_and_one_success_healthy() -> None:
    assert statuses(check(retries=2), [1, 1, 1, 0, -1, 0, 1, 1]) == [
        "starting 1",
        "unhealthy 2",
        "unhealthy 3",
        "healthy 0",
        "healthy 1",
        "healthy 0",
        "healthy 1",
        "unhealthy 2",
    ]


def test_failures_while_starting_do_not_count() -> None:
    made = check(retries=1, start_period=10 * SECOND)
    assert statuses(made, [1, 1, 0, 1], age=9 * SECOND) == [
        "starting 0",
        "starting 0",
        "healthy 0",
        "unhealthy 1",
    ]
    assert statuses(made, [1], age=10 * SECOND) == ["unhealthy 1"]


def test_checks_are_closer_while_it_starts() -> None:
    made = check(interval=9, start_interval=2, start_period=100)
    assert made.wait(HealthStatus.STARTING, 99) == 2
    assert made.wait(HealthStatus.STARTING, 100) == 9
    assert made.wait(HealthStatus.HEALTHY, 50) == 9


def test_the_last_five_results_are_kept() -> None:
    found = Health()
    for code in range(7):
        found = check().judge(found, result(code), 0)
    assert [one.exit_code for one in found.log] == [2, 3, 4, 5, 6]


def test_long_output_is_cut() -> None:
    assert output_text(b"x" * 4096) == "x" * 4096
    assert output_text(b"x" * 4097) == "x" * 4096 + "..."
    assert output_text(b"a\xff") == "a\ufffd"


async def test_a_check_is_told_as_an_exec_and_shown(world: World, timers: FakeTimers) -> None:
    web = await start(world, ("CMD", "sh", "-c", "exit 0"), timeout=7 * SECOND)
    world.task(web).said = b"fine\n"
    recorder = world.record_events()
    assert health(world) == Health()
    assert timers.waits == [1.0]
    await timers.elapse(1)
    await until(lambda: bool(health(world).log))
    (last,) = health(world).log
    assert (health(world).status, last.exit_code, last.output) == (HealthStatus.HEALTHY, 0, "fine\n")
    assert last.end > last.start
    assert world.task(web).exec_limits == [7.0]
    assert await recorder.told() == [
        "exec_create: sh -c exit 0",
        "exec_start: sh -c exit 0",
        "exec_die",
        "health_status: healthy",
    ]
    assert world.containers.get("web").exec_ids == ()
    assert timers.waits == [1.0]


async def test_only_a_change_is_told(world: World, timers: FakeTimers) -> None:
    await start(world, ("CMD", "sh", "-c", "exit 1"), retries=2)
    recorder = world.record_events(event=("health_status",))
    for number in range(1, 5):
        await timers.elapse(1)
        await until(lambda number=number: len(health(world).log) == number)  # type: ignore[misc]
    assert await recorder.told() == ["health_status: unhealthy"]
    assert health(world).failing_streak == 4


async def test_a_check_that_takes_too_long_or_cannot_be_run(world: World, timers: FakeTimers) -> None:
    web = await start(world, ("CMD", "check"), timeout=700_000_000)
    world.task(web).said = b"half"
    await timers.elapse(1)
    await until(lambda: bool(world.task(web).exec_tasks))
    world.task(web).exec_tasks[0].exited.set_result(-1)
    await until(lambda: bool(health(world).log))
    assert health(world).log[0].exit_code == -1
    assert health(world).log[0].output == "Health check exceeded timeout (700ms): half"
    world.task(web).dying = None
    await world.containers.kill(web)
    await world.containers.remove(web)
    await start(world, ("CMD", "nosuch"))
    await timers.elapse(1)
    await until(lambda: bool(health(world).log))
    assert health(world).log[0].exit_code == -1
    assert "executable file not found in $PATH" in health(world).log[0].output


async def test_what_is_paused_or_has_ended_is_not_checked(world: World, timers: FakeTimers) -> None:
    web = await start(world, ("CMD", "check"))
    await timers.elapse(1)
    await until(lambda: bool(world.task(web).exec_tasks))
    await world.containers.pause(web)
    assert (timers.waits, health(world).status) == ([], HealthStatus.UNHEALTHY)
    world.task(web).exec_tasks[0].exited.set_result(0)
    await settle()
    assert health(world).log == ()
    await world.containers.unpause(web)
    assert timers.waits == [1.0]
    world.task(web).end(0)
    await settle()
    assert (timers.waits, health(world).status) == ([], HealthStatus.UNHEALTHY)


async def test_a_start_and_a_new_daemon_begin_anew_with_the_old_results(
    world: World, timers: FakeTimers
) -> None:
    web = await start(world, ("CMD", "sh", "-c", "exit 0"))
    await timers.elapse(1)
    await until(lambda: bool(health(world).log))
    await world.containers.kill(web)
    await world.containers.start(web)
    assert health(world).status is HealthStatus.STARTING
    assert len(health(world).log) == 1
    world.runtime.living[web] = world.task(web)
    timers.pending.clear()
    await world.restart_daemon()
    assert (health(world).status, timers.waits) == (HealthStatus.STARTING, [1.0])


async def test_containers_are_found_by_their_health(world: World, timers: FakeTimers) -> None:
    web = await start(world, ("CMD", "check"))
    other = await world.run("sleep")

    async def found(status: str) -> list[str]:
        query = ListQuery(filters=Filters({"health": (status,)}))
        return [one.id for one in await world.containers.list(query)]

    assert await found("starting") == [web]
    assert await found("none") == [other]
    assert await found("healthy") == []


@pytest.mark.parametrize("policy", ["on-unhealthy", "always,on-unhealthy"])
async def test_what_is_unhealthy_is_ended_and_started_again(
    world: World, timers: FakeTimers, policy: str
) -> None:
    web = await start(world, ("CMD", "sh", "-c", "exit 1"), policy, retries=1)
    first = world.task(web)
    await timers.elapse(1)
    await until(lambda: world.containers.get(web).state.status is Status.RESTARTING)
    assert first.signals == [15]
    await timers.elapse(0.1)
    found = world.containers.get(web)
    assert (found.state.status, found.restart_count) == (Status.RUNNING, 1)
    assert not found.has_been_manually_stopped
    assert health(world).status is HealthStatus.STARTING
    world.task(web).end(1)
    await timers.elapse(1)
    again = world.containers.get(web).state.status
    assert again is (Status.RUNNING if policy.startswith("always") else Status.EXITED)


async def test_a_daemon_that_dies_over_an_unhealthy_container(world: World, timers: FakeTimers) -> None:
    web = await start(world, ("CMD", "sh", "-c", "exit 1"), "on-unhealthy", command=STUBBORN, retries=1)
    await timers.elapse(1)
    await until(lambda: bool(world.task(web).signals))
    world.runtime.living[web] = world.task(web)
    timers.pending.clear()
    await world.restart_daemon()
    await until(lambda: bool(world.task(web).signals))
    assert world.task(web).signals == [15]  # the next one asks again
    await timers.elapse(10)
    assert world.task(web).signals == [15, 9]
    assert world.containers.get(web).state.status is Status.RESTARTING
    await timers.elapse(0.1)
    assert world.containers.get(web).state.status is Status.RUNNING
