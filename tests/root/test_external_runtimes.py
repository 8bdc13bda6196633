"""Containers that another OCI runtime runs in the place of ours: by runc, and by ours as one."""

from __future__ import annotations

import asyncio
import glob
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sampan.errors import StartFailed
from sampan.oci.container import start_time
from sampan.runtime.runtime import end_group
from sampan.sandbox import external
from sampan.sandbox.cgroups_files import mount_points
from sampan.sandbox.external_calls import Place
from sampan.sandbox.messages import ExternalRuntime, Launch
from tests.root.boxes import Box

if TYPE_CHECKING:
    from sampan.runtime.runtime import Task
    from sampan.spec.runtime import Process, Spec

pytestmark = pytest.mark.root

ENTRY = "import sys; from sampan.oci.entry import run_and_exit; run_and_exit(['oci', *sys.argv[1:]])"
RUNC = shutil.which("runc")
RUNTIMES = {
    "runc": ExternalRuntime(path=RUNC or "/nowhere/runc"),
    "sampan": ExternalRuntime(path=sys.executable, arguments=("-c", ENTRY)),
}


class OtherBox(Box):
    """A box whose containers are run by ``by``."""

    by: ExternalRuntime

    def launch(
        self, *args: str, name: str = "", change: Callable[[Spec], object] | None = None, **more: Any
    ) -> Launch:
        return super().launch(*args, name=name, change=change, runtime=self.by, **more)

    def traces(self) -> list[str]:
        with open("/proc/self/mountinfo") as file:
            left = [line for line in file if str(self.directory) in line]
        left += [path for mount in mount_points() for path in glob.glob(f"{mount}{self.parent}/*")]
        return left + glob.glob(f"{self.directory}/run/*/oci")


@pytest.fixture(params=[*RUNTIMES])
def box(request: pytest.FixtureRequest, tmp_path: Path) -> OtherBox:
    if request.param == "runc" and RUNC is None:
        pytest.skip("runc is not installed")
    made = OtherBox(directory=tmp_path, private_users=False)
    made.by = RUNTIMES[request.param]
    return made


def process(*args: str) -> Process:
    return {"args": list(args), "env": ["PATH=/bin"], "cwd": "/"}


async def execute(task: Task, *args: str, user: str | None = "", exec_id: str = "x") -> int:
    running = await task.exec(
        exec_id,
        process(*args),
        user=user,
        filtered=True,
        stdin=False,
        stream=None,
        detach_keys=None,
        console_size=None,
    )
    return await running.exited


def test_streams_identity_and_exit_code(box: OtherBox) -> None:
    async def work(box: Box) -> None:
        launch = box.launch("sh", "-c", "id -u; id -G; pwd; echo $HOME; echo err >&2; exit 7", user="fisher")
        launch.spec["process"]["cwd"] = "/made"
        result = await box.finish(launch, multiplex=True)
        assert result.exit.code == 7
        assert b"\x02\0\0\0\0\0\0\x04err\n" in result.output
        assert [part in result.output for part in (b"1000\n", b"1000 2000\n", b"/made\n", b"/tmp\n")] == [
            True
        ] * 4

    box.run(work)
    assert box.traces() == []


def test_input_reaches_it(box: OtherBox) -> None:
    async def work(box: Box) -> None:
        result = await box.finish(box.launch("cat", open_stdin=True, stdin_once=True), stdin=b"through")
        assert result.output == b"through"

    box.run(work)


def test_a_terminal_has_the_size_asked_for(box: OtherBox) -> None:
    async def work(box: Box) -> None:
        def terminal(spec: Spec) -> None:
            spec["process"]["terminal"] = True

        launch = box.launch("stty", "size", change=terminal, console_size=(33, 99))
        assert (await box.finish(launch)).output == b"33 99\r\n"

    box.run(work)
    assert box.traces() == []


def test_execs_signals_pause_and_the_end(box: OtherBox) -> None:
    async def work(box: Box) -> None:
        launch = box.launch("sh", "-c", "trap 'exit 9' TERM; echo up; while :; do sleep 0.02; done")
        task, stream = await box.start(launch)
        await stream.read_until(b"up\n")
        assert await execute(task, "sh", "-c", "exit $(id -u)") == 0
        assert await execute(task, "sh", "-c", "[ $(id -u) = 1000 ] && exit 5", user="fisher") == 5
        with pytest.raises(StartFailed, match='exec: "nosuch": executable file not found') as caught:
            await execute(task, "nosuch")
        assert caught.value.exit_code == 127
        with pytest.raises(StartFailed, match="unable to find user nobody"):
            await execute(task, "id", user="nobody")
        await task.pause()
        await task.resume()
        await task.signal(signal.SIGTERM)
        assert (await task.exited).code == 9
        await stream.read()

    box.run(work)
    assert box.traces() == []


