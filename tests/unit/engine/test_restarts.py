"""Restart policies: the table, the waits, and containers that live by them while the test holds the clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.engine import NOT_FOUND, FakeStream, FakeTimers, World, settle

from sampan.engine.model import (
    ContainerConfig,
    ExecConfig,
    HostConfig,
    ListQuery,
    NetworkingConfig,
    RestartPolicy,
    Status,
)
from sampan.engine.restarts import RULES, End, answers, check, wait_after
from sampan.errors import Conflict, InvalidArgument
from sampan.sandbox.messages import AttachOptions, Exit, encode

ALWAYS = RestartPolicy(name="always")
EXEC = ExecConfig(cmd=("true",))
EVERY_ACTIVE = ListQuery()


@pytest.fixture
def timers() -> FakeTimers:
    return FakeTimers()


@pytest.fixture
def world(tmp_path: Path, timers: FakeTimers) -> Iterator[World]:
    made = World(str(tmp_path), timers=timers)
    yield made
    made.database.close()


async def run(world: World, policy: str, count: int = 0, **host: object) -> str:
    """A running container of an engine that has begun."""
    await world.built.recovery.run()
    restart = RestartPolicy(name=policy, maximum_retry_count=count)
    return await world.run("sleep", name="web", restart_policy=restart, **host)


def state(world: World) -> tuple[Status, int]:
    found = world.containers.get("web")
    return found.state.status, found.restart_count


@pytest.mark.parametrize(
    ("policy", "end", "again"),
    [
        ("no", End(code=1), False),
        ("", End(code=1), False),
        ("always", End(code=0), True),
        ("always", End(code=0, by_hand=True), True),
        ("unless-stopped", End(code=0), True),
        ("unless-stopped", End(code=1, by_hand=True), False),
        ("on-failure", End(code=0), False),
        ("on-failure", End(code=1), True),
        ("on-failure", End(code=137, by_hand=True), True),
        ("on-failure:2", End(code=1, restarts=1), True),
        ("on-failure:2", End(code=1, restarts=2), False),
        ("on-unhealthy", End(code=1), False),
        ("on-unhealthy", End(code=0, unhealthy=True), True),
        ("on-unhealthy:1", End(code=0, unhealthy=True, restarts=1), False),
        ("on-failure,on-unhealthy", End(code=1), True),
        ("on-failure,on-unhealthy", End(code=0, unhealthy=True), True),
        ("unless-stopped,on-unhealthy", End(code=0, by_hand=True), False),
        ("always,on-unhealthy", End(code=0), True),
    ],
)
def test_what_a_policy_answers(policy: str, end: End, again: bool) -> None:
    name, _, count = policy.partition(":")
    assert answers(RestartPolicy(name=name, maximum_retry_count=int(count or 0)), end) is again


@pytest.mark.parametrize("name", ["", "no", *RULES, "always,on-unhealthy", "on-unhealthy,unless-stopped"])
def test_policies_that_there_are(name: str) -> None:
    check(RestartPolicy(name=name))


@pytest.mark.parametrize(
    ("name", "count", "words"),
    [
        ("odd", 0, "unknown policy 'odd'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"),
        ("always,on-failure", 0, "unknown policy 'always,on-failure'"),
        ("no,on-unhealthy", 0, "unknown policy 'no,on-unhealthy'"),
        ("on-unhealthy,on-unhealthy", 0, "unknown policy"),
        ("always", 3, "maximum retry count can only be used with 'on-failure'"),
        ("no", -1, "maximum retry count can only be used with 'on-failure' and cannot be negative"),
        ("always,on-unhealthy", 3, "maximum retry count can only be used with 'on-failure'"),
        ("on-failure", -1, "maximum retry count cannot be negative"),
    ],
)
def test_policies_that_there_are_not(name: str, count: int, words: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^invalid restart policy: {words}"):
        check(RestartPolicy(name=name, maximum_retry_count=count))


def test_waits_double_up_to_a_minute_and_begin_anew_after_a_long_run() -> None:
    waits, last = [], 0.0
    for _ in range(12):
        last = wait_after(last, ran=1)
        waits.append(round(last, 1))
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60, 60]
    assert wait_after(60, ran=9.9) == 60
    assert wait_after(60, ran=10) == 0.1


async def test_a_container_is_started_again_after_waits_that_double(world: World, timers: FakeTimers) -> None:
    web = await run(world, "always")
    recorder = world.record_events()
    for number, wait in enumerate((0.1, 0.2, 0.4), start=1):
        world.task(web).end(number)
        await settle()
        assert state(world) == (Status.RESTARTING, number)
        assert world.containers.get(web).state.exit_code == number
        assert timers.waits == [wait]
        await timers.elapse(wait - 0.01)
        assert state(world) == (Status.RESTARTING, number)
        await timers.elapse(0.01)
        assert state(world) == (Status.RUNNING, number)
    world.task(web).end(0, ran=10)
    await settle()
    assert timers.waits == [0.1]
    told = [action for action in await recorder.told() if action in ("die", "start", "restart")]
    assert told == ["die", "start"] * 3 + ["die"]


async def test_failures_are_counted(world: World, timers: FakeTimers) -> None:
    web = await run(world, "on-failure", 2)
    for _ in range(2):
        world.task(web).end(1)
        await timers.elapse(1)
    assert state(world) == (Status.RUNNING, 2)
    world.task(web).end(1)
    await timers.elapse(100)
    assert state(world) == (Status.EXITED, 2)
    await world.containers.start(web)
    assert state(world) == (Status.RUNNING, 0)


async def test_success_ends_on_failure(world: World, timers: FakeTimers) -> None:
    web = await run(world, "on-failure")
    world.task(web).end(0)
    await timers.elapse(100)
    assert state(world) == (Status.EXITED, 0)


@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure"])
async def test_what_is_stopped_stays_stopped(world: World, timers: FakeTimers, policy: str) -> None:
    web = await run(world, policy)
    assert await world.containers.stop(web)
    await timers.elapse(100)
    assert state(world) == (Status.EXITED, 0)
    await world.containers.start(web)
    await world.containers.kill(web)
    await timers.elapse(100)
    assert state(world) == (Status.EXITED, 0)
    await world.containers.start(web)
    world.task(web).end(1)
    await timers.elapse(1)
    assert state(world) == (Status.RUNNING, 1)


async def waiting(world: World, policy: str = "always") -> str:
    """A container that waits for its start."""
    web = await run(world, policy)
    world.task(web).end(3)
    await settle()
    return web


async def test_what_waits_cannot_be_used(world: World) -> None:
    web = await waiting(world)
    for use in (world.containers.pause(web), world.execs.create(web, EXEC)):
        with pytest.raises(Conflict) as refused:
            await use
        assert str(refused.value) == f"Container {web} is restarting, wait until the container is running"
    with pytest.raises(Conflict, match=r"^container web is restarting, wait until the container is running$"):
        await world.containers.attach("web", AttachOptions(stdout=True), FakeStream)
    with pytest.raises(Conflict, match=r'^cannot remove container "web": container is restarting: stop the'):
        await world.containers.remove("web")
    assert not await world.containers.start(web)  # it is about to be started
    assert [one.id for one in await world.containers.list(EVERY_ACTIVE)] == [web]


async def test_stopping_what_waits_gives_it_up_at_once(world: World, timers: FakeTimers) -> None:
    web = await waiting(world)
    recorder = world.record_events()
    ended = world.containers.wait(web)
    assert not ended.done()
    assert await world.containers.stop(web)
    assert (await ended).code == 3
    assert state(world) == (Status.EXITED, 1)
    assert timers.waits == []
    assert await recorder.told() == ["stop"]
    assert not await world.containers.stop(web)


async def test_killing_and_removing_what_waits(world: World, timers: FakeTimers) -> None:
    web = await waiting(world)
    await world.containers.kill(web, "TERM")
    assert state(world) == (Status.EXITED, 1)
    await world.containers.start(web)
    world.task(web).end(3)
    await settle()
    removed = world.containers.wait(web, "removed")
    await world.containers.remove(web, force=True)
    assert (await removed).code == 3
    assert timers.waits == []
    await world.containers.settle()


async def test_every_exit_answers_a_wait(world: World, timers: FakeTimers) -> None:
    web = await run(world, "always")
    waits = [world.containers.wait(web, condition) for condition in ("not-running", "next-exit")]
    world.task(web).end(5)
    assert [(await wait).code for wait in waits] == [5, 5]
    await timers.elapse(1)
    assert state(world) == (Status.RUNNING, 1)


async def test_restart_of_what_waits_begins_anew(world: World) -> None:
    web = await waiting(world)
    recorder = world.record_events()
    await world.containers.restart(web)
    assert state(world) == (Status.RUNNING, 0)
    told = [action for action in await recorder.told() if action not in ("connect", "disconnect")]
    assert told == ["stop", "start", "restart"]


async def test_a_signal_that_is_not_its_stop_signal_gives_nothing_up(
    world: World, timers: FakeTimers
) -> None:
    await world.built.recovery.run()
    config = ContainerConfig(image="base", cmd=("sleep",), stop_signal="QUIT")
    host = HostConfig(restart_policy=ALWAYS)
    web = (await world.containers.create(None, config, host, NetworkingConfig())).id
    await world.containers.start(web)
    await world.containers.kill(web, "USR1")
    world.task(web).end(1)
    await timers.elapse(1)
    assert world.containers.get(web).state.status is Status.RUNNING
    assert world.containers.get(web).has_been_manually_stopped


async def test_a_first_start_that_fails_is_not_tried_again(world: World, timers: FakeTimers) -> None:
    await world.built.recovery.run()
    web = await world.create(NOT_FOUND, restart_policy=ALWAYS)
    with pytest.raises(InvalidArgument):
        await world.containers.start(web)
    assert timers.waits == []
    assert world.containers.get(web).state.status is Status.CREATED


async def test_a_later_start_that_fails_is_told_and_the_last(world: World, timers: FakeTimers) -> None:
    web = await waiting(world)
    ended = world.containers.wait(web)
    world.runtime.refuse = "the disk is full"
    await timers.elapse(1)
    assert (await ended).code == 3
    found = world.containers.get(web).state
    assert (found.status, found.exit_code, found.error) == (Status.EXITED, 3, "the disk is full")
    assert timers.waits == []
    assert world.bridges.connected == {}


async def test_a_start_that_was_cut_short_is_tried_again_after_longer_waits(
    world: World, timers: FakeTimers
) -> None:
    web = await waiting(world)
    world.runtime.refuse, world.runtime.cut_short = "its keeper ended without a word", True
    for wait in (0.1, 0.2, 0.4):
        assert [round(seconds, 1) for seconds in timers.waits] == [wait]
        await timers.elapse(wait)
        assert state(world) == (Status.RESTARTING, 1)
        assert world.bridges.connected == {}
    world.runtime.refuse = ""
    await timers.elapse(0.8)
    assert state(world) == (Status.RUNNING, 1)
    assert world.containers.get(web).state.error == ""


async def test_what_waits_after_a_start_that_was_cut_short_can_be_stopped(
    world: World, timers: FakeTimers
) -> None:
    web = await waiting(world)
    world.runtime.refuse, world.runtime.cut_short = "its keeper ended without a word", True
    await timers.elapse(0.1)
    await world.containers.stop(web)
    assert (state(world), timers.waits) == ((Status.EXITED, 1), [])


async def test_what_a_daemon_brings_back_is_tried_again_if_that_was_cut_short(
    world: World, timers: FakeTimers
) -> None:
    web = await run(world, "always")
    await world.containers.stop(web)
    world.runtime.refuse, world.runtime.cut_short = "its keeper ended without a word", True
    await world.restart_daemon()
    await timers.elapse(0)
    assert state(world)[0] is Status.RESTARTING
    world.runtime.refuse = ""
    await timers.elapse(0.1)
    assert state(world)[0] is Status.RUNNING


async def test_a_policy_can_be_changed_while_it_runs(world: World, timers: FakeTimers) -> None:
    web = await run(world, "no")
    await world.containers.update(web, HostConfig(restart_policy=RestartPolicy(name="on-failure")))
    world.task(web).end(1)
    await timers.elapse(1)
    assert state(world) == (Status.RUNNING, 1)
    await world.containers.update(web, HostConfig(restart_policy=RestartPolicy(name="no")))
    world.task(web).end(1)
    await timers.elapse(1)
    assert state(world) == (Status.EXITED, 1)


# -- daemons that come and go -------------------------------------------------------------------------


async def test_what_waited_is_started_by_the_next_daemon(world: World, timers: FakeTimers) -> None:
    await waiting(world)
    timers.pending.clear()
    await world.restart_daemon()
    assert state(world) == (Status.RESTARTING, 1)
    await timers.elapse(0.1)
    assert state(world) == (Status.RUNNING, 1)


async def test_what_ended_while_no_daemon_watched_gets_its_policy(world: World, timers: FakeTimers) -> None:
    web = await run(world, "on-failure")
    with open(world.paths.exit_record(web), "wb") as file:
        file.write(encode(Exit(code=2, finished_at=1_700_000_100)))
    await world.restart_daemon()
    assert state(world) == (Status.RESTARTING, 1)
    await timers.elapse(0.1)
    assert state(world) == (Status.RUNNING, 1)


async def test_after_a_reboot_what_ran_runs_again(world: World, timers: FakeTimers) -> None:
    await run(world, "unless-stopped")
    await world.restart_daemon()  # no keeper, no record
    await timers.elapse(0.1)
    assert state(world)[0] is Status.RUNNING


@pytest.mark.parametrize(
    ("policy", "started"), [("always", True), ("unless-stopped", False), ("on-failure", True), ("no", False)]
)
async def test_what_comes_back_after_it_was_stopped_by_hand(
    world: World, timers: FakeTimers, policy: str, started: bool
) -> None:
    web = await run(world, policy)
    await world.containers.stop(web)
    await world.restart_daemon()
    await timers.elapse(0)
    assert (state(world)[0] is Status.RUNNING) is started


async def test_what_was_never_started_or_was_well_does_not_come_back(
    world: World, timers: FakeTimers
) -> None:
    web = await run(world, "on-failure")
    world.task(web).end(0)
    created = await world.create(restart_policy=ALWAYS)
    await world.restart_daemon()
    await timers.elapse(100)
    assert state(world) == (Status.EXITED, 0)
    assert world.containers.get(created).state.status is Status.CREATED


async def test_a_daemon_that_goes_starts_nothing_more(world: World, timers: FakeTimers) -> None:
    await waiting(world)
    await world.built.close()
    assert timers.waits == []
    assert state(world) == (Status.RESTARTING, 1)
