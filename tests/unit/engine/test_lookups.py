"""Listing by state and filters, and pruning."""

from __future__ import annotations

from typing import Any

import pytest
from tests.fakes.engine import World, settle

from sampan.engine.lookups import moment
from sampan.engine.model import ContainerConfig, Filters, HostConfig, ListQuery, NetworkingConfig
from sampan.errors import InvalidArgument, NotFound


async def names(world: World, *, everything: bool = True, limit: int = 0, **filters: Any) -> list[str]:
    wanted = Filters({key.replace("_", "-"): value for key, value in filters.items()})
    query = ListQuery(all=everything, limit=limit, filters=wanted)
    return [found.name for found in await world.containers.list(query)]


async def populate(world: World) -> None:
    """In this order: up (running), frozen (paused), done (exited 3), new (created, labelled)."""
    await world.run("sleep", name="up", binds=("data:/data",))
    await world.run("sleep", name="frozen")
    await world.containers.pause("frozen")
    done = await world.run("sleep", name="done", network_mode="none")
    world.task(done).end(3)
    await settle()
    config = ContainerConfig(image="base", cmd=("x",), labels={"tier": "front"}, exposed_ports={"80/tcp": {}})
    await world.containers.create("new", config, HostConfig(), NetworkingConfig())


async def test_listing_is_newest_first_and_running_by_default(world: World) -> None:
    await populate(world)
    assert await names(world) == ["new", "done", "frozen", "up"]
    assert await names(world, everything=False) == ["frozen", "up"]
    assert await names(world, everything=False, limit=2) == ["new", "done"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"status": ("exited",)}, ["done"]),
        ({"status": ("running", "paused")}, ["frozen", "up"]),
        ({"exited": ("3",)}, ["done"]),
        ({"exited": ("0",)}, []),
        ({"name": ("o",)}, ["done", "frozen"]),
        ({"name": ("^/up$",)}, ["up"]),
        ({"name": ("[",)}, []),
        ({"label": ("tier",)}, ["new"]),
        ({"label": ("tier=back",)}, []),
        ({"before": ("done",)}, ["frozen", "up"]),
        ({"since": ("done",)}, ["new"]),
        ({"volume": ("data",)}, ["up"]),
        ({"volume": ("/data",)}, ["up"]),
        ({"network": ("none",)}, ["done"]),
        ({"ancestor": ("base",)}, ["new", "done", "frozen", "up"]),
        ({"ancestor": ("other",)}, []),
        ({"expose": ("80",)}, []),
        ({"network": ("bridge",)}, ["new", "frozen", "up"]),
        ({"publish": ("80",)}, []),
        ({"health": ("none",)}, ["new", "done", "frozen", "up"]),
        ({"is_task": ("true",)}, []),
        ({"status": ("running",), "name": ("frozen",)}, []),
    ],
)
async def test_filters(world: World, filters: dict[str, Any], expected: list[str]) -> None:
    await populate(world)
    assert await names(world, **filters) == expected


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("80", ["open"]), ("79-81/tcp", ["open"]), ("80/udp", []), ("81", []), ("53/udp", ["open"])],
)
async def test_what_a_running_container_exposes(world: World, wanted: str, expected: list[str]) -> None:
    await populate(world)
    ports: dict[str, dict[str, str]] = {"80/tcp": {}, "53/udp": {}}
    config = ContainerConfig(image="base", cmd=("sleep",), exposed_ports=ports)
    await world.containers.create("open", config, HostConfig(), NetworkingConfig())
    assert await names(world, expose=(wanted,)) == []
    await world.containers.start("open")
    assert await names(world, expose=(wanted,)) == expected


async def test_status_and_exited_look_at_all_containers(world: World) -> None:
    await populate(world)
    assert await names(world, everything=False, status=("created",)) == ["new"]
    assert await names(world, everything=False, exited=("3",)) == ["done"]


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ({"odd": ("1",)}, "invalid filter 'odd'"),
        ({"status": ("odd",)}, "invalid filter 'status=odd'"),
        ({"health": ("odd",)}, "Unrecognised filter value for health: odd"),
        ({"exited": ("x",)}, 'strconv.Atoi: parsing "x": invalid syntax'),
        (
            {"expose": ("x",)},
            'error while looking up for expose x: strconv.ParseUint: parsing "x": invalid syntax',
        ),
        ({"publish": ("70000",)}, 'publish 70000: strconv.ParseUint: parsing "70000": value out of range'),
        ({"expose": ("9-8",)}, "expose 9-8: invalid range specified for port: 9-8"),
        ({"publish": ("1:2",)}, "filter for 'publish' should not contain ':': 1:2"),
        ({"is-task": ("yes",)}, "invalid filter 'is-task=[yes]'"),
    ],
)
async def test_bad_filters_are_refused(world: World, filters: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await names(world, **filters)
    assert words in str(refused.value)


async def test_a_neighbour_that_is_not_there_is_said(world: World) -> None:
    with pytest.raises(NotFound, match="no such container nope"):
        await names(world, before=("nope",))


async def test_prune_takes_what_does_not_run_and_says_what_it_freed(world: World) -> None:
    await populate(world)
    pruned = await world.containers.prune(Filters())
    assert len(pruned.ids) == 2
    assert pruned.space_reclaimed == 2 * 4096
    assert await names(world) == ["frozen", "up"]


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ({"label": ("tier=front",)}, ["done", "frozen", "up"]),
        ({"label!": ("tier=front",)}, ["new", "frozen", "up"]),
        ({"until": ("24h",)}, ["new", "done", "frozen", "up"]),
        ({"until": ("2300000000",)}, ["frozen", "up"]),
    ],
)
async def test_prune_filters(world: World, filters: dict[str, Any], left: list[str]) -> None:
    await populate(world)
    await world.containers.prune(Filters(filters))
    assert await names(world) == left


async def test_prune_refuses_other_filters(world: World) -> None:
    with pytest.raises(InvalidArgument, match="invalid filter 'name'"):
        await world.containers.prune(Filters({"name": ("x",)}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1h30m", 10_000 * 10**9 - 5400 * 10**9),
        ("10s", 9_990 * 10**9),
        ("1700000000", 1_700_000_000 * 10**9),
        ("1700000000.5", 1_700_000_000_500_000_000),
        ("2023-11-14T22:13:20Z", 1_700_000_000 * 10**9),
    ],
)
def test_moments(text: str, expected: int) -> None:
    assert moment(text, 10_000 * 10**9) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "inf", "5x"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="failed to parse value as time or duration"):
        moment(text, 0)
