"""Update: what is changed, what the group is told, and what is refused in which words."""

from __future__ import annotations

from typing import Any

import pytest
from tests.fakes.engine import FakeTask, World

from sampan.engine.model import ContainerConfig, HostConfig, NetworkingConfig, RestartPolicy
from sampan.errors import Conflict, Failure, Internal, InvalidArgument, NotFound
from sampan.spec.image import RunConfig

MIB = 1 << 20


@pytest.fixture(autouse=True)
def base(world: World) -> None:
    world.catalog.add("base", RunConfig(cmd=("sleep",)))


async def make(world: World, **host: Any) -> str:
    config = ContainerConfig(image="base", cmd=("sleep",))
    return (await world.containers.create(None, config, HostConfig(**host), NetworkingConfig())).id


async def running(world: World, **host: Any) -> tuple[str, FakeTask]:
    web = await make(world, **host)
    await world.containers.start(web)
    task = world.store.find(web).task
    assert isinstance(task, FakeTask)
    return web, task


async def test_what_does_not_run_is_only_recorded(world: World) -> None:
    web = await make(world, memory=64 * MIB, memory_swap=-1)
    asked = HostConfig(memory=32 * MIB, memory_swap=64 * MIB, restart_policy=RestartPolicy(name="always"))
    assert not await world.containers.update(web, asked)
    host = world.containers.get(web).host
    assert (host.memory, host.memory_swap, host.restart_policy.name) == (32 * MIB, 64 * MIB, "always")


async def test_what_runs_is_told_whole_sections(world: World) -> None:
    web, task = await running(world, cpu_period=50_000, cpu_shares=20)
    await world.containers.update(web, HostConfig(cpu_quota=10_000))
    await world.containers.update(web, HostConfig(pids_limit=0))
    assert task.limits == [
        {"cpu": {"quota": 10_000, "period": 50_000, "shares": 20}},
        {"pids": {"limit": -1}},
    ]


async def test_a_policy_alone_asks_nothing_of_the_group(world: World) -> None:
    web, task = await running(world)
    await world.containers.update(web, HostConfig(restart_policy=RestartPolicy(name="unless-stopped")))
    assert task.limits == []
    assert world.containers.get(web).host.restart_policy.name == "unless-stopped"


async def test_what_the_group_refuses_changes_nothing(world: World) -> None:
    web, task = await running(world, memory=64 * MIB)
    task.memory_used = 50 * MIB
    with pytest.raises(Conflict, match=f"Cannot update container {web}: unable to set memory limit to"):
        await world.containers.update(web, HostConfig(memory=10 * MIB, memory_swap=-1, cpu_shares=5))
    assert world.containers.get(web).host.memory == 64 * MIB
    assert world.containers.get(web).host.cpu_shares == 0
    assert task.limits == [
        {
            "memory": {"limit": 64 * MIB, "swap": 128 * MIB, "reservation": -1},
            "cpu": {"quota": -1, "shares": 1024},
        }
    ]


@pytest.mark.parametrize(
    ("before", "asked", "kind", "words"),
    [
        ({}, {"memory": 64 * MIB}, Conflict, "Memory limit should be smaller than already set memoryswap"),
        ({"cpu_period": 5000}, {"nano_cpus": 10**9}, Conflict, "Nano CPUs cannot be updated as CPU Period"),
        ({"cpu_quota": 5000}, {"nano_cpus": 10**9}, Conflict, "Nano CPUs cannot be updated as CPU Quota"),
        ({"nano_cpus": 10**9}, {"cpu_period": 5000}, Conflict, "CPU Period cannot be updated as NanoCPUs"),
        ({"nano_cpus": 10**9}, {"cpu_quota": 5000}, Conflict, "CPU Quota cannot be updated as NanoCPUs"),
        (
            {"auto_remove": True},
            {"restart_policy": RestartPolicy(name="always")},
            Conflict,
            "Restart policy cannot be updated because AutoRemove is enabled for the container",
        ),
        ({}, {"memory": 1}, InvalidArgument, "Minimum memory limit allowed is 6MB"),
        ({}, {"nano_cpus": 10**12}, InvalidArgument, "Range of CPUs is from 0.01 to 2.00"),
        ({}, {"cpuset_cpus": "77"}, InvalidArgument, "Requested CPUs are not available"),
        ({}, {"restart_policy": RestartPolicy(name="foo")}, InvalidArgument, "unknown policy 'foo'"),
    ],
)
async def test_refusals(
    world: World, before: dict[str, Any], asked: dict[str, Any], kind: type[Failure], words: str
) -> None:
    web = await make(world, **before)
    with pytest.raises(kind, match=words):
        await world.containers.update(web, HostConfig(**asked))


async def test_a_container_that_is_not_there(world: World) -> None:
    with pytest.raises(NotFound, match="No such container: nope"):
        await world.containers.update("nope", HostConfig(cpu_shares=5))


async def test_swap_alone_can_be_changed(world: World) -> None:
    web, task = await running(world, memory=64 * MIB)
    await world.containers.update(web, HostConfig(memory_swap=100 * MIB))
    assert task.limits[-1]["memory"] == {"limit": 64 * MIB, "swap": 100 * MIB, "reservation": -1}


async def test_a_failure_of_the_engine_itself_is_one(world: World) -> None:
    web, task = await running(world)

    async def broken(_resources: object) -> None:
        raise Internal("no such file or directory")

    task.update = broken  # type: ignore[assignment,method-assign]
    with pytest.raises(Internal, match="Cannot update container"):
        await world.containers.update(web, HostConfig(cpu_shares=5))
