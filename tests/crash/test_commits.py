"""kill -9 in the middle of a commit or a copy: the container goes on, and nothing of the image is left.

The moments are the steps of the work itself: each run is killed a little later than the one before, until one
is answered.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests import archives
from tests.crash.test_kills import Daemon, answer, wait_for
from tests.e2e import images

pytestmark = pytest.mark.root

STEP = 0.12  # seconds by which each kill comes later
FILES = 600
WRITES = f"i=0; while [ $i -lt {FILES} ]; do echo $i > /tmp/$i; i=$((i+1)); done; echo ready; exec sleep 1000"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    served = Daemon(tmp_path)
    try:
        yield served
    finally:
        with suppress(OSError):
            served.kill()


def load(daemon: Daemon) -> None:
    subprocess.run(
        ["docker", "-H", f"unix://{daemon.root}/run/sampan.sock", "load", "-q"],
        input=images.busybox(),
        check=True,
        capture_output=True,
    )


def start(daemon: Daemon) -> str:
    """A container that has written its files."""
    host = {"NetworkMode": "none"}
    body = {"Image": images.NAME, "Cmd": ["sh", "-c", WRITES], "HostConfig": host}
    key: str = daemon.ask("POST", "/containers/create", body)[1]["Id"]
    assert daemon.ask("POST", f"/containers/{key}/start")[0] == 204
    wait_for(lambda: archived(daemon, key, f"/tmp/{FILES - 1}"), "the container has written")
    return key


def archived(daemon: Daemon, key: str, path: str) -> bool:
    return daemon.ask("HEAD", f"/containers/{key}/archive?path={path}")[0] == 200


def kept(root: Path) -> list[str]:
    """Layers, blobs and unfinished files."""
    places = ("layers", "blobs/sha256", "tmp")
    return sorted(f"{place}/{name}" for place in places for name in os.listdir(root / "data" / place))


def test_a_commit_that_is_cut_short_leaves_a_running_container_and_nothing_else(daemon: Daemon) -> None:
    load(daemon)
    key = start(daemon)
    before = [one["Id"] for one in daemon.ask("GET", "/images/json")[1]]
    there = kept(daemon.root)
    for attempt in range(40):
        asked = daemon.send("POST", f"/commit?container={key}&repo=half&tag={attempt}")
        select.select((asked,), (), (), STEP * attempt)
        daemon.kill()
        status, said = answer(asked)
        daemon.start()
        shown: dict[str, Any] = daemon.ask("GET", f"/containers/{key}/json")[1]
        assert shown["State"]["Status"] == "running"
        assert writes(daemon, key), "the container stands still"
        found = [one["Id"] for one in daemon.ask("GET", "/images/json")[1]]
        if status == 201:
            assert said["Id"] in found
            break
        if found != before:  # kept, and the answer was cut off
            break
        assert kept(daemon.root) == there
    else:
        pytest.fail("no commit was answered")
    daemon.end()


def writes(daemon: Daemon, key: str) -> bool:
    """Whether a process in the container gets to do something."""
    body = {"Cmd": ["true"], "AttachStdout": True}
    status, made = daemon.ask("POST", f"/containers/{key}/exec", body)
    assert status == 201, made
    return daemon.ask("POST", f"/exec/{made['Id']}/start", {"Detach": True})[0] == 200


def test_a_copy_that_is_cut_short_keeps_nothing_mounted(daemon: Daemon) -> None:
    load(daemon)
    body = {"Image": images.NAME, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
    key: str = daemon.ask("POST", "/containers/create", body)[1]["Id"]
    half = archives.pack({f"f{number}": b"x" * 5000 for number in range(100)})[:300_000]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(daemon.root / "run/sampan.sock"))
        head = (
            f"PUT /containers/{key}/archive?path=/tmp HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n"
        )
        sock.sendall(head.encode() + half)
        wait_for(lambda: (daemon.root / f"data/snapshots/{key}/fs/tmp/f20").exists(), "it is under way")
        daemon.kill()
    wait_for(lambda: not mounted(daemon.root), "no visitor holds a mount")
    daemon.start()
    assert daemon.ask("POST", f"/containers/{key}/start")[0] == 204
    daemon.end()


def mounted(root: Path) -> list[str]:
    """Processes in whose mount namespaces something of the root is mounted."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/mountinfo"):
        with suppress(OSError):
            if f"{root}/data/snapshots" in entry.read_text():
                found.append(entry.parent.name)
    return found
