from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.client.api import Client
from sampan.client.connection import Address


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        yield listening


def client_of(listener: socket.socket) -> Client:
    return Client(Address(f"unix://{listener.getsockname()}"))


def test_the_time_until_an_answer_is_used_once(listener: socket.socket) -> None:
    used = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            for _ in range(2):
                connection.recv(65536)
                # Answers only once the client has done what it had to do meanwhile.
                answer = b"null" if used.wait(10) else b"1"
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))

    server = threading.Thread(target=serve)
    server.start()
    client = client_of(listener)
    client.meanwhile = used.set
    assert client.call("GET", "/one") is None
    assert client.meanwhile is None
    assert client.call("GET", "/two") is None
    server.join()


def test_two_requests_are_on_their_way_at_once(listener: socket.socket) -> None:
    def serve() -> None:
        waiting = [listener.accept()[0] for _ in range(2)]
        asked = [connection.recv(65536).split(b" ", 2)[1] for connection in waiting]
        for connection, path in zip(reversed(waiting), reversed(asked), strict=True):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(path), path))
            connection.close()

    server = threading.Thread(target=serve)
    server.start()
    client = client_of(listener)
    one, two = client.begin("/one"), client.begin("/two", {"a": "b"})
    assert one().read() == f"/v{client.version}/one".encode()
    assert two().read() == f"/v{client.version}/two?a=b".encode()
    server.join()


def test_a_request_begun_on_a_connection_that_was_let_go_is_sent_again(listener: socket.socket) -> None:
    def serve() -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            connection.close()

    server = threading.Thread(target=serve)
    server.start()
    client = client_of(listener)
    assert client.call("GET", "/first") == {}
    assert client.begin("/second")().read() == b"{}"
    server.join()
