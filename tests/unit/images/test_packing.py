"""Packing: an archive of some size is unpacked while it is made, and nothing of it stays that nobody took."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import Internal
from sampan.images.blobs import BlobStore
from sampan.images.directories import Directories
from sampan.images.packing import Packed, packed
from sampan.sandbox.messages import RootFilesystem
from sampan.sandbox.source import Source
from sampan.sandbox.unpack import Limits

ROOT = RootFilesystem(base="/nowhere", lowers=(), upper="u", work="w")


class World:
    """A store whose archives are ``size`` bytes, made as they are asked for and "unpacked" by counting."""

    def __init__(self, place: Path, size: int) -> None:
        self.blobs = BlobStore(f"{place}/blobs", f"{place}/tmp")
        self.layers = f"{place}/layers"
        self.directories = Directories(self.layers, limits=Limits(), run=self._unpack)
        self.size = size
        self.counted: list[int] = []
        self.fails = False

    async def _unpack(
        self, _request: Mapping[str, Any], archive: int, _directory: str, pace: int | None = None
    ) -> Any:
        assert pace is not None
        source = Source(archive, pace=pace)
        await asyncio.to_thread(source.finish)
        self.counted.append(source.taken)
        return {"unpacked": {"size": 0, "entries": 0, "max_uid": 0, "max_gid": 0, "implied": []}}

    async def _pack(self, root: RootFilesystem, take: Callable[[int], None]) -> None:
        assert root is ROOT
        read, write = os.pipe()
        taking = asyncio.ensure_future(asyncio.to_thread(take, read))
        with os.fdopen(write, "wb") as file:
            await asyncio.to_thread(file.write, b"x" * self.size)
        await taking
        if self.fails:
            raise Internal("packing failed")

    async def commit(self, taker: Callable[[Packed], None]) -> None:
        try:
            async with packed(self.blobs, ROOT, self.directories, self._pack) as layer:
                assert layer.part.size == self.size
                if layer.early is not None:
                    await layer.early.task
                taker(layer)
        finally:
            await self.directories.drain()


def test_a_small_one_is_not(tmp_path: Path) -> None:
    world, seen = World(tmp_path, 1000), list[Packed]()
    asyncio.run(world.commit(seen.append))
    assert (seen[0].early, world.counted, os.listdir(world.layers)) == (None, [], [])


def test_a_large_one_is_to_its_end(tmp_path: Path) -> None:
    world = World(tmp_path, 3_000_001)

    def take(layer: Packed) -> None:
        assert layer.early is not None
        layer.early.taken = True

    asyncio.run(world.commit(take))
    assert world.counted == [3_000_001]
    assert os.listdir(world.layers) == ["1"]
    assert os.listdir(tmp_path / "tmp") == []


@pytest.mark.parametrize("fails", [False, True])
def test_what_nobody_takes_is_gone(tmp_path: Path, fails: bool) -> None:
    world = World(tmp_path, 3_000_001)
    world.fails = fails
    if fails:
        with pytest.raises(Internal):
            asyncio.run(world.commit(lambda _: None))
    else:
        asyncio.run(world.commit(lambda _: None))
    assert (os.listdir(world.layers), os.listdir(tmp_path / "tmp")) == ([], [])
