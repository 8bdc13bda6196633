"""Attacks by clients: those who send too much, too slowly, or go away in the middle.

The engine stays there for others, and has given back what it took when they are gone.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.attacks.conftest import Docker
from tests.attacks.test_images import daemon_id, until
from tests.e2e.serving import Daemon
from tests.e2e.talk import ask

pytestmark = [pytest.mark.root, pytest.mark.e2e]

PING = b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"


def connect(daemon: Daemon) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(daemon.socket)  # waits while too many want to
    client.settimeout(30)
    return client


def resident(pid: int) -> int:
    """The memory that a process has, in kB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS"))


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.fixture
def nothing_stays(daemon: Daemon) -> Iterator[None]:
    """After it: no descriptor more than before, hardly more memory, and an answer."""
    assert ask(daemon.socket, "GET", "/_ping")[0] == 200
    pid = daemon_id(daemon)
    descriptors_before, memory_before = descriptors(pid), resident(pid)
    yield
    assert ask(daemon.socket, "GET", "/_ping")[0] == 200
    until(lambda: descriptors(pid) <= descriptors_before)
    assert resident(pid) - memory_before < 16 << 10


def answer(client: socket.socket) -> bytes:
    """All that is said until the connection is closed."""
    said = b""
    with contextlib.suppress(ConnectionError):
        while piece := client.recv(65536):
            said += piece
    return said


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize("begun", [b"", b"GET /_pi", b"POST /build HTTP/1.1\r\nHost: x\r\nX-A: "], ids=repr)
def test_a_thousand_who_say_nothing_more(daemon: Daemon, begun: bytes) -> None:
    before = descriptors(daemon_id(daemon))
    with contextlib.ExitStack() as held:
        for _ in range(1000):
            client = held.enter_context(connect(daemon))
            client.sendall(begun)
        until(lambda: descriptors(daemon_id(daemon)) >= before + 1000)
        assert ask(daemon.socket, "GET", "/containers/json")[0] == 200


@pytest.mark.usefixtures("nothing_stays")
def test_bodies_that_never_come(daemon: Daemon) -> None:
    head = b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    before = descriptors(daemon_id(daemon))
    with contextlib.ExitStack() as held:
        for framing in (b"Content-Length: 4000000\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"):
            for _ in range(200):
                held.enter_context(connect(daemon)).sendall(head + framing)
        until(lambda: descriptors(daemon_id(daemon)) >= before + 400)
        assert ask(daemon.socket, "GET", "/containers/json")[0] == 200


def endless(head: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    def send(client: socket.socket) -> None:
        client.sendall(head)
        for _ in range((64 << 20) // len(piece)):
            client.sendall(piece)

    return send


JSON = b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKED = JSON + b"Transfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "line": endless(b"GET /", b"a" * 65536),
    "header": endless(b"GET / HTTP/1.1\r\nA: ", b"a" * 65536),
    "headers": endless(b"GET / HTTP/1.1\r\n", b"A: a\r\n" * 8192),
    "empty-lines": endless(b"", b"\r\n" * 32768 + b"!"),
    "chunk-extension": endless(CHUNKED + b"5;", b"a" * 65536),
    "chunk-size": endless(CHUNKED, b"0" * 65536),
    "trailers": endless(CHUNKED + b"0\r\n", b"A: a\r\n" * 8192),
    "body": endless(JSON + b"Content-Length: 99999999999\r\n\r\n", b" " * 65536),
}


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize("what", ENDLESS)
def test_what_has_no_end_is_cut(daemon: Daemon, what: str) -> None:
    """64 MB of it are more than is taken."""
    with connect(daemon) as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            ENDLESS[what](client)
            client.shutdown(socket.SHUT_WR)
        said = answer(client)
    assert not said or said.startswith(b"HTTP/1.1 4"), said[:200]


@pytest.mark.usefixtures("nothing_stays")
def test_others_get_their_turn_beside_a_million_tiny_chunks(daemon: Daemon) -> None:
    with connect(daemon) as client:
        client.sendall(CHUNKED)
        for _ in range(6):
            client.sendall(b"1\r\n \r\n" * 20_000)
            assert ask(daemon.socket, "GET", "/_ping")[0] == 200


@pytest.mark.usefixtures("nothing_stays")
def test_requests_in_a_row_whose_answers_nobody_reads(daemon: Daemon) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(20):
            client = held.enter_context(connect(daemon))
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                for _ in range(200):
                    client.send(PING * 1000)
        assert ask(daemon.socket, "GET", "/containers/json")[0] == 200


@pytest.mark.usefixtures("nothing_stays")
def test_streams_that_are_left_behind(engine: Docker, daemon: Daemon) -> None:
    """Attached, and gone: at once, after the answer, or with half of the connection."""
    engine("run", "-d", "--name", "box", "-i", "busybox", "cat")
    target = b"/containers/box/attach?stream=1&stdin=1&stdout=1&stderr=1"
    head = b"POST " + target + b" HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n"
    for way in range(3):
        for _ in range(50):
            with connect(daemon) as client:
                client.sendall(head)
                if way:
                    assert client.recv(12) == b"HTTP/1.1 101"
                if way == 2:
                    client.shutdown(socket.SHUT_RD)
    assert ask(daemon.socket, "GET", "/containers/box/json")[0] == 200
    assert ask(daemon.socket, "DELETE", "/containers/box?force=1")[0] == 204
