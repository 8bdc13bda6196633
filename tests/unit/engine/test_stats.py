"""Readings of what containers use, on an engine of fakes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from tests.fakes.engine import World, settle

from sampan.api.render.stats import stats as render
from sampan.engine.settings import Settings
from sampan.engine.stats import Reading, Statistics, Watch
from sampan.errors import NotFound
from sampan.runtime.usage import Target, Traffic, Usage, host_clock, interfaces
from sampan.sandbox.cgroups import BlockIo, Stats

NEVER = "0001-01-01T00:00:00Z"


class Meter:
    """Each measurement finds one more second of CPU; ``tick`` lets the next interval pass."""

    def __init__(self, world: World, settings: Settings) -> None:
        self.targets: list[Mapping[str, Target]] = []
        self._turns: asyncio.Queue[None] = asyncio.Queue()
        self.statistics = Statistics(
            store=world.store, measure=self._measure, settings=settings, pause=self._pause
        )

    def _measure(self, targets: Mapping[str, Target]) -> Mapping[str, Usage]:
        self.targets.append(targets)
        group = Stats(cpu_total=len(self.targets) * 10**9)
        return {key: Usage(group=group, networks={}, host_cpu=1, cpus=2, unified=False) for key in targets}

    async def _pause(self, _seconds: float) -> None:
        await self._turns.get()

    def tick(self) -> None:
        self._turns.put_nowait(None)


@pytest.fixture
def meter(world: World) -> Meter:
    return Meter(world, world.settings)


def seconds(reading: Reading) -> tuple[int | None, int | None]:
    """CPU seconds before and now."""
    before, now = (
        sample.usage.group.cpu_total // 10**9 if sample is not None else None
        for sample in (reading.before, reading.now)
    )
    return before, now


async def test_one_shot_is_one_sample(world: World, meter: Meter) -> None:
    await world.run("sleep", name="web")
    reading = await meter.statistics.once("web", with_rates=False)
    assert (reading.name, seconds(reading)) == ("web", (None, 1))


async def test_rates_need_two_samples(world: World, meter: Meter) -> None:
    await world.run("sleep", name="web")
    meter.tick()
    assert seconds(await meter.statistics.once("web", with_rates=True)) == (1, 2)


async def test_a_container_that_does_not_run_has_nothing(world: World, meter: Meter) -> None:
    web = await world.run("sleep", name="web")
    world.task(web).end(0)
    await settle()
    assert seconds(await meter.statistics.once("web", with_rates=True)) == (None, None)
    assert meter.targets == []


async def test_an_unknown_container_is_refused(meter: Meter) -> None:
    with pytest.raises(NotFound, match="No such container: nope"):
        await meter.statistics.once("nope", with_rates=False)
    with pytest.raises(NotFound, match="No such container: nope"):
        meter.statistics.watch("nope")


async def test_all_watchers_are_served_by_one_measurement(world: World, meter: Meter) -> None:
    for name in ("one", "two"):
        await world.run("sleep", name=name, network_mode="none" if name == "two" else "bridge")
    watches = [meter.statistics.watch(name) for name in ("one", "one", "two")]
    first = [await anext(watch) for watch in watches]
    assert [seconds(reading) for reading in first] == [(None, 1)] * 3
    (targets,) = meter.targets
    assert sorted(target.own_network for target in targets.values()) == [False, True]
    meter.tick()
    assert [seconds(await anext(watch)) for watch in watches] == [(1, 2)] * 3
    for watch in watches:
        await watch.aclose()


async def test_nobody_watches_and_nothing_is_measured(world: World, meter: Meter) -> None:
    await world.run("sleep", name="web")
    watch = meter.statistics.watch("web")
    await anext(watch)
    await watch.aclose()
    meter.tick()
    await settle()
    assert len(meter.targets) == 1


async def test_a_slow_reader_gets_the_latest(world: World, meter: Meter) -> None:
    await world.run("sleep", name="web")
    watch = meter.statistics.watch("web")
    await anext(watch)
    for count in (2, 3, 4):
        meter.tick()
        await _measured(meter, count)
    assert seconds(await anext(watch)) == (3, 4)
    await watch.aclose()


async def _measured(meter: Meter, count: int) -> None:
    while len(meter.targets) < count:
        await asyncio.sleep(0)
    await settle()


async def test_a_watch_outlives_the_run_and_ends_with_the_container(world: World, meter: Meter) -> None:
    web = await world.run("sleep", name="web")
    watch = meter.statistics.watch("web")
    await anext(watch)
    world.task(web).end(0)
    await settle()
    meter.tick()
    assert seconds(await anext(watch)) == (None, None)
    await world.containers.remove("web")
    meter.tick()
    assert await _rest(watch) == []


async def _rest(watch: Watch) -> list[Reading]:
    return [reading async for reading in watch]


USAGE = Usage(
    group=Stats(
        cpu_total=5,
        cpu_each=(2, 3, 0, 0),
        memory_usage=1000,
        memory_peak=2000,
        memory_details={"cache": 1},
        pids=3,
        pids_limit=9,
        blkio_bytes=(BlockIo(major=8, minor=0, operation="Read", value=7),),
        blkio_operations=(BlockIo(major=8, minor=0, operation="Read", value=1),),
    ),
    networks={"eth0": Traffic(**dict.fromkeys(Traffic.__dataclass_fields__, 4))},
    host_cpu=100,
    cpus=2,
    unified=False,
)


def rendered(usage: Usage | None, version: tuple[int, int] = (1, 50)) -> dict[str, Any]:
    from sampan.engine.stats import Sample

    sample = None if usage is None else Sample(at=10**9, usage=usage)
    return render(Reading(container_id="c", name="web", now=sample), version, memory_total=1 << 30)


def test_the_shape_of_version_1() -> None:
    shown = rendered(USAGE)
    assert (shown["name"], shown["id"], shown["preread"]) == ("/web", "c", NEVER)
    assert shown["read"] == "1970-01-01T00:00:01Z"
    assert shown["cpu_stats"]["cpu_usage"]["percpu_usage"] == (2, 3)
    assert (shown["cpu_stats"]["system_cpu_usage"], shown["cpu_stats"]["online_cpus"]) == (100, 2)
    assert shown["memory_stats"] == {
        "usage": 1000,
        "max_usage": 2000,
        "stats": {"cache": 1},
        "limit": 1 << 30,
    }
    assert shown["pids_stats"] == {"current": 3, "limit": 9}
    assert shown["blkio_stats"]["io_service_bytes_recursive"] == [
        {"major": 8, "minor": 0, "op": "Read", "value": 7}
    ]
    assert shown["blkio_stats"]["sectors_recursive"] == ()
    assert shown["networks"]["eth0"]["rx_bytes"] == 4
    assert "os_type" not in shown
    assert rendered(USAGE, (1, 52))["os_type"] == "linux"


def test_the_shape_of_version_2() -> None:
    from dataclasses import replace

    group = replace(USAGE.group, cpu_each=(), memory_limit=500)
    shown = rendered(replace(USAGE, group=group, unified=True, networks={}))
    assert "percpu_usage" not in shown["cpu_stats"]["cpu_usage"]
    assert shown["memory_stats"] == {"usage": 1000, "stats": {"cache": 1}, "limit": 500}
    assert shown["blkio_stats"]["io_service_bytes_recursive"] == [
        {"major": 8, "minor": 0, "op": "read", "value": 7}
    ]
    assert shown["blkio_stats"]["io_serviced_recursive"] is None
    assert "networks" not in shown


def test_the_shape_of_nothing() -> None:
    shown = rendered(None)
    assert (shown["read"], shown["pids_stats"], shown["memory_stats"]) == (NEVER, {}, {})
    assert shown["cpu_stats"] == shown["precpu_stats"]
    assert shown["blkio_stats"]["io_service_bytes_recursive"] is None


def test_the_hosts_clock_and_interfaces_are_read() -> None:
    import os

    ticks = os.sysconf("SC_CLK_TCK")
    text = "cpu  1 2 3 4 5 6 7 800 900 0\ncpu0 1\ncpu1 1\nintr 5\ncpu9 1\n"
    assert host_clock(text) == (28 * 10**9 // ticks, 2)
    text = (
        "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop fifo frame|bytes\n"
        "    lo: 9 9 9 9 0 0 0 0 9 9 9 9 0 0 0 0\n"
        "  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n"
        "docker0: 9 9 9 9 0 0 0 0 9 9 9 9 0 0 0 0\n"
    )
    found = interfaces(text)
    assert list(found) == ["eth0"]
    assert (found["eth0"].rx_bytes, found["eth0"].tx_bytes, found["eth0"].tx_dropped) == (1, 5, 8)
