"""Containers, images and clients that mean harm, against the runtime on real namespaces."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sampan.errors import StartFailed
from sampan.sandbox import cgroups
from tests.root.boxes import Box, Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.spec.runtime import Spec

pytestmark = pytest.mark.root

EXEC: dict[str, Any] = {
    "user": None,
    "filtered": True,
    "stdin": False,
    "detach_keys": None,
    "console_size": None,
}


def test_an_exec_into_a_frozen_container_is_refused_and_blocks_nobody(box: Box) -> None:
    async def work(box: Box) -> None:
        launch = box.launch("cat", open_stdin=True)
        task, stream = await box.start(launch)
        group = cgroups.detect().group(launch.spec["linux"]["cgroupsPath"])
        assert group.freeze()  # by somebody else: the engine does not know
        process = {**launch.spec["process"], "args": ["true"]}
        with pytest.raises(StartFailed, match="the container is paused"):
            await task.exec("e1", process, stream=Stream(), **EXEC)  # type: ignore[arg-type]
        assert group.thaw()
        await stream.send(b"still here\n")
        assert await stream.read_until(b"here\n") == b"still here\n"
        running = await task.exec("e2", process, stream=Stream(), **EXEC)  # type: ignore[arg-type]
        assert await running.exited == 0
        await task.signal(9)
        assert (await task.exited).code == 137

    box.run(work)


def test_init_gives_the_terminal_to_the_program(box: Box) -> None:
    async def work(box: Box) -> None:
        def change(spec: Spec) -> None:
            spec["process"]["terminal"] = True

        launch = box.launch(
            "sh", "-c", "echo in front; read x; exit 3", change=change, init=True, open_stdin=True
        )
        task, stream = await box.start(launch)
        await stream.read_until(b"in front")
        await stream.send(b"go on\n")
        assert (await task.exited).code == 3

    box.run(work)


@pytest.mark.parametrize(
    "place", ["/proc", "/proc/sys", "/proc/self/attr", "/led", "/led/1", "/sys/../proc/sys"]
)
def test_nothing_takes_the_place_of_proc(box: Box, place: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()

    async def work(box: Box) -> None:
        (box.image / "led").symlink_to("/proc")
        with pytest.raises(StartFailed, match="inside /proc"):
            await box.start(box.launch("true", change=bound(mine, place)))

    box.run(work)


def test_some_files_of_proc_may_be_covered(box: Box, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("forever")

    async def work(box: Box) -> None:
        launch = box.launch("cat", "/proc/uptime", change=bound(mine, "/proc/uptime"))
        assert (await box.finish(launch)).output == b"forever"

    box.run(work)


def bound(source: Path, destination: str) -> Callable[[Spec], None]:
    def change(spec: Spec) -> None:
        spec["mounts"].append(
            {"destination": destination, "type": "bind", "source": str(source), "options": ["rbind"]}
        )

    return change
