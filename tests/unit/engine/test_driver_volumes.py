"""Volumes that a plugin keeps, renamed ones and snapshots, on the real stores and a driver of the tests'."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.unit.engine.test_volumes import World
from tests.volume_driver import VolumeDriver, serving

from sampan import errors
from sampan.engine.model import Filters

Work = Callable[[World, VolumeDriver], Awaitable[None]]


def live(tmp_path: Path, work: Work) -> None:
    async def life() -> None:
        world = World(tmp_path)
        try:
            await world.volumes.start()
            with serving(tmp_path / "plugins" / "kept.sock", tmp_path / "theirs") as driver:
                await work(world, driver)
        finally:
            world.database.close()

    asyncio.run(life())


def test_life_of_a_drivers_volume(tmp_path: Path) -> None:
    async def work(world: World, driver: VolumeDriver) -> None:
        made = await world.volumes.create("vol", driver="kept", options={"a": "b"}, labels={"x": "y"})
        assert (made.driver, made.scope, driver.volumes) == ("kept", "global", {"vol": {"a": "b"}})
        assert world.volumes.mount_source("vol") == ""
        place = os.fspath(tmp_path / "theirs" / "vol")
        assert await world.volumes.hold("vol", "one") == place
        assert await world.volumes.hold("vol", "one") == place
        assert await world.volumes.hold("vol", "two") == place
        assert driver.mounts == {"vol": {"one", "two"}}
        assert driver.calls.count("Mount") == 2
        with pytest.raises(errors.Conflict, match="volume is in use"):
            await world.volumes.remove("vol", force=True)
        await world.volumes.release("one")
        await world.volumes.release("one")
        await world.volumes.release("two")
        assert driver.mounts == {"vol": set()}
        shown = await world.volumes.inspect("vol")
        assert (shown.mountpoint, shown.labels, shown.status) == (place, {"x": "y"}, {"kept": "well"})
        await world.volumes.remove("vol")
        assert driver.volumes == {}
        with pytest.raises(errors.NotFound, match=r"^get vol: no such volume$"):
            await world.volumes.inspect("vol")

    live(tmp_path, work)


def test_what_a_driver_refuses(tmp_path: Path) -> None:
    async def work(world: World, driver: VolumeDriver) -> None:
        with pytest.raises(errors.Conflict, match=r"^create vol: VolumeDriver.Create: bad option$"):
            await world.volumes.create("vol", driver="kept", options={"bad": "1"})
        assert world.names() == []
        await world.volumes.create("vol", driver="kept")
        with pytest.raises(errors.Conflict, match=r"^create vol: conflict: volume name must be unique$"):
            await world.volumes.create("vol", driver="local")
        assert (await world.volumes.create("vol")).driver == "kept"
        with pytest.raises(errors.Conflict, match="keeps its name"):
            await world.volumes.rename("vol", "other")
        del driver.volumes["vol"]
        with pytest.raises(errors.NotFound, match="no such volume"):
            await world.volumes.inspect("vol")
        with pytest.raises(errors.InvalidArgument, match=r"VolumeDriver.Mount: no such volume$"):
            await world.volumes.hold("vol", "me")
        assert world.marks() == {}
        await world.volumes.remove("vol")  # it is gone, and that was wanted
        assert world.names() == []

    live(tmp_path, work)


def test_what_drivers_have_is_listed_and_can_be_had(tmp_path: Path) -> None:
    async def work(world: World, driver: VolumeDriver) -> None:
        await world.volumes.create("ours")
        await world.volumes.create("known", driver="kept", labels={"a": "b"})
        driver.volumes["theirs"] = {}
        found, warnings = await world.volumes.survey()
        assert sorted(volume.name for volume in found) == ["known", "ours", "theirs"]
        assert warnings == []
        found, _ = await world.volumes.survey(Filters({"driver": ("kept",), "label": ("a=b",)}))
        assert [volume.name for volume in found] == ["known"]
        assert world.names() == ["ours", "known"]
        await world.volumes.inspect("theirs")
        assert world.names() == ["ours", "known", "theirs"]
        await world.volumes.prune(all_unused=True)
        assert sorted(driver.volumes) == ["known", "theirs"]
        driver.close()
        found, warnings = await world.volumes.survey()
        assert sorted(volume.name for volume in found) == ["known", "theirs"]
        assert len(warnings) == 1
        with pytest.raises(errors.Unavailable, match="Unable to connect to plugin"):
            await world.volumes.remove("known")
        await world.volumes.remove("known", force=True)
        assert world.names() == ["theirs"]
        await world.volumes.start()
        assert world.names() == ["theirs"]
        # For the end of the test.
        driver.__init__(driver.socket, driver.root)  # type: ignore[misc]

    live(tmp_path, work)


def test_what_a_killed_daemon_held_is_given_back(tmp_path: Path) -> None:
    async def work(world: World, driver: VolumeDriver) -> None:
        await world.volumes.create("vol", driver="kept")
        for holder in ("alive", "dead"):
            await world.volumes.hold("vol", holder)
        await world.volumes.create("gone", driver="kept")
        await world.volumes.hold("gone", "dead")
        again = World(tmp_path, database=world.database)
        await again.volumes.start()
        await again.volumes.settle(["alive"])
        assert driver.mounts == {"vol": {"alive"}, "gone": set()}
        assert again.marks() == {"vol": {"alive"}}
        with pytest.raises(errors.Conflict, match="in use"):
            await again.volumes.remove("vol")
        await again.volumes.release("alive")
        assert driver.mounts["vol"] == set()
        assert again.marks() == {}

    live(tmp_path, work)


def test_rename(tmp_path: Path) -> None:
    async def work(world: World, _driver: VolumeDriver) -> None:
        volume = await world.volumes.create("data", labels={"a": "b"})
        (Path(volume.mountpoint) / "file").write_text("precious")
        world.users["data"] = ["box"]
        with pytest.raises(errors.Conflict, match=r"^rename data: volume is in use - \[box\]$"):
            await world.volumes.rename("data", "other")
        world.users.clear()
        with world.volumes.busy("data"), pytest.raises(errors.Conflict, match="in use"):
            await world.volumes.rename("data", "other")
        renamed = await world.volumes.rename("data", "other")
        assert (Path(renamed.mountpoint) / "file").read_text() == "precious"
        assert world.names() == ["other"]
        assert world.volumes.get("other").labels == {"a": "b"}
        await world.volumes.create("data")
        for new in ("data", "x", "other", "../x"):
            with pytest.raises((errors.Conflict, errors.InvalidArgument)):
                await world.volumes.rename("other", new)

    live(tmp_path, work)
