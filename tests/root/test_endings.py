"""How containers come to their end on a real kernel: time limits, signals, init, checks that take too long.

The keeper's clock is real here; no test asks how long anything took, only what happened in which order.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import replace

import pytest

from sampan.sandbox import channel, keeper_socket
from sampan.sandbox.messages import AttachOptions, TimeLimit
from tests.root.boxes import Box, Stream

pytestmark = pytest.mark.root

SHORT = 0.2
LONG = 3600.0
SILENT = AttachOptions(stdout=True)

# What a shell can trap: not KILL and STOP, nor those that its own workings need.
TRAPPED = tuple(
    number
    for number in range(1, 32)
    if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGSEGV, signal.SIGBUS)
    and number not in (signal.SIGFPE, signal.SIGILL, signal.SIGTTIN, signal.SIGTTOU)
)
TELL_ALL = "".join(f"trap 'echo {number}' {number}; " for number in TRAPPED)
LOOP = "echo ready; while :; do read -t 1 line <&3; done 3<>/tmp/fifo"


def recorded(box: Box, name: str) -> dict[str, object]:
    document: dict[str, object] = json.loads((box.directory / f"state/{name}/exit.json").read_text())
    return document


def test_a_time_limit_sends_the_stop_signal_and_is_recorded(box: Box) -> None:
    async def work(box: Box) -> None:
        script = "trap 'echo asked; exit 9' USR1; echo ready; while :; do sleep 0.05; done"
        limit = TimeLimit(seconds=1, signal=signal.SIGUSR1, grace=LONG)
        task, stream = await box.start(box.launch("sh", "-c", script, name="one", limit=limit))
        assert (await stream.read()).split() == [b"ready", b"asked"]
        ended = await task.exited
        assert (ended.code, ended.timed_out) == (9, True)
        assert recorded(box, "one")["timed_out"] is True

    box.run(work)


def test_who_does_not_listen_is_killed_after_its_grace(box: Box) -> None:
    async def work(box: Box) -> None:
        # Process 1 ignores what it has no handler for.
        limit = TimeLimit(seconds=SHORT, signal=signal.SIGTERM, grace=SHORT)
        ended = (await box.finish(box.launch("sleep", "1000", limit=limit))).exit
        assert (ended.code, ended.timed_out) == (137, True)

    box.run(work)


def test_a_time_limit_needs_no_daemon_and_wakes_the_frozen(box: Box) -> None:
    async def work(box: Box) -> None:
        limit = TimeLimit(seconds=1, signal=signal.SIGKILL, grace=None)
        launch = box.launch("sleep", "1000", name="one", limit=limit)
        task = await box.runtime.launch(launch, ())
        await task.pause()
        task.link.let_go()
        # Its bundle is the last thing that goes.
        while os.path.exists(launch.bundle):
            await asyncio.sleep(0)
        assert (recorded(box, "one")["code"], recorded(box, "one")["timed_out"]) == (137, True)

    box.run(work)


def test_who_ends_in_time_has_not_timed_out(box: Box) -> None:
    async def work(box: Box) -> None:
        limit = TimeLimit(seconds=LONG, signal=signal.SIGTERM, grace=LONG)
        ended = (await box.finish(box.launch("sh", "-c", "exit 3", limit=limit))).exit
        assert (ended.code, ended.timed_out) == (3, False)

    box.run(work)


async def execute(box: Box, task: object, script: str, **more: object) -> tuple[int, bytes]:
    """Exit code and output of a command in a running container."""
    del box
    stream = Stream()
    process = {
        "args": ["sh", "-c", script],
        "cwd": "/",
        "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0},
    }
    running = await task.exec(  # type: ignore[attr-defined]
        "probe",
        process,
        user=None,
        filtered=False,
        stdin=False,
        stream=stream,
        detach_keys=None,
        console_size=None,
        **more,
    )
    output = await stream.read()
    return await running.exited, output


def test_an_exec_that_takes_too_long_goes_with_what_it_started(box: Box) -> None:
    async def work(box: Box) -> None:
        task, stream = await box.start(box.launch("sh", "-c", "echo ready; exec sleep 1000"))
        await stream.read_until(b"ready")
        code, output = await execute(box, task, "echo half; sleep 5000; true", limit=SHORT)
        assert (code, output[8:]) == (-1, b"half\n")
        code, output = await execute(box, task, "ps", limit=LONG)
        assert code == 0
        assert b"sleep 5000" not in output
        await task.signal(signal.SIGKILL)
        await task.exited

    box.run(work)


def test_a_daemon_that_does_not_read_hears_everything_later(box: Box) -> None:
    async def work(box: Box) -> None:
        launch = box.launch("sh", "-c", "echo ready; exec sleep 1000")
        task, stream = await box.start(launch)
        await stream.read_until(b"ready")
        deaf = keeper_socket.connect(launch.bundle)
        for number in range(1500):  # each is answered, and no answer is read
            channel.send(deaf, {"seq": number, "op": "resize", "height": 1, "width": 1})
        assert await execute(box, task, "exit 5") == (5, b"")
        await task.signal(signal.SIGKILL)
        await task.exited
        heard = []
        while (message := channel.receive(deaf)) is not None:
            heard.append(message[0])
        answers = [one["seq"] for one in heard if "seq" in one]
        assert answers == list(range(len(answers)))
        assert len(answers) > 700  # a good deal more than the socket holds
        events = [one["event"] for one in heard if "event" in one]
        assert events == ["started", "exit", "released"]

    box.run(work)


@pytest.mark.parametrize("init", [False, True])
def test_every_signal_reaches_the_program(box: Box, init: bool) -> None:
    async def work(box: Box) -> None:
        script = f"mkfifo /tmp/fifo; {TELL_ALL} {LOOP}"
        task, stream = await box.start(box.launch("sh", "-c", script, init=init))
        await stream.read_until(b"ready\n")
        for number in TRAPPED:
            await task.signal(number)
            assert await stream.read_until(b"\n") == b"%d\n" % number
        await task.signal(signal.SIGKILL)
        assert (await task.exited).code == 137

    box.run(work)


def test_init_passes_real_time_signals_on_and_reaps_orphans(box: Box) -> None:
    async def work(box: Box) -> None:
        # Whether it ends before or after its parent, the orphan is a zombie until it is reaped:
        # until then there is somebody to send signal 0 to.
        script = (
            "mkfifo /tmp/fifo; trap 'echo rt' 37; sh -c 'sh -c \"exit 0\" & echo $! >/tmp/orphan'; "
            "while kill -0 $(cat /tmp/orphan) 2>/dev/null; do :; done; " + LOOP
        )
        task, stream = await box.start(box.launch("sh", "-c", script, init=True))
        await stream.read_until(b"ready\n")
        await task.signal(37)
        assert await stream.read_until(b"\n") == b"rt\n"
        await task.signal(signal.SIGKILL)
        await task.exited

    box.run(work)


def test_init_dies_with_its_programs_signal(box: Box) -> None:
    async def work(box: Box) -> None:
        task, stream = await box.start(box.launch("sh", "-c", "echo ready; exec sleep 1000", init=True))
        await stream.read_until(b"ready\n")
        await task.signal(signal.SIGTERM)
        assert (await task.exited).code == 143

    box.run(work)


def test_a_start_that_never_gets_on_is_given_up(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    from sampan.errors import StartFailed
    from sampan.runtime import runtime

    async def work(box: Box) -> None:
        # Opening a pipe that nobody writes to is as good as a file system that does not answer.
        monkeypatch.setattr(runtime, "START_PATIENCE", SHORT)
        launch = box.launch("true")
        os.mkfifo(box.directory / "filter")
        stuck = replace(launch, seccomp_filter=str(box.directory / "filter"))
        with pytest.raises(StartFailed, match="no answer from the container in 0 seconds"):
            await box.runtime.launch(stuck, ())
        # Whoever reads the pipe goes on, finds nothing, and takes everything with him.
        os.close(os.open(box.directory / "filter", os.O_WRONLY))
        while os.path.exists(launch.bundle):
            await asyncio.sleep(0)
        monkeypatch.undo()
        assert (await box.finish(box.launch("true"))).exit.code == 0

    box.run(work)
