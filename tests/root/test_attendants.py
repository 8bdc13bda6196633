"""Execs and their attendants: one for several containers, and what becomes of a program without."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from pathlib import Path
from typing import Any

import pytest

from sampan.runtime.attendants import ExecTask
from sampan.runtime.runtime import Runtime, Task
from sampan.sandbox.messages import Launch
from tests.root.boxes import Box, Stream


async def run(task: Task, launch: Launch, *args: str, client: Stream | None = None) -> ExecTask:
    process: Any = dict(launch.spec["process"], args=list(args))
    return await task.exec(
        "e",
        process,
        user="",
        filtered=False,
        stdin=False,
        stream=client,
        detach_keys=None,
        console_size=None,
    )


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def end(task: Task) -> None:
    await task.signal(signal.SIGKILL)
    await task.exited


pytestmark = pytest.mark.root


def test_an_attendant_that_is_free_serves_the_next_exec_of_another_container(box: Box) -> None:
    async def work(box: Box) -> None:
        parents = set()
        for _ in range(2):
            launch = box.launch("sleep", "1000")
            task, _ = await box.start(launch)
            client = Stream()
            running = await run(task, launch, "sh", "-c", "hostname; exit 4", client=client)
            assert launch.spec["hostname"].encode() in await client.read()
            assert await running.exited == 4
            await somebody_free(box)
            running = await run(task, launch, "sleep", "1000")
            parents.add(parent_of(running.pid))
            os.kill(running.pid, signal.SIGKILL)
            assert await running.exited == 137
            await somebody_free(box)
            await end(task)
        assert len(parents) == 1

    box.run(work)


async def somebody_free(box: Box) -> None:
    while not box.zygote.attendants._free:
        await asyncio.sleep(0)


def test_a_program_follows_its_attendant(box: Box) -> None:
    async def work(box: Box) -> None:
        launch = box.launch("sleep", "1000")
        task, _ = await box.start(launch)
        running = await run(task, launch, "sleep", "1000")
        gone = os.pidfd_open(running.pid)
        os.kill(parent_of(running.pid), signal.SIGKILL)
        assert await running.exited == 137
        assert select.select([gone], [], [], 60)[0]
        os.close(gone)
        # Nothing else has been touched.
        assert await (await run(task, launch, "sh", "-c", "exit 3")).exited == 3
        await end(task)

    box.run(work)


def test_a_later_daemon_has_execs_run_too(box: Box) -> None:
    async def work(box: Box) -> None:
        launch = box.launch("sleep", "1000")
        task, _ = await box.start(launch)
        later = await Runtime(box.zygote, str(box.directory / "run")).adopt(launch.id)
        assert later is not None
        assert await (await run(later, launch, "sh", "-c", "exit 5")).exited == 5
        assert await (await run(later, launch, "sh", "-c", "exit 6")).exited == 6
        await end(task)
        await later.exited

    box.run(work)
