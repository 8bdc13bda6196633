"""What is expected to be started next."""

from __future__ import annotations

import asyncio

from tests.fakes.engine import World

from sampan.engine.model import ContainerConfig, HostConfig, NetworkingConfig


async def create(world: World, host: HostConfig | None = None) -> str:
    config = ContainerConfig(image="base", cmd=("sleep",))
    return (await world.containers.create(None, config, host or HostConfig(), NetworkingConfig())).id


async def expected(world: World, count: int) -> None:
    while len(world.runtime.expected) < count:
        await asyncio.sleep(0)


async def test_the_next_container_has_the_id_and_the_ids_that_were_expected(world: World) -> None:
    await world.containers.start(await create(world))
    await expected(world, 1)
    following = await create(world)
    await world.containers.start(following)
    launch, (forecast, *_) = world.runtime.launches[-1], world.runtime.expected
    assert forecast.id == launch.id == following
    assert forecast.bundle == launch.bundle
    for key in ("cgroupsPath", "resources", "namespaces", "uidMappings", "gidMappings"):
        assert forecast.spec["linux"].get(key) == launch.spec["linux"].get(key)


async def test_no_id_is_expected_twice(world: World) -> None:
    for count in (1, 2, 3):
        await world.containers.start(await create(world))
        await expected(world, count)
    assert len({forecast.id for forecast in world.runtime.expected}) == 3


async def test_what_is_not_started_in_turn_is_not_counted_on(world: World) -> None:
    first, second = await create(world), await create(world)
    await world.containers.start(first)
    await asyncio.sleep(0.01)  # longer than a forecast takes
    assert world.runtime.expected == []
    await world.containers.start(second)
    await expected(world, 1)


async def test_special_containers_are_no_model(world: World) -> None:
    await world.containers.start(await create(world, HostConfig(privileged=True)))
    await asyncio.sleep(0.01)  # longer than a forecast takes
    assert world.runtime.expected == []
