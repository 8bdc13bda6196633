"""The runtime on real namespaces, with and without a private user namespace."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sampan.errors import StartFailed
from sampan.linux import kernel
from sampan.runtime.runtime import Runtime
from sampan.runtime.zygote import Zygote
from sampan.sandbox.hostmounts import OverlayRoot
from sampan.sandbox.messages import AttachOptions, RootFilesystem
from tests.root.boxes import FIRST_ID, Box, Stream

if TYPE_CHECKING:
    from sampan.spec.runtime import Spec

pytestmark = pytest.mark.root


def test_streams_stay_apart_and_the_exit_code_is_the_programs(box: Box) -> None:
    async def work(box: Box) -> None:
        launch = box.launch("sh", "-c", "echo out; echo err >&2; exit 7")
        result = await box.finish(launch, multiplex=True)
        assert result.exit.code == 7
        assert b"\x01\0\0\0\0\0\0\x04out\n" in result.output
        assert b"\x02\0\0\0\0\0\0\x04err\n" in result.output
        records = [json.loads(line) for line in Path(launch.log.path).read_text().splitlines()]  # type: ignore[union-attr]
        assert {(r["stream"], r["log"]) for r in records} == {("stdout", "out\n"), ("stderr", "err\n")}
        assert json.loads(Path(launch.state, "exit.json").read_text())["code"] == 7

    box.run(work)


def test_every_namespace_is_its_own(box: Box) -> None:
    async def work(box: Box) -> None:
        result = await box.sh(
            "for n in mnt pid ipc uts net cgroup; do readlink /proc/self/ns/$n; done; echo $$"
        )
        kinds = ("mnt", "pid", "ipc", "uts", "net", "cgroup")
        for kind, line in zip(kinds, result.lines, strict=False):
            assert line != os.readlink(f"/proc/self/ns/{kind}")
        assert result.lines[-1] == "1"

    box.run(work)


def test_identity_capabilities_and_hostname(box: Box) -> None:
    async def work(box: Box) -> None:
        result = await box.sh(
            "id -u; hostname; grep CapBnd /proc/self/status; cat /proc/self/uid_map", name="abc"
        )
        assert result.lines[:2] == ["0", "abc"]
        assert result.lines[2].split()[1] == "00000000a80425fb"
        mapped = result.lines[3].split()[1]
        assert mapped == (str(FIRST_ID) if box.private_users else "0")

    box.run(work)


def test_files_are_owned_on_disk_as_the_container_sees_them(box: Box) -> None:
    async def work(box: Box) -> None:
        launch = box.launch("sh", "-c", "touch /new; chown 1000:2000 /new; stat -c %u:%g /new /etc/passwd")
        assert (await box.finish(launch)).lines == ["1000:2000", "0:0"]
        made = (box.directory / "layers" / launch.id / "fs/new").stat()
        assert (made.st_uid, made.st_gid) == (1000, 2000)

    box.run(work)


def test_roots_of_a_hundred_layers_also_before_linux_6_5(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = box.directory / "layers"
    for number in range(2, 102):
        (layers / f"{number}/fs").mkdir(parents=True)
        (layers / f"{number}/fs/file").write_text(f"{number}")
    lowers = tuple(f"{number}/fs" for number in range(101, 0, -1))

    def content() -> bytes:
        """Of the topmost file; in a fork, because the old way stays in a mount namespace of its own."""
        root = box.launch("true").root
        assert isinstance(root, RootFilesystem)
        root = replace(root, lowers=lowers)
        read, write = os.pipe()
        if os.fork() == 0:
            try:
                tree = OverlayRoot(root=root).open(None)
                os.write(write, os.read(os.open("file", os.O_RDONLY, dir_fd=tree), 9))
            finally:
                os._exit(0)
        os.close(write)
        with open(read, "rb") as pipe:
            return pipe.read()

    assert content() == b"101"
    monkeypatch.setattr(kernel, "version", lambda: (6, 1))
    assert content() == b"101"


def test_binds_keep_owners_and_read_only_holds(box: Box, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/file").write_text("kept")

    def change(spec: Spec) -> None:
        source = str(tmp_path / "shared")
        spec["mounts"] += [
            {"destination": "/rw", "type": "bind", "source": source, "options": ["rbind"]},
            {"destination": "/ro", "type": "bind", "source": source, "options": ["rbind", "ro"]},
        ]

    async def work(box: Box) -> None:
        result = await box.sh(
            "cat /ro/file; echo; touch /rw/a; touch /ro/b 2>/dev/null || echo refused", change=change
        )
        assert result.lines[0] == "kept"
        assert result.lines[-1] == "refused"
        assert (tmp_path / "shared/a").stat().st_uid == 0

    box.run(work)


def test_devices_masks_and_read_only_paths(box: Box) -> None:
    async def work(box: Box) -> None:
        result = await box.sh(
            "head -c2 /dev/zero | wc -c; echo x > /dev/null; wc -c < /proc/keys; ls /proc/acpi /sys/firmware;"
            "echo 1 2>/dev/null > /proc/sys/kernel/sysrq || echo refused; echo again > /dev/stdout"
        )
        assert result.lines[:2] == ["2", "0"]
        assert {"refused", "again"} <= set(result.lines)

    box.run(work)


def test_read_only_root(box: Box) -> None:
    def change(spec: Spec) -> None:
        spec["root"]["readonly"] = True

    async def work(box: Box) -> None:
        result = await box.sh(
            "touch /x 2>/dev/null || echo refused; touch /dev/shm/y && echo shm", change=change
        )
        assert result.lines[-2:] == ["refused", "shm"]

    box.run(work)


@pytest.mark.parametrize(
    ("program", "code", "text"),
    [
        ("nosuch", 127, 'exec: "nosuch": executable file not found in $PATH'),
        ("/no/such", 127, "no such file or directory"),
        ("/etc/passwd", 126, "permission denied"),
        ("/etc", 126, "is a directory"),
    ],
)
def test_a_program_that_cannot_run(box: Box, program: str, code: int, text: str) -> None:
    async def work(box: Box) -> None:
        with pytest.raises(StartFailed) as caught:
            await box.finish(box.launch(program))
        assert caught.value.exit_code == code
        assert text in str(caught.value)

    box.run(work)


def test_a_link_at_proc_is_refused_and_links_cannot_leave_the_root(box: Box, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    os.symlink(str(outside), box.image / "escape")
    os.symlink("../../../../../../../..", box.image / "up")

    def change(spec: Spec) -> None:
        for target in ("/escape/here", f"/up{outside}/there"):
            spec["mounts"].append({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": []})

    async def work(box: Box) -> None:
        result = await box.sh(f"ls -d /escape/here /up{outside}/there", change=change)
        assert result.exit.code == 0
        assert list(outside.iterdir()) == []
        (box.image / "proc").rmdir()
        os.symlink("/tmp", box.image / "proc")
        with pytest.raises(StartFailed, match="/proc"):
            await box.sh("true")

    box.run(work)


def test_users_groups_and_working_directory(box: Box) -> None:
    def change(spec: Spec) -> None:
        spec["process"]["cwd"] = "/made/for/it"

    async def work(box: Box) -> None:
        launch = box.launch(
            "sh", "-c", "id -u; id -G; pwd; echo $HOME; echo hi > /dev/stderr", change=change, user="fisher"
        )
        result = await box.finish(launch)
        assert result.lines == ["1000", "1000 2000", "/made/for/it", "/tmp", "hi"]
        with pytest.raises(StartFailed, match="no matching entries in passwd file"):
            await box.finish(box.launch("true", user="nobody-here"))

    box.run(work)


def test_standard_input_ends_with_the_client(box: Box) -> None:
    async def work(box: Box) -> None:
        launch = box.launch("cat", open_stdin=True, stdin_once=True)
        result = await box.finish(launch, stdin=b"x" * 300_000)
        assert result.output == b"x" * 300_000

    box.run(work)


def test_a_terminal(box: Box) -> None:
    def change(spec: Spec) -> None:
        spec["process"]["terminal"] = True

    async def work(box: Box) -> None:
        launch = box.launch("sh", change=change, open_stdin=True, stdin_once=True, console_size=(33, 99))
        task, stream = await box.start(launch)
        await stream.send(b"stty size; tty\n")
        assert b"33 99" in await stream.read_until(b"/dev/pts/0")
        await task.resize(40, 120)
        await stream.send(b"stty size\n")
        await stream.read_until(b"40 120")
        await stream.send(b"exit 3\n")
        await stream.read()
        assert (await task.exited).code == 3

    box.run(work)


def test_detach_keys_leave_the_program_running(box: Box) -> None:
    def change(spec: Spec) -> None:
        spec["process"]["terminal"] = True

    async def work(box: Box) -> None:
        launch = box.launch("sh", change=change, open_stdin=True)
        task, stream = await box.start(launch)
        await stream.send(b"\x10\x11")
        await stream.read()
        second = Stream()
        await task.attach(second, AttachOptions(stdin=True, stdout=True, stderr=True, multiplex=False))
        await second.send(b"exit 5\n")
        await second.read()
        assert (await task.exited).code == 5

    box.run(work)


def test_attach_replays_the_log_without_a_gap(box: Box) -> None:
    async def work(box: Box) -> None:
        launch = box.launch("sh", "-c", "echo one; read x; echo two", open_stdin=True, stdin_once=True)
        task, stream = await box.start(launch)
        await stream.read_until(b"one\n")
        late = Stream()
        await task.attach(late, AttachOptions(stdout=True, stderr=True, multiplex=False, logs=True))
        await stream.send(b"go\n", end=True)
        assert await late.read() == b"one\ntwo\n"
        await stream.read()
        await task.exited

    box.run(work)


def test_exec_in_a_running_container(box: Box) -> None:
    async def work(box: Box) -> None:
        launch = box.launch("sh", "-c", "echo up; read x", open_stdin=True, stdin_once=True)
        task, stream = await box.start(launch)
        await stream.read_until(b"up")
        process: Any = dict(launch.spec["process"], args=["sh", "-c", "id -u; hostname; cat; exit 9"])
        client = Stream()
        running = await task.exec(
            "e1",
            process,
            user="1000:2000",
            filtered=True,
            stdin=True,
            stream=client,
            detach_keys=None,
            console_size=None,
        )
        await client.send(b"input", end=True)
        output = await client.read()
        assert b"1000\n" in output
        assert launch.spec["hostname"].encode() in output
        assert b"input" in output
        assert await running.exited == 9
        process["args"] = ["nosuch"]
        with pytest.raises(StartFailed) as caught:
            await task.exec(
                "e2",
                process,
                user="",
                filtered=True,
                stdin=False,
                stream=None,
                detach_keys=None,
                console_size=None,
            )
        assert caught.value.exit_code == 127
        await stream.send(b"", end=True)
        await stream.read()
        await task.exited

    box.run(work)


def test_pause_resume_and_signals(box: Box) -> None:
    async def work(box: Box) -> None:
        task, stream = await box.start(
            box.launch("sh", "-c", "trap 'exit 44' TERM; echo up; while :; do sleep 0.01; done")
        )
        await stream.read_until(b"up")
        await task.pause()
        await task.signal(signal.SIGTERM)
        assert not task.exited.done()
        await task.resume()
        assert (await task.exited).code == 44
        await stream.read()

    box.run(work)


def test_a_paused_container_can_be_killed(box: Box) -> None:
    async def work(box: Box) -> None:
        task, stream = await box.start(box.launch("sleep", "1000"))
        await task.pause()
        await task.signal(signal.SIGKILL)
        assert (await task.exited).code == 137
        await stream.read()

    box.run(work)


def test_init_reaps_forwards_and_passes_the_exit_code_on(box: Box) -> None:
    async def work(box: Box) -> None:
        script = "(sleep 0.01 &) ; trap 'exit 12' TERM; echo $$; while :; do sleep 0.01; done"
        task, stream = await box.start(box.launch("sh", "-c", script, init=True))
        assert await stream.read_until(b"\n") != b"1\n"
        await task.signal(signal.SIGTERM)
        assert (await task.exited).code == 12
        await stream.read()

    box.run(work)


def test_a_killed_keeper_ends_its_container_and_says_so(box: Box) -> None:
    async def work(box: Box) -> None:
        launch = box.launch("sleep", "1000")
        task, stream = await box.start(launch)
        keeper = int(Path(f"/proc/{task.pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        os.kill(keeper, signal.SIGKILL)
        ended = await task.exited
        assert ended.code == 137
        assert "keeper" in ended.error
        assert json.loads(Path(launch.state, "exit.json").read_text())["code"] == 137
        await stream.read()

    box.run(work)


def test_a_killed_zygote_is_replaced_and_its_containers_live_on(box: Box) -> None:
    async def work(box: Box) -> None:
        task, stream = await box.start(
            box.launch("sh", "-c", "echo up; read x", open_stdin=True, stdin_once=True)
        )
        await stream.read_until(b"up")
        os.kill(box.zygote.pid, signal.SIGKILL)
        assert (await box.sh("echo fine")).output == b"fine\n"
        await stream.send(b"", end=True)
        await stream.read()
        assert (await task.exited).code == 1

    box.run(work)


def test_a_later_daemon_adopts_the_container(box: Box) -> None:
    async def work(box: Box) -> None:
        launch = box.launch("sh", "-c", "echo up; read x; exit 6", open_stdin=True, stdin_once=True)
        first, stream = await box.start(launch)
        await stream.read_until(b"up")
        first.link.let_go()
        adopted = await box.runtime.adopt(launch.id)
        assert adopted is not None
        assert adopted.pid == first.pid
        await stream.send(b"", end=True)
        await stream.read()
        assert (await adopted.exited).code == 6
        await adopted.released
        assert await box.runtime.adopt(launch.id) is None

    box.run(work)


def test_limits_are_set_and_the_same_container_starts_again_at_once(box: Box) -> None:
    def change(spec: Spec) -> None:
        spec["linux"]["resources"]["pids"] = {"limit": 33}
        spec["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 1 << 40}]

    async def work(box: Box) -> None:
        for _ in range(3):
            launch = box.launch(
                "sh",
                "-c",
                "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max; ulimit -n",
                name="again",
                change=change,
            )
            assert {"33", "100"} <= set((await box.finish(launch)).lines)

    box.run(work)


def test_the_interpreter_cannot_be_written_to_through_proc(box: Box) -> None:
    async def work(box: Box) -> None:
        task, stream = await box.start(box.launch("cat", open_stdin=True, stdin_once=True))
        # Tried by its mount: opening it for writing says "busy" for as long as it runs, mounted how it may.
        assert os.statvfs(f"/proc/{box.zygote.pid}/exe").f_flag & os.ST_RDONLY
        assert not os.statvfs(sys.executable).f_flag & os.ST_RDONLY
        await stream.send(b"", end=True)
        await stream.read()
        await task.exited

    box.run(work)


def test_an_older_zygote_leaves_the_newer_ones_socket_alone(box: Box) -> None:
    async def work(box: Box) -> None:
        task, stream = await box.start(box.launch("cat", open_stdin=True, stdin_once=True))
        older = box.zygote.pid
        socket_path = box.directory / "run/zygote.sock"
        socket_path.unlink()  # as a daemon does that finds a zygote of another version
        box.zygote.close()
        assert (await box.sh("echo new")).output == b"new\n"
        assert box.zygote.pid != older
        gone = os.pidfd_open(older)
        await stream.send(b"", end=True)
        await stream.read()
        await task.exited
        await asyncio.get_running_loop().run_in_executor(None, select.select, [gone], [], [])
        os.close(gone)
        assert socket_path.exists()

    box.run(work)


def test_the_usual_limit_of_open_files_is_enough(box: Box) -> None:
    async def work(box: Box) -> None:
        run = str(box.directory / "run")
        box.zygote = Zygote(run, str(box.directory / "zygote.log"), descriptors=1024)
        box.runtime = Runtime(box.zygote, run)
        assert (await box.sh("ulimit -n")).lines == ["1024"]

    box.run(work)
