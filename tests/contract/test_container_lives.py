"""What the container use cases promise, whatever runs the programs below them."""

from __future__ import annotations

import pytest

from sampan.engine.events import Subscription
from sampan.engine.model import (
    ContainerConfig,
    ExecConfig,
    Filters,
    HealthConfig,
    HostConfig,
    NetworkingConfig,
    RestartPolicy,
    Status,
)
from sampan.errors import Conflict, InvalidArgument, NotFound
from tests.contract.conftest import Engine
from tests.fakes.engine import World

POLITE = "trap 'exit 5' TERM; while :; do sleep 0.1; done"
STUBBORN = "trap '' TERM; while :; do sleep 0.1; done"


async def create(world: World, script: str, **host: object) -> str:
    # The filter's path is a fake's: containers of this suite run without one.
    settled = HostConfig(network_mode="none", security_opt=("seccomp=unconfined",), **host)  # type: ignore[arg-type]
    config = ContainerConfig(image="base", cmd=("sh", "-c", script))
    return (await world.containers.create(None, config, settled, NetworkingConfig())).id


async def run(world: World, script: str, **host: object) -> str:
    container_id = await create(world, script, **host)
    await world.containers.start(container_id)
    return container_id


def test_the_exit_code_is_the_programs(engine: Engine) -> None:
    async def work(world: World) -> None:
        web = await create(world, "exit 3")
        ended = world.containers.wait(web, "next-exit")
        await world.containers.start(web)
        assert (await ended).code == 3
        state = world.containers.get(web).state
        assert (state.status, state.exit_code, state.pid, state.error) == (Status.EXITED, 3, 0, "")
        assert state.finished_at >= state.started_at > 0

    engine(work)


def test_a_program_that_is_not_there(engine: Engine) -> None:
    async def work(world: World) -> None:
        config = ContainerConfig(image="base", cmd=("nosuch",))
        host = HostConfig(network_mode="none", security_opt=("seccomp=unconfined",))
        web = (await world.containers.create(None, config, host, NetworkingConfig())).id
        with pytest.raises(InvalidArgument, match=r'exec: "nosuch": executable file not found in \$PATH'):
            await world.containers.start(web)
        state = world.containers.get(web).state
        assert (state.status, state.exit_code) == (Status.CREATED, 127)

    engine(work)


def test_stop_lets_a_program_end_and_kills_one_that_does_not(engine: Engine) -> None:
    async def work(world: World) -> None:
        polite, stubborn = await run(world, POLITE), await run(world, STUBBORN)
        # Until its trap is set, a shell as process 1 ignores the signal altogether: ask again.
        while world.containers.get(polite).state.running:
            await world.containers.kill(polite, "TERM")
            await world.containers.stop(polite, timeout=1)
        assert world.containers.get(polite).state.exit_code in (5, 137)
        assert await world.containers.stop(stubborn, timeout=0)
        assert world.containers.get(stubborn).state.exit_code == 137
        assert not await world.containers.stop(stubborn)

    engine(work)


def test_pausing_and_killing_what_is_paused(engine: Engine) -> None:
    async def work(world: World) -> None:
        web = await run(world, STUBBORN)
        await world.containers.pause(web)
        assert world.containers.get(web).state.paused
        with pytest.raises(Conflict):
            await world.containers.pause(web)
        await world.containers.unpause(web)
        assert world.containers.get(web).state.status is Status.RUNNING
        await world.containers.pause(web)
        await world.containers.kill(web)
        assert world.containers.get(web).state.exit_code == 137

    engine(work)


def test_a_container_is_started_again(engine: Engine) -> None:
    async def work(world: World) -> None:
        web = await create(world, "exit 4")
        for _ in range(2):
            ended = world.containers.wait(web, "next-exit")
            assert await world.containers.start(web)
            assert (await ended).code == 4

    engine(work)


def test_a_rm_container_goes_with_its_program(engine: Engine) -> None:
    async def work(world: World) -> None:
        web = await create(world, "exit 6", auto_remove=True)
        removed = world.containers.wait(web, "removed")
        await world.containers.start(web)
        assert (await removed).code == 6
        with pytest.raises(NotFound):
            world.containers.get(web)

    engine(work)


def test_an_exec_has_its_own_exit_code(engine: Engine) -> None:
    async def work(world: World) -> None:
        web = await run(world, STUBBORN)
        told = world.record_events(event=("exec_die",))
        subscription = world.events.subscribe()
        exec_id = await world.execs.create(web, ExecConfig(cmd=("sh", "-c", "exit 9")))
        await world.execs.start(exec_id, detach=True)
        async for event in subscription:
            if event.action == "exec_die":
                break
        assert world.execs.inspect(exec_id).exit_code == 9
        assert await told.told() == ["exec_die"]
        missing = await world.execs.create(web, ExecConfig(cmd=("nosuch",)))
        with pytest.raises(InvalidArgument, match="executable file not found"):
            await world.execs.start(missing, detach=True)
        assert world.execs.inspect(missing).exit_code == 127

    engine(work)


def test_the_next_daemon_finds_what_runs(engine: Engine) -> None:
    async def work(world: World) -> None:
        web = await run(world, STUBBORN)
        world.runtime.living.update(world.runtime.tasks)  # the fake's keepers outlive the daemon too
        await world.restart_daemon()
        assert world.containers.get(web).state.status is Status.RUNNING
        ended = world.containers.wait(web)
        await world.containers.kill(web)
        assert (await ended).code == 137

    engine(work)


async def told(subscription: Subscription, action: str, times: int = 1) -> list[str]:
    """The actions of containers up to and including the one that is waited for."""
    found: list[str] = []
    async for event in subscription:
        found.append(event.action)
        if found.count(action) == times:
            break
    return found


def test_a_failure_is_answered_by_its_policy(engine: Engine) -> None:
    async def work(world: World) -> None:
        await world.built.recovery.run()
        policy = RestartPolicy(name="on-failure", maximum_retry_count=1)
        web = await create(world, "exit 3", restart_policy=policy)
        subscription = world.events.subscribe(filters=Filters({"type": ("container",)}))
        await world.containers.start(web)
        assert await told(subscription, "die", 2) == ["start", "die"] * 2
        found = world.containers.get(web)
        assert (found.state.status, found.state.exit_code, found.restart_count) == (Status.EXITED, 3, 1)

    engine(work)


def test_a_check_of_its_health_is_run_inside(engine: Engine) -> None:
    async def work(world: World) -> None:
        check = HealthConfig(test=("CMD", "sh", "-c", "exit 7"), interval=10_000_000, retries=2)
        config = ContainerConfig(image="base", cmd=("sh", "-c", STUBBORN), healthcheck=check)
        host = HostConfig(network_mode="none", security_opt=("seccomp=unconfined",))
        web = (await world.containers.create(None, config, host, NetworkingConfig())).id
        subscription = world.events.subscribe(filters=Filters({"type": ("container",)}))
        await world.containers.start(web)
        actions = await told(subscription, "health_status: unhealthy")
        probe = ["exec_create: sh -c exit 7", "exec_start: sh -c exit 7", "exec_die"]
        assert actions == ["start", *probe, *probe, "health_status: unhealthy"]
        health = world.containers.get(web).state.health
        assert health is not None
        assert [result.exit_code for result in health.log] == [7, 7]
        await world.containers.kill(web)

    engine(work)
