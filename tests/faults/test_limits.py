"""The daemon may open no more files, or its group have no more processes: told in one line, and it passes."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.worlds import World, wait_for

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path)
    try:
        assert found.load()[0] == 200
        yield found
    finally:
        for key in found.containers():
            found.ask("DELETE", f"/containers/{key}?force=1&v=1")
        found.process.terminate()
        found.process.wait(30)


def test_without_descriptors_a_start_says_so_the_rest_goes_on_and_it_passes(served: World) -> None:
    served.run("sleeps", "sleep", "1000")
    assert served.create("later", "sleep", "1000")[0] == 201
    pid = served.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    # One more than are open: the connection that asks has it.
    most = max(map(int, os.listdir(f"/proc/{pid}/fd"))) + 2
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, hard))
    try:
        status, said = served.ask("POST", "/containers/later/start")
        assert (status, "too many open files" in said["message"].lower()) == (500, True), said
        assert served.state("sleeps")["Running"]
        waiting = [served.send("GET", "/events") for _ in range(4)]
        used, end = served.seconds(), time.monotonic() + 1
        wait_for(lambda: time.monotonic() > end, "what it does while connections wait")
        assert served.seconds() - used < 0.5
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    for sock in waiting:
        sock.close()
    wait_for(lambda: served.ask("POST", "/containers/later/start")[0] in (204, 304), "it can be started now")
    assert served.state("later")["Running"]
    assert not [line for line in served.log.splitlines() if "Traceback" in line]
