"""Directories of layers: what goes on with them in the background."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from sampan.images.directories import Directories
from sampan.sandbox.unpack import Limits


def test_draining_ends_also_when_a_removal_has_ended_just_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.12 waits for nobody then; a loop that never turns would never end."""

    async def act() -> None:
        gate = asyncio.Event()

        async def in_thread(*_: object) -> None:
            await gate.wait()

        async def closing() -> None:
            await gate.wait()
            await directories.drain()

        directories = Directories(str(tmp_path), limits=Limits(), run=None)
        monkeypatch.setattr(asyncio, "to_thread", in_thread)
        directories.discard((1,))
        await asyncio.sleep(0)
        drained = asyncio.create_task(closing())
        await asyncio.sleep(0)
        gate.set()
        await drained

    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(60)
    try:
        asyncio.run(act())
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def test_layers_that_wait_for_their_turn_are_counted(tmp_path: Path) -> None:
    async def act() -> None:
        gate = asyncio.Event()
        counts = []

        async def run(*_: object) -> dict[str, str]:
            await gate.wait()
            counts.append(directories.unpacking)
            return {}

        directories = Directories(str(tmp_path), limits=Limits(), run=run)
        many = range(1, 40)  # more than there are turns
        waiting = [asyncio.create_task(directories.unpack(number, 0, "")) for number in many]
        await asyncio.sleep(0)
        assert directories.unpacking == len(many)
        gate.set()
        await asyncio.gather(*waiting)
        assert max(counts) == len(many)
        assert directories.unpacking == 0

    asyncio.run(act())


def _too_long(_signal: int, _frame: object) -> None:
    raise TimeoutError("it never ends")
