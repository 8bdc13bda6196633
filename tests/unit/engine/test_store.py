"""What the store does when the host does not let it write."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest
from msgspec.structs import replace
from tests.fakes.engine import World

from sampan.engine import store
from sampan.engine.model import ContainerState, Status


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PAUSE", 0.0)


async def test_a_state_that_a_full_disk_refused_is_recorded_when_there_is_room(world: World) -> None:
    web = await world.create("true")
    instance = world.store.find(web)
    pages = await world.database.write(_pages)
    await world.database.write(lambda db: _limit(db, pages))
    long = ContainerState(status=Status.EXITED, exit_code=3, error="x" * 100_000)
    world.store.update(instance, replace(instance.container, state=long))
    await world.store.recorded()
    assert _recorded(world, web) == 0
    await world.database.write(lambda db: _limit(db, 1 << 20))
    while _recorded(world, web) != 3:
        await asyncio.sleep(0)


async def test_a_removal_that_was_refused_is_not_undone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = await world.create("true")
    instance = world.store.find(web)
    pages = await world.database.write(_pages)
    await world.database.write(lambda db: _limit(db, pages))
    long = ContainerState(status=Status.EXITED, exit_code=3, error="x" * 100_000)
    world.store.update(instance, replace(instance.container, state=long))
    world.store.withdraw(instance)
    await world.store.forget(web, durable=False)
    await world.database.write(lambda db: _limit(db, 1 << 20))
    for _ in range(10):
        await asyncio.sleep(0)
        await world.store.recorded()
    assert _recorded(world, web) is None


def _pages(db: sqlite3.Connection) -> int:
    found: int = db.execute("PRAGMA page_count").fetchone()[0]
    return found


def _limit(db: sqlite3.Connection, pages: int) -> None:
    db.execute(f"PRAGMA max_page_count={pages}")


def _recorded(world: World, container_id: str) -> int | None:
    """The exit code in the container's record; None without one."""
    others = store.ContainerStore(world.database)
    found = {instance.id: instance for instance in others.load("/data")}
    return found[container_id].state.exit_code if container_id in found else None
