"""What was expected and did not come is cleared away, and no start runs into that."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sampan.runtime import runtime
from sampan.runtime.runtime import Runtime
from sampan.sandbox.messages import Launch, RootFilesystem
from sampan.spec.runtime import default_spec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest


class Told:
    """Stands for the zygote: hears what is expected."""

    def tell(self, document: bytes, fds: Sequence[int]) -> None:
        return


class Starting(Runtime):
    """Notes what it would launch."""

    def __init__(self, bundles: Path) -> None:
        super().__init__(Told(), str(bundles))  # type: ignore[arg-type]
        self.launched: list[str] = []

    async def _launch(self, launch: Launch, _: Any) -> Any:
        self.launched.append(launch.id)


def launch_of(bundles: Path, name: str) -> Launch:
    launch = Launch(
        id=name,
        bundle=str(bundles / name),
        state="",
        spec=default_spec(),
        root=RootFilesystem(base="", lowers=("",), upper="", work=""),
        log=None,
    )
    launch.spec["linux"]["cgroupsPath"] = f"/{name}"
    return launch


def test_a_start_waits_for_all_that_it_is_held_back_for(tmp_path: Path) -> None:
    async def work() -> None:
        starting = Starting(tmp_path)
        loop = asyncio.get_running_loop()
        clearing, giving_up = loop.create_future(), loop.create_future()
        starting._clearing(("web",), clearing)
        starting._clearing(("web",), giving_up)
        start = loop.create_task(starting.launch(launch_of(tmp_path, "web"), ()))
        giving_up.set_result(None)
        for _ in range(5):
            await asyncio.sleep(0)
        assert starting.launched == []
        clearing.set_result(None)
        await start
        assert starting.launched == ["web"]

    asyncio.run(work())


def test_what_a_slow_launcher_made_late_is_cleared_away_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleared: list[tuple[str, str]] = []
    monkeypatch.setattr(runtime, "clear_ahead", lambda *of: cleared.append(of))

    async def work() -> None:
        starting = Starting(tmp_path)
        for name in ("one", "two"):
            starting.expect(launch_of(tmp_path, name))
        (tmp_path / "one").mkdir()  # only now
        starting.expect(launch_of(tmp_path, "three"))
        await starting.launch(launch_of(tmp_path, "one"), ())
        assert cleared == [(str(tmp_path / "one"), "/one")]

    asyncio.run(work())