def test_a_program_that_is_not_there(box: OtherBox) -> None:
    async def work(box: Box) -> None:
        with pytest.raises(StartFailed, match='exec: "nosuch": executable file not found in ') as caught:
            await box.start(box.launch("nosuch"))
        assert caught.value.exit_code == 127

    box.run(work)
    assert box.traces() == []


def test_a_runtime_that_is_not_there(box: OtherBox) -> None:
    async def work(box: Box) -> None:
        with pytest.raises(StartFailed, match="runtime that is not there create ended with 127"):
            await box.start(box.launch("true"))

    box.by = ExternalRuntime(path="/runtime that is not there")
    box.run(work)
    assert box.traces() == []


def test_what_the_host_does_not_allow_is_cut_to_what_it_does(box: OtherBox) -> None:
    def high(spec: Spec) -> None:
        # What the kernel allows at most, to whoever may raise it: above it runc gives up, as under Docker.
        most = int(Path("/proc/sys/fs/nr_open").read_text())
        spec["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": most, "hard": most}]

    async def work(box: Box) -> None:
        result = await box.finish(box.launch("sh", "-c", "ulimit -n", change=high))
        assert int(result.lines[0]) > 0

    box.run(work)


def test_binds_below_a_volume_that_lead_out_are_not_followed(box: OtherBox, tmp_path: Path) -> None:
    (tmp_path / "volume/inner").mkdir(parents=True)
    (tmp_path / "volume/inner/file").write_text("mine")

    def below(spec: Spec) -> None:
        source = str(tmp_path / "volume")
        mount: Any = {"destination": "/v", "type": "bind", "source": source, "options": ["rbind"]}
        mount["subpath"] = "inner"
        spec["mounts"].append(mount)

    async def work(box: Box) -> None:
        assert (await box.finish(box.launch("cat", "/v/file", change=below))).output == b"mine"

    box.run(work)
    assert box.traces() == []


@pytest.mark.parametrize("victim", ["keeper", "zygote and keeper"])
def test_nothing_is_left_of_a_container_whose_keeper_was_killed(box: OtherBox, victim: str) -> None:
    async def work(box: Box) -> None:
        launch = box.launch("sh", "-c", "echo up; exec sleep 100")
        task, stream = await box.start(launch)
        await stream.read_until(b"up\n")
        keeper = int(Path(f"/proc/{task.pid}/stat").read_text().rpartition(")")[2].split()[1])
        if victim != "keeper":
            os.kill(box.zygote.pid, signal.SIGKILL)
        os.kill(keeper, signal.SIGKILL)
        assert (await task.exited).code == 137
        external.clear(launch.bundle)
        assert start_time(task.pid) == ""

    box.run(work)
    assert box.traces() == []


def test_a_start_that_was_cut_short_does_not_hinder_the_next(box: OtherBox) -> None:
    async def work(box: Box) -> None:
        launch = box.launch("true", name="again")
        place = Place(launch.bundle)
        place.make(launch)
        Path(place.state, "again").mkdir()
        Path(place.state, "again", "rest").write_text("")
        result = await asyncio.wait_for(box.finish(launch), 20)
        assert result.exit.code == 0

    box.run(work)
    assert box.traces() == []


@pytest.mark.parametrize(
    "victims", ["$PPID", "$(cut -d' ' -f4 /proc/$PPID/stat) $PPID"], ids=["launcher", "both"]
)
def test_a_launcher_that_is_killed_leaves_what_is_cleared(tmp_path: Path, victims: str) -> None:
    box = OtherBox(directory=tmp_path, private_users=False)
    script = tmp_path / "runtime"
    script.write_text(f"#!/bin/sh\ncase $* in *create*) kill -9 {victims}; sleep 100;; esac\n")
    script.chmod(0o755)
    box.by = ExternalRuntime(path=str(script))

    async def work(box: Box) -> None:
        launch = box.launch("true")
        # Who dies first decides what is heard: the zygote ends what a dead keeper was about to keep.
        with pytest.raises(StartFailed, match=r"its keeper ended without a word|create ended with 137"):
            await box.start(launch)
        end_group(launch.spec["linux"]["cgroupsPath"])
        external.clear(launch.bundle)

    box.run(work)
    assert box.traces() == []
    found = subprocess.run(["pgrep", "-f", str(script)], capture_output=True, text=True, check=False)
    assert found.stdout == ""
