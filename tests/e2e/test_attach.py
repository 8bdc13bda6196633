"""Attaching over the API: several clients at once, replay, WebSockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator

import pytest
import websocket

from tests.e2e.conftest import Client
from tests.e2e.serving import Daemon

pytestmark = [pytest.mark.root, pytest.mark.e2e]

NAME = "attached"
ECHO = "echo ready; while read x; do echo got $x; done; echo over"


@pytest.fixture(params=[[], ["-t"]], ids=["pipes", "terminal"])
def echo(request: pytest.FixtureRequest, client: Client) -> Iterator[str]:
    """A container that says what it is told."""
    command = ["run", "-d", "-i", *request.param, "--name", NAME, "busybox", "sh", "-c", ECHO]
    assert client("docker", command).returncode == 0
    yield NAME
    client("docker", ["rm", "-f", NAME])


@contextlib.contextmanager
def attached(daemon: Daemon, query: str) -> Iterator[websocket.WebSocket]:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(daemon.socket)
    opened = websocket.create_connection(
        f"ws://localhost/v1.45/containers/{NAME}/attach/ws?{query}", socket=sock
    )
    sock.settimeout(20)
    try:
        yield opened
    finally:
        with contextlib.suppress(OSError):  # the engine may have closed it already
            opened.close()


def heard(opened: websocket.WebSocket, *wanted: bytes) -> bytes:
    """What comes until everything that is wanted has."""
    said = b""
    while not all(word in said for word in wanted):
        data = opened.recv()
        assert isinstance(data, bytes)
        said += data
    return said


def test_a_websocket_carries_the_streams(daemon: Daemon, echo: str) -> None:
    with attached(daemon, "logs=1&stream=1&stdin=1&stdout=1&stderr=1") as opened:
        heard(opened, b"ready")
        opened.send("one\n")
        opened.send_binary(b"two\n")
        heard(opened, b"got one", b"got two")
        opened.ping(b"there?")
        opened.send("three\n")
        heard(opened, b"got three")


def test_several_clients_share_input_and_output(daemon: Daemon, echo: str) -> None:
    with (
        attached(daemon, "logs=1&stream=1&stdin=1&stdout=1") as first,
        attached(daemon, "logs=1&stream=1&stdin=1&stdout=1") as second,
        attached(daemon, "logs=1&stream=1&stdout=1") as onlooker,
    ):
        for opened in (first, second):
            heard(opened, b"ready")
        first.send("from the first\n")
        second.send("from the second\n")
        for opened in (first, second, onlooker):
            heard(opened, b"got from the first", b"got from the second")


def test_a_client_that_leaves_disturbs_nobody(daemon: Daemon, echo: str) -> None:
    with attached(daemon, "logs=1&stream=1&stdin=1&stdout=1") as staying:
        with attached(daemon, "stream=1&stdin=1&stdout=1&detachKeys=x") as leaving:
            leaving.send("bye\n")
            heard(staying, b"got bye")
            leaving.close()
        staying.send("still here\n")
        heard(staying, b"got still here")


def test_the_log_alone_is_replayed(daemon: Daemon, client: Client, echo: str) -> None:
    with attached(daemon, "logs=1&stream=1&stdout=1") as opened:
        heard(opened, b"ready")
    with attached(daemon, "logs=1&stdout=1") as opened:
        assert heard(opened, b"ready") in (b"ready\n", b"ready\r\n")
        # The answer to the engine's close may come too late.
        with contextlib.suppress(BrokenPipeError):
            assert opened.recv_data()[0] == websocket.ABNF.OPCODE_CLOSE
    client("docker", ["kill", NAME])
    with attached(daemon, "logs=1&stdout=1") as opened:
        heard(opened, b"ready")


def test_who_does_not_ask_for_a_websocket_is_refused(daemon: Daemon, echo: str) -> None:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(daemon.socket)
    connection.request("GET", f"/containers/{NAME}/attach/ws?stream=1")
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())) == (400, {"message": "not websocket protocol"})
    connection.close()
