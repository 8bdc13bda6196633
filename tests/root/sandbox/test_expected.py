"""A container that was expected, and others, on real namespaces."""

from __future__ import annotations

import asyncio
import glob
import os
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.root.boxes import FIRST_ID, Box

from sampan.sandbox import cgroups

if TYPE_CHECKING:
    from sampan.sandbox.messages import Launch
    from sampan.spec.runtime import Spec

pytestmark = pytest.mark.root


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(directory=tmp_path, private_users=True)


def groups(box: Box, name: str) -> list[str]:
    """The cgroups of a container that there are."""
    found = glob.glob(f"/sys/fs/cgroup/*{box.parent}/{name}")
    return found + glob.glob(f"/sys/fs/cgroup{box.parent}/{name}")


def waiting(box: Box, name: str) -> list[int]:
    """The processes in a container's cgroup."""
    found: list[int] = []
    for group in groups(box, name):
        with suppress(OSError):  # it goes meanwhile
            found += map(int, Path(group, "cgroup.procs").read_text().split())
    return found


async def expect(box: Box, launch: Launch) -> int:
    """Say what is expected; the pid of the process that waits once all is made."""
    await box.zygote.start()
    os.rmdir(launch.bundle)
    box.runtime.expect(launch)
    while not (pids := waiting(box, launch.id)) or not is_root(pids[0]):
        await asyncio.sleep(0)
    return pids[0]


def is_root(pid: int) -> bool:
    """Whether it has become root of its user namespace."""
    try:
        return f"\nUid:\t{FIRST_ID}\t" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


SCRIPT = (
    "id -u; hostname; echo $$; cat /proc/self/uid_map; ls -a /proc/self/fd /sys/class/net; "
    "grep -c '^[^ ]* /' /proc/mounts; umask; grep -E '^(Cap|NoNewPrivs|Seccomp)' /proc/self/status"
)


def test_what_was_expected_is_as_any_other(box: Box) -> None:
    async def work(box: Box) -> None:
        usual = await box.sh(SCRIPT, name="same")
        await box.runtime.settle()
        launch = box.launch("sh", "-c", SCRIPT, name="same")
        pid = await expect(box, launch)
        os.makedirs(launch.bundle, exist_ok=True)
        task, stream = await box.start(launch)
        assert task.pid == pid
        await stream.send(b"", end=True)
        assert (await stream.read()).decode().splitlines() == usual.lines
        assert (await task.exited).code == 0
        await task.released
        assert groups(box, "same") == []

    box.run(work)


def with_terminal(spec: Spec) -> None:
    spec["process"]["terminal"] = True


def test_output_input_and_a_terminal(box: Box) -> None:
    async def work(box: Box) -> None:
        launch = box.launch("sh", "-c", "cat; exit 3", open_stdin=True, stdin_once=True)
        await expect(box, replace(launch, open_stdin=False))
        result = await box.finish(launch, b"in and out")
        assert (result.output, result.exit.code) == (b"in and out", 3)
        launch = box.launch("tty", change=with_terminal)
        await expect(box, launch)
        assert (await box.finish(launch)).output == b"/dev/pts/0\r\n"

    box.run(work)


@pytest.mark.parametrize("program", ["/no/such", "/etc/passwd"])
def test_what_cannot_be_run_is_told_and_leaves_nothing(box: Box, program: str) -> None:
    async def work(box: Box) -> None:
        launch = box.launch(program, name="wrong")
        await expect(box, launch)
        with pytest.raises(Exception, match=f'exec: "{program}"'):
            await box.start(launch)
        assert groups(box, "wrong") == []
        assert (await box.sh("echo fine")).lines == ["fine"]

    box.run(work)


def test_another_container_is_started_as_ever_and_nothing_is_left(box: Box) -> None:
    async def work(box: Box) -> None:
        launch = box.launch("true", name="first")
        pid = await expect(box, launch)
        assert (await box.sh("echo other")).lines == ["other"]
        while groups(box, "first") or os.path.exists(launch.bundle):
            await asyncio.sleep(0)
        assert not os.path.exists(f"/proc/{pid}")

    box.run(work)


