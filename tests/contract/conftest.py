"""Suites that a fake and the real thing both have to pass; the real ones need root."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TypeAlias

import pytest

from sampan.engine.options import EngineOptions
from sampan.linux.diskspace import Space
from sampan.runtime.runtime import Runtime
from sampan.sandbox.messages import RootFilesystem
from tests.fakes.engine import World
from tests.root.boxes import Box

TIMEOUT = 30.0
"""Seconds after which a test that waits has failed."""

Engine: TypeAlias = Callable[[Callable[[World], Awaitable[None]]], None]
"""Runs a coroutine function against an engine, and takes the engine down."""


class BoxSnapshots:
    driver = "overlay2"

    """Writable layers over a box's busybox root."""

    def __init__(self, box: Box) -> None:
        self._layers = box.directory / "layers"

    async def prepare(self, key: str, image: object) -> RootFilesystem:
        for part in ("fs", "work"):
            (self._layers / key / part).mkdir(parents=True)
        return self.mounts(key)

    async def sync(self, key: str) -> None:
        pass

    def is_whole(self, key: str) -> bool:
        return (self._layers / key / "work").exists()

    async def complete(self, key: str, chain_id: object) -> None:
        await self.prepare(key, None)

    def layers(self, key: str) -> tuple[str, ...]:
        return (str(self._layers / "1/fs"),)

    def max_id(self, key: str) -> int:
        return 0

    def mounts(self, key: str) -> RootFilesystem:
        return RootFilesystem(base=str(self._layers), lowers=("1/fs",), upper=f"{key}/fs", work=f"{key}/work")

    async def remove(self, key: str, *, then: Callable[[], object] | None = None) -> None:
        shutil.rmtree(self._layers / key, ignore_errors=True)
        if then is not None:
            then()

    def keys(self) -> Iterable[str]:
        return [path.name for path in self._layers.iterdir() if path.name != "1"]

    async def usage(self, keys: Iterable[str]) -> dict[str, Space]:
        return dict.fromkeys(keys, Space())


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.root)])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    def on_fakes(work: Callable[[World], Awaitable[None]]) -> None:
        async def scenario() -> None:
            world = World(str(tmp_path))
            try:
                await asyncio.wait_for(work(world), TIMEOUT)
            finally:
                world.close()

        asyncio.run(scenario())

    def on_the_real_runtime(work: Callable[[World], Awaitable[None]]) -> None:
        box = Box(directory=tmp_path, private_users=False)

        async def scenario(box: Box) -> None:
            options = EngineOptions(cgroup_parent=box.parent)
            runtime = Runtime(box.zygote, str(tmp_path / "run/containers"))
            world = World(str(tmp_path), options=options, runtime=runtime, snapshots=BoxSnapshots(box))
            try:
                await work(world)
            finally:
                for instance in world.store:
                    await world.containers.remove(instance.id, force=True)
                await world.containers.settle()
                await runtime.settle()
                world.close()

        box.run(scenario)

    return on_fakes if request.param == "fake" else on_the_real_runtime
