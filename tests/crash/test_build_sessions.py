"""A build's session that ends before its build: the client goes or the daemon is killed, wherever it is."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from sampan.wire import sessions
from sampan.wire.sessions import ASK, DATA, END, HELLO, Splitter, frame
from tests.crash.test_builds import is_as_the_rows_say
from tests.crash.test_commits import load
from tests.crash.test_kills import Daemon, wait_for
from tests.e2e import images

pytestmark = pytest.mark.root

SECRET = "never-to-be-found"
DOCKERFILE = f"""\
FROM {images.NAME}
COPY big /big
RUN --mount=type=secret,id=s cat /run/secrets/s > /dev/null; echo begun; sleep 1000
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    (tmp_path / "engine").mkdir()
    served = Daemon(tmp_path / "engine")
    try:
        load(served)
        yield served
    finally:
        with contextlib.suppress(OSError):
            served.kill()


class Client:
    """Speaks as far as it is told to."""

    def __init__(self, daemon: Daemon) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(daemon.root / "run/sampan.sock"))
        self.sock.sendall(
            b"POST /v1.41/build/session?networkmode=none HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
            b"Upgrade: tcp\r\nContent-Length: 0\r\n\r\n"
        )
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.sock.recv(1)
        assert data.startswith(b"HTTP/1.1 101"), data
        self._splitter = Splitter()

    def greet(self) -> None:
        hello = {"dockerfile": DOCKERFILE, "folder": "here"}
        self.sock.sendall(frame(HELLO, 0, json.dumps(hello).encode()))

    def asked(self, service: str) -> int:
        """Wait for a question of that kind: its channel."""
        while True:
            for kind, channel, payload in self._splitter.feed(self.sock.recv(1 << 16)):
                if kind == ASK and json.loads(payload)["service"] == service:
                    return channel

    def show(self) -> None:
        row = "0\0f\000644\0001000000\0001\0\0\0big\0\0"
        channel = self.asked("list")
        self.sock.sendall(frame(DATA, channel, row.encode()) + frame(END, channel))

    def send_some(self) -> None:
        channel = self.asked("fetch")
        data = sessions.FILE.pack(0, 1_000_000) + b"x" * 500_000
        self.sock.sendall(frame(DATA, channel, data))


STAGES = {"nothing": 0, "greeted": 1, "asked": 2, "shown": 3, "half sent": 4}


def go_to(client: Client, stage: int) -> None:
    """As far into the session as that."""
    if stage > 0:
        client.greet()
    if stage == 2:
        client.asked("list")
    if stage > 2:
        client.show()
    if stage > 3:
        client.send_some()


def is_empty(path: Path) -> bool:
    return not any(inner.is_file() for inner in path.rglob("*"))


def nothing_remains(daemon: Daemon) -> None:
    for name in ("data/buildfiles/partial", "run/buildsecrets"):
        wait_for(partial(is_empty, daemon.root / name), f"{name} is empty")
    # The engine notices that its client is gone, and tidies up, when it gets to it.
    wait_for(partial(is_tidy, daemon), "layers, blobs and work are as the rows say")


def is_tidy(daemon: Daemon) -> bool:
    try:
        is_as_the_rows_say(daemon)
    except AssertionError:
        return False
    return True


def begun(daemon: Daemon, place: Path) -> subprocess.Popen[bytes]:
    """A client whose build has come to the step that has a secret."""
    context = place / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "big").write_bytes(bytes(100_000))
    (place / "s").write_text(SECRET)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "sampan", "-H", f"unix://{daemon.root}/run/sampan.sock", "build"),
            *("--network", "none", "--secret", f"id=s,src={place}/s", str(context)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line == b"begun\n":
            break
    return process


def is_nowhere(daemon: Daemon, secret: bytes) -> None:
    found = [
        path
        for folder, _, names in os.walk(daemon.root)
        for path in (os.path.join(folder, name) for name in names)
        if os.path.isfile(path) and secret in Path(path).read_bytes()
    ]
    assert found == []


def test_a_client_that_goes_leaves_nothing(daemon: Daemon, tmp_path: Path) -> None:
    for stage in STAGES.values():
        client = Client(daemon)
        go_to(client, stage)
        client.sock.close()
        nothing_remains(daemon)
    process = begun(daemon, tmp_path)
    process.kill()
    process.communicate()
    nothing_remains(daemon)
    is_nowhere(daemon, SECRET.encode())
    daemon.end()


def test_a_daemon_that_is_killed_leaves_nothing(daemon: Daemon, tmp_path: Path) -> None:
    client = Client(daemon)
    go_to(client, STAGES["half sent"])
    process = begun(daemon, tmp_path)
    daemon.kill()
    client.sock.close()
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (1, b"unexpected EOF\n")
    daemon.start()
    nothing_remains(daemon)
    is_nowhere(daemon, SECRET.encode())
    daemon.end()
