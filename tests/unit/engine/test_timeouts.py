"""Time limits of containers: the annotation, what the keeper is told, and what is told when it ends one."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from tests.fakes.engine import World, settle

from sampan.engine.model import Cause, ContainerConfig, HostConfig, NetworkingConfig, RestartPolicy, Status
from sampan.engine.timeouts import ANNOTATION, check
from sampan.errors import InvalidArgument
from sampan.sandbox.messages import TimeLimit


async def start(world: World, limit: str, config: dict[str, Any] | None = None, **host: Any) -> str:
    asked = ContainerConfig(image="base", cmd=("sleep",), **(config or {}))
    settled = HostConfig(annotations={ANNOTATION: limit}, **host)
    made = await world.containers.create("web", asked, settled, NetworkingConfig())
    await world.containers.start(made.id)
    return made.id


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ("soon", 'time: invalid duration "soon"'),
        ("5", 'time: missing unit in duration "5"'),
        ("1xs", 'time: unknown unit "xs" in duration "1xs"'),
        ("-1s", "-1s is less than 1ms"),
        ("0s", "0s is less than 1ms"),
        ("2000000h", "2000000h is less than 1ms or more than"),
    ],
)
def test_limits_that_are_none(limit: str, reason: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^invalid timeout: {reason}"):
        check(HostConfig(annotations={ANNOTATION: limit}))


def test_other_annotations_are_not_looked_at() -> None:
    check(HostConfig(annotations={"a": "b"}))
    check(HostConfig())


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({}, TimeLimit(seconds=1.5, signal=signal.SIGTERM, grace=10)),
        (
            {"stop_signal": "QUIT", "stop_timeout": 3},
            TimeLimit(seconds=1.5, signal=signal.SIGQUIT, grace=3),
        ),
        ({"stop_timeout": -1}, TimeLimit(seconds=1.5, signal=signal.SIGTERM, grace=None)),
    ],
)
async def test_the_keeper_is_told_the_stop_rules(
    world: World, config: dict[str, Any], told: TimeLimit
) -> None:
    web = await start(world, "1.5s", config)
    assert world.task(web).launch.limit == told


async def test_without_a_limit_the_keeper_has_none(world: World) -> None:
    web = await world.run("sleep", annotations={"a": "b"})
    assert world.task(web).launch.limit is None


async def test_what_was_ended_by_its_limit_says_so(world: World) -> None:
    web = await start(world, "2s")
    recorder = world.record_events(type=("container",))
    world.task(web).end(143, timed_out=True)
    await settle()
    state = world.containers.get(web).state
    assert (state.status, state.exit_code, state.cause) == (Status.EXITED, 143, Cause.TIMEOUT)
    assert state.error == "the container was ended after its time limit of 2s"
    assert await recorder.told() == ["timeout", "die"]
    await world.containers.start(web)
    assert world.containers.get(web).state.error == ""
    assert world.containers.get(web).state.cause is Cause.NONE


async def test_for_a_restart_policy_it_is_a_failure(world: World) -> None:
    await world.built.recovery.run()
    web = await start(world, "2s", restart_policy=RestartPolicy(name="on-failure"))
    world.task(web).end(143, timed_out=True)
    await settle()
    assert world.containers.get(web).state.status is Status.RESTARTING
    await world.containers.stop(web)


async def test_the_next_daemon_tells_it_too(world: World) -> None:
    web = await start(world, "2s")
    world.task(web).end(143, timed_out=True)  # the record is there, and nobody has read it
    await world.restart_daemon()
    assert world.containers.get(web).state.cause is Cause.TIMEOUT
