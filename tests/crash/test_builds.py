"""kill -9 in the middle of a build: what was remembered is whole, and of the step at work nothing is left.

The moments are those of the build itself: each run is killed a little later than the one before, until one is
answered.
"""

from __future__ import annotations

import contextlib
import glob
import io
import os
import select
import socket
import sqlite3
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.network.naming import bridge_name
from tests.crash.test_commits import load, mounted
from tests.crash.test_kills import Daemon, wait_for
from tests.e2e import images

pytestmark = pytest.mark.root

STEP = 0.09  # seconds by which each kill comes later
FILES = 400
DOCKERFILE = f"""\
FROM {images.NAME}
RUN mkdir /made && i=0; while [ $i -lt 200 ]; do echo $i > /made/$i; i=$((i+1)); done
COPY files /files
WORKDIR /new/place
RUN --mount=type=cache,target=/cache cp -r /files /again; echo x >> /cache/x
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    served = Daemon(tmp_path)
    try:
        load(served)
        yield served
    finally:
        with contextlib.suppress(OSError):
            served.kill()


def context(dockerfile: str) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        files = {"Dockerfile": dockerfile.encode()}
        files |= {f"files/{number}": b"%d" % number * 100 for number in range(FILES)}
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def ask(daemon: Daemon, body: bytes) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(str(daemon.root / "run/sampan.sock"))
    head = (
        "POST /v1.41/build?t=built:crash&networkmode=none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Content-Type: application/x-tar\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    sock.sendall(head.encode() + body)
    return sock


def rest(sock: socket.socket) -> bytes:
    """All that is still said."""
    said = b""
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(1 << 16):
            said += data
    return said


def is_as_the_rows_say(daemon: Daemon) -> None:
    """Containers, their files, groups and mounts are gone; layers, blobs and work in progress have rows."""
    root = daemon.root
    assert daemon.containers() == {}
    wait_for(lambda: os.listdir(root / "data/snapshots") == [], "no files of a step are left")
    wait_for(lambda: not mounted(root), "nothing is mounted")
    assert os.listdir(root / "data/containers") == []
    assert os.listdir(root / "data/tmp") == []
    with contextlib.closing(sqlite3.connect(f"file:{root}/data/state.db?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT id, blob FROM layers").fetchall()
        manifests = {row[0] for row in database.execute("SELECT id FROM images").fetchall()}
    layers = {name for name in os.listdir(root / "data/layers") if name.isdigit()}
    assert layers == {str(number) for number, _ in rows}
    blobs = {f"sha256:{name}" for name in os.listdir(root / "data/blobs/sha256")}
    assert blobs == {blob for _, blob in rows} | manifests
    # One group may be that of the container which is expected next; what was made for others before goes.
    wait_for(lambda: len(_groups(root)) <= 1, "no group of a step is left")


def _groups(root: Path) -> set[str]:
    """The ids of the containers that have cgroups."""
    found = glob.glob(f"/sys/fs/cgroup/**/{bridge_name(f'{root}/data')}/*/", recursive=True)
    return {name for path in found if len(name := os.path.basename(path.rstrip("/"))) == 64}


def test_a_build_that_is_cut_short_leaves_whole_steps_only(daemon: Daemon) -> None:
    body = context(DOCKERFILE)
    before = len(daemon.ask("GET", "/images/json")[1])
    attempts = 0
    while True:
        sock = ask(daemon, body)
        said = heard_for(sock, STEP * attempts)
        daemon.kill()
        said += rest(sock)
        sock.close()
        daemon.start()
        is_as_the_rows_say(daemon)
        attempts += 1
        shown = daemon.ask("GET", "/images/json")[1]
        if len(shown) > before:
            break
        assert b"Successfully tagged" not in said
        # The next one begins anew: what steps came to is not to be remembered.
        assert daemon.ask("POST", "/build/prune?all=1")[0] == 200
        assert attempts < 100, "no build was answered"
    daemon.end()


def heard_for(sock: socket.socket, seconds: float) -> bytes:
    """What is said in that time, or up to its end."""
    said, end = b"", time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and select.select((sock,), (), (), left)[0]:
        data = sock.recv(1 << 16)
        if not data:
            break
        said += data
    return said


def test_a_client_that_goes_away_ends_its_build(daemon: Daemon) -> None:
    sock = ask(daemon, context(f"FROM {images.NAME}\nRUN echo begun; sleep 1000\n"))
    said = b""
    while b"begun" not in said:
        said += sock.recv(1 << 16)
    assert daemon.containers() == {}, "a step's container is told to nobody"
    sock.close()
    wait_for(lambda: os.listdir(daemon.root / "data/snapshots") == [], "the step has ended")
    is_as_the_rows_say(daemon)
    daemon.end()
