"""Volumes as a user sees them, on the real local driver."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from sampan import errors
from sampan.engine.model import Event, Filters
from sampan.engine.model.volumes import ANONYMOUS_LABEL, Volume
from sampan.engine.volumes import Volumes
from sampan.plugins.calling import Timing
from sampan.state import Database
from sampan.volumes import LocalVolumes
from sampan.volumes.mounting import Marks
from sampan.volumes.plugins import Plugins

T = TypeVar("T")
TIMING = Timing(patience=0.2, short=5, long=5)


class World:
    def __init__(self, root: Path, *, database: Database | None = None) -> None:
        self.users: dict[str, list[str]] = {}
        self.events: list[Event] = []
        self.database = database or Database.open(os.fspath(root / "state.db"))
        self.marks = Marks(os.fspath(root / "marks")).all
        self.local = LocalVolumes(directory=os.fspath(root / "volumes"), database=self.database)
        self.volumes = Volumes(
            local=self.local,
            plugins=Plugins(sockets=os.fspath(root / "plugins"), specs=(), timing=TIMING),
            marks=Marks(os.fspath(root / "marks")),
            users=self.users_of,
            publish=self.events.append,
        )

    def users_of(self, name: str) -> Sequence[str]:
        return self.users.get(name, ())

    def told(self) -> list[tuple[str, str]]:
        return [(event.action, event.actor_id) for event in self.events]

    def names(self, **filters: str) -> list[str]:
        wanted = Filters({key: (value,) for key, value in filters.items()})
        return [volume.name for volume in self.volumes.list(wanted)]


Run = Callable[[Callable[[World], Awaitable[T]]], T]


@pytest.fixture
def run(tmp_path: Path) -> Run[None]:
    def start(work: Callable[[World], Awaitable[None]]) -> None:
        async def life() -> None:
            world = World(tmp_path)
            try:
                await world.volumes.start()
                await work(world)
            finally:
                world.database.close()

        asyncio.run(life())

    return start


def test_create_is_idempotent(run: Run[None]) -> None:
    async def work(world: World) -> None:
        first = await world.volumes.create("data", labels={"a": "b"})
        again = await world.volumes.create("data", labels={"c": "d"})
        assert first == again == world.volumes.get("data")
        assert os.path.isdir(first.mountpoint)
        assert world.volumes.mount_source("data") == first.mountpoint
        assert world.told() == [("create", "data")]
        assert world.events[0].attributes == {"driver": "local"}

    run(work)


def test_racing_creations_make_one(run: Run[None]) -> None:
    async def work(world: World) -> None:
        made = await asyncio.gather(*(world.volumes.create("data") for _ in range(8)))
        assert len(set(map(id, made))) == 1
        assert world.told() == [("create", "data")]

    run(work)


def test_anonymous_volumes(run: Run[None]) -> None:
    async def work(world: World) -> None:
        name = await world.volumes.ensure(None)
        assert len(name) == 64
        assert world.volumes.get(name).labels == {ANONYMOUS_LABEL: ""}
        assert await world.volumes.ensure("named") == "named"
        assert world.volumes.get("named").labels is None

    run(work)


def test_refusals(run: Run[None]) -> None:
    async def work(world: World) -> None:
        with pytest.raises(errors.NotFound) as missing:
            await world.volumes.create("data", driver="nfs")
        assert str(missing.value) == (
            'create data: error looking up volume plugin nfs: plugin "nfs" not found'
        )
        with pytest.raises(errors.InvalidArgument) as bad:
            await world.volumes.create("data", options={"foo": "bar"})
        assert str(bad.value) == 'create data: invalid option: "foo"'
        with pytest.raises(errors.InvalidArgument) as bad:
            await world.volumes.create("data", options={"type": "tmpfs"})
        assert str(bad.value) == 'create data: missing required option: "device"'
        with pytest.raises(errors.InvalidArgument) as bad:
            await world.volumes.create("data", options={"size": "1g"})
        assert str(bad.value) == "create data: quota size requested but no quota support"
        with pytest.raises(errors.NotFound, match=r"^get data: no such volume$"):
            world.volumes.get("data")
        with pytest.raises(errors.InvalidArgument, match="too short"):
            await world.volumes.create("x")
        assert world.names() == []

    run(work)


def test_removal(run: Run[None]) -> None:
    async def work(world: World) -> None:
        volume = await world.volumes.create("data")
        Path(volume.mountpoint, "file").touch()
        world.users["data"] = ["aaa", "bbb"]
        for force in (False, True):
            with pytest.raises(errors.Conflict, match=r"^remove data: volume is in use - \[aaa, bbb\]$"):
                await world.volumes.remove("data", force=force)
        world.users.clear()
        await world.volumes.remove("data")
        assert os.listdir(world.local.directory) == []
        assert world.told() == [("create", "data"), ("destroy", "data")]
        with pytest.raises(errors.NotFound, match=r"^get data: no such volume$"):
            await world.volumes.remove("data")
        await world.volumes.remove("data", force=True)

    run(work)


def test_racing_removals_answer_truly(run: Run[None]) -> None:
    async def work(world: World) -> None:
        await world.volumes.create("data")
        answers = await asyncio.gather(
            *(world.volumes.remove("data") for _ in range(4)), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [type(None)] + [errors.NotFound] * 3

    run(work)


def test_filters(run: Run[None]) -> None:
    async def work(world: World) -> None:
        await world.volumes.create("used-data", labels={"stage": "test"})
        await world.volumes.create("free-data", labels={"stage": "live"})
        world.users["used-data"] = ["aaa"]
        assert world.names() == ["used-data", "free-data"]
        assert world.names(dangling="true") == ["free-data"]
        assert world.names(dangling="0") == ["used-data"]
        assert world.names(name="free") == world.names(name="^fr") == ["free-data"]
        assert world.names(name="[") == []
        assert world.names(label="stage") == ["used-data", "free-data"]
        assert world.names(label="stage=live") == ["free-data"]
        assert world.names(driver="local") == ["used-data", "free-data"]
        assert world.names(driver="nfs") == []
        with pytest.raises(errors.InvalidArgument, match="invalid filter 'colour'"):
            world.names(colour="red")
        with pytest.raises(errors.InvalidArgument, match="invalid filter 'dangling="):
            world.names(dangling="perhaps")

    run(work)


def on_disk(volume: Volume, name: str) -> int:
    return os.stat(f"{volume.mountpoint}/{name}").st_blocks * 512


def test_prune_takes_anonymous_volumes_only(run: Run[None]) -> None:
    async def work(world: World) -> None:
        named, used = await world.volumes.create("named"), await world.volumes.create()
        unused = await world.volumes.create(labels={"keep": ""})
        Path(unused.mountpoint, "file").write_bytes(bytes(1234))
        taken = on_disk(unused, "file")
        world.users[used.name] = ["aaa"]
        assert (await world.volumes.prune(Filters({"label!": ("keep",)}))).ids == ()
        pruned = await world.volumes.prune()
        assert (pruned.ids, pruned.space_reclaimed) == ((unused.name,), taken)
        assert world.names() == [named.name, used.name]
        assert world.events[-1].attributes == {"reclaimed": str(taken)}
        assert (await world.volumes.prune(Filters({"all": ("1",)}))).ids == ("named",)
        world.users.clear()
        assert (await world.volumes.prune(all_unused=True)).ids == (used.name,)

    run(work)


def test_usage(run: Run[None]) -> None:
    async def work(world: World) -> None:
        volume = await world.volumes.create("data")
        Path(volume.mountpoint, "file").write_bytes(bytes(10))
        world.users["data"] = ["aaa", "bbb"]
        (usage,) = await world.volumes.usage()
        taken = on_disk(volume, "file")
        assert (usage.volume, usage.size, usage.references) == (volume, taken, 2)

    run(work)


def test_they_outlive_the_daemon(run: Run[None]) -> None:
    async def first(world: World) -> None:
        await world.volumes.create("data", labels={"a": "b"})

    async def second(world: World) -> None:
        assert world.volumes.get("data").labels == {"a": "b"}
        assert world.told() == []

    run(first)
    run(second)