def test_starts_at_once_of_another_and_of_what_was_expected(box: Box) -> None:
    """The launcher that made the process is given the other one, and has the process's group to remove."""

    async def work(box: Box) -> None:
        for number in range(6):
            launch = box.launch("echo", "mine", name=f"first-{number}")
            await expect(box, launch)
            other, mine = await asyncio.gather(box.sh("echo other"), box.finish(launch))
            assert (other.lines, mine.lines) == (["other"], ["mine"])

    box.run(work)


def test_limits_that_were_not_expected_hold(box: Box) -> None:
    def limited(spec: Any) -> None:
        spec["linux"]["resources"]["pids"] = {"limit": 7}
        spec["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}]

    async def work(box: Box) -> None:
        await expect(box, box.launch("true", name="first"))
        launch = box.launch("sh", "-c", "ulimit -n; ulimit -Hn; sleep 100", name="first", change=limited)
        task, stream = await box.start(launch)
        assert await stream.read_until(b"60\n") == b"50\n60\n"
        (limit,) = {
            Path(path).read_text()
            for group in groups(box, "first")
            for path in glob.glob(f"{group}/pids.max")
        }
        assert limit == "7\n"
        await task.signal(signal.SIGKILL)
        await task.exited
        await stream.read()

    box.run(work)


def test_a_waiting_process_that_was_killed_is_not_counted_on(box: Box) -> None:
    async def work(box: Box) -> None:
        launch = box.launch("echo", "again", name="first")
        os.kill(await expect(box, launch), signal.SIGKILL)
        while waiting(box, "first"):
            await asyncio.sleep(0)
        os.makedirs(launch.bundle, exist_ok=True)
        assert (await box.finish(launch)).lines == ["again"]

    box.run(work)


def test_the_score_for_running_out_of_memory_is_the_containers_not_the_engines(box: Box) -> None:
    async def work(box: Box) -> None:
        await box.zygote.start()
        while len(standing := children(box.zygote.pid)) < 2:
            await asyncio.sleep(0)
        for pid in (*standing, *(child for each in standing for child in children(each))):
            Path(f"/proc/{pid}/oom_score_adj").write_text("300")
        for name, score in (("plain", 0), ("first", 700)):
            launch = box.launch("cat", "/proc/self/oom_score_adj", name=name)
            launch.spec["process"]["oomScoreAdj"] = score
            pid = await expect(box, launch)
            os.makedirs(launch.bundle, exist_ok=True)
            task, stream = await box.start(launch)
            assert task.pid == pid
            await stream.send(b"", end=True)
            assert await stream.read() == b"%d\n" % score
            await task.released

    box.run(work)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_what_a_killed_launcher_left_in_the_group_is_in_nobodys_way(box: Box) -> None:
    async def work(box: Box) -> None:
        await box.zygote.start()
        launch = box.launch("sh", "-c", "echo hi", name="late")
        cgroups.detect().group(launch.spec["linux"]["cgroupsPath"]).create({})
        left = await asyncio.create_subprocess_exec("sleep", "1000")
        for group in groups(box, "late"):
            Path(group, "cgroup.procs").write_text(str(left.pid))
        task, stream = await box.start(launch)
        assert await left.wait() == -signal.SIGKILL
        await stream.send(b"", end=True)
        assert await stream.read() == b"hi\n"
        assert (await task.exited).code == 0
        await task.released
        assert groups(box, "late") == []

    box.run(work)


def test_when_nobody_needs_it_it_goes_with_all_that_was_made(box: Box) -> None:
    launch = box.launch("true", name="first")

    async def work(box: Box) -> int:
        return await expect(box, launch)

    pid = box.run(work)

    async def gone() -> None:
        await box.zygote.gone()

    asyncio.run(gone())
    assert not os.path.exists(f"/proc/{pid}")
    assert groups(box, "first") == []
    assert not os.path.exists(launch.bundle)
