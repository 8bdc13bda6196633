"""What a container may use and may do, measured and read back on real namespaces."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from sampan.sandbox import cgroups
from tests.root.boxes import Box

if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.spec.runtime import Spec

pytestmark = pytest.mark.root

MIB = 1 << 20


def limited(**resources: Any) -> Callable[[Spec], None]:
    def change(spec: Spec) -> None:
        spec["linux"]["resources"].update(resources)  # type: ignore[typeddict-item]

    return change


def test_a_memory_hog_is_killed_and_it_is_told(box: Box) -> None:
    async def work(box: Box) -> None:
        change = limited(memory={"limit": 32 * MIB, "swap": 32 * MIB})
        result = await box.finish(box.launch("tail", "/dev/zero", change=change))
        assert (result.exit.code, result.exit.oom_killed) == (137, True)

    box.run(work)


def test_half_a_processor_is_half_a_processor(box: Box) -> None:
    async def work(box: Box) -> None:
        launch = box.launch(
            "sh",
            "-c",
            "echo on; while :; do :; done",
            change=limited(cpu={"quota": 50_000, "period": 100_000}),
        )
        task, stream = await box.start(launch)
        await stream.read_until(b"on\n")
        group = cgroups.detect().group(launch.spec["linux"]["cgroupsPath"])
        began, used = time.monotonic(), group.stats().cpu_total
        while group.stats().cpu_total - used < 400_000_000:
            assert time.monotonic() - began < 20
        assert time.monotonic() - began > 0.6  # a whole processor needs 0.4 s for it
        await task.signal(9)
        await task.exited

    box.run(work)


def test_a_fork_bomb_stays_small(box: Box) -> None:
    async def work(box: Box) -> None:
        script = "i=0; while [ $i -lt 60 ]; do sleep 100 & i=$((i+1)); done; echo all"
        result = await box.sh(script, change=limited(pids={"limit": 30}))
        assert "can't fork" in result.output.decode()
        assert "all" not in result.lines

    box.run(work)


@pytest.mark.parametrize("device", ["b 254 0", "c 1 1", "c 10 200", "b 7 0"])
def test_other_devices_cannot_be_opened(box: Box, device: str) -> None:
    async def work(box: Box) -> None:
        attempt = f"{{ mknod /tmp/it {device} && head -c 1 /tmp/it; }} 2>/dev/null"
        script = f"{attempt}; echo $?; echo x >/dev/null && echo fine"
        result = await box.sh(script)
        assert result.lines[-2:] == ["1", "fine"]

    box.run(work)


def test_nothing_of_the_engine_is_open_or_told_inside(box: Box) -> None:
    async def work(box: Box) -> None:
        for init in (False, True):
            result = await box.sh("ls /proc/self/fd; env; tr '\\0' ' ' </proc/1/cmdline", init=init)
            # ls itself has its directory open
            assert result.lines[:4] == ["0", "1", "2", "3"]
            told = "\n".join(result.lines[4:])
            assert "python" not in told
            assert str(box.directory) not in told
            assert "LC_ALL" not in told

    box.run(work)
