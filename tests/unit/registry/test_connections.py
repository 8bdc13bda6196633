"""Connections that hang, end or lead elsewhere, and what is shown there of who asks."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from collections.abc import Iterator

import pytest
import urllib3
from tests.unit.registry.servers import Asked, Instant, Registry, Reply, registry, repository

from sampan.registry import transport
from sampan.registry.auth import Authorizer
from sampan.registry.credentials import NOBODY, Credentials
from sampan.registry.hosts import Endpoint
from sampan.registry.repository import Blob, Repository
from sampan.registry.transport import ATTEMPTS, Broken, Transport
from sampan.spec import digest as digests

DATA = bytes(range(256)) * 40
DIGEST = digests.of(DATA)
TOKEN = Credentials(registry_token="R")


@pytest.fixture
def remote() -> Iterator[Registry]:
    with registry() as found:
        yield found


@contextlib.contextmanager
def talking(said: bytes) -> Iterator[tuple[Repository, list[bytes]]]:
    """A repository whose server says ``said`` on each connection and nothing more; the requests."""
    asked: list[bytes] = []
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            held = []
            while True:
                connection, _ = server.accept()
                if over.is_set():
                    break
                asked.append(connection.recv(1 << 16))
                connection.sendall(said)
                held.append(connection)
            for one in (*held, connection):
                one.close()

        thread = threading.Thread(target=serve)
        thread.start()
        host, port = server.getsockname()
        endpoint = Endpoint(host=f"{host}:{port}", schemes=("http",), insecure=True)
        carrier = Transport(endpoint, Authorizer(NOBODY), Instant())
        try:
            yield Repository(carrier, "a/b", "a/b"), asked
        finally:
            carrier.close()
            over.set()
            socket.create_connection((host, port)).close()
            thread.join()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_TIMEOUT", urllib3.Timeout(connect=10.0, read=0.05))


def test_a_registry_that_does_not_answer_is_given_up(impatient: None) -> None:
    with talking(b"") as (found, asked), pytest.raises(Broken, match="awaiting headers"):
        found.manifest("x")
    assert len(asked) == ATTEMPTS


def test_a_blob_that_stalls_breaks_off(impatient: None) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    with talking(head + b"x" * 10) as (found, _asked):
        _, blocks = found.blob(DIGEST)
        with pytest.raises(Broken, match="the connection broke"):
            list(blocks)


def test_an_upload_elsewhere_carries_no_credentials(remote: Registry) -> None:
    with registry() as other:
        other.answer = lambda asked: Reply(
            status=201 if asked.method == "PUT" else 202, headers={"Location": f"{other.url}/upload"}
        )

        def answer(asked: Asked) -> Reply:
            assert asked.headers["Authorization"] == "Bearer R"
            return Reply(status=202, headers={"Location": f"{other.url}/upload"})

        remote.answer = answer
        blob = Blob(digest=DIGEST, size=len(DATA), open=lambda: io.BytesIO(DATA))
        repository(remote, TOKEN).upload(blob, lambda _count: None)
        assert b"".join(asked.body for asked in other.asked) == DATA
        assert all("Authorization" not in asked.headers for asked in other.asked)


def test_a_challenge_from_elsewhere_is_not_answered(remote: Registry) -> None:
    with registry() as other:
        basic = {"WWW-Authenticate": 'Basic realm="elsewhere"'}
        other.answer = lambda _: Reply(status=401, headers=basic)
        remote.answer = lambda _: Reply(status=307, headers={"Location": f"{other.url}/elsewhere"})
        alice = Credentials(username="alice", password="secret")
        with pytest.raises(Exception, match="401"):
            repository(remote, alice).blob(DIGEST)
        assert len(other.asked) == 1
        assert "Authorization" not in other.asked[0].headers


def test_of_several_that_are_challenged_at_once_one_fetches_the_token(remote: Registry) -> None:
    together = threading.Barrier(4)

    def answer(asked: Asked) -> Reply:
        if asked.path.startswith("/token"):
            return Reply(body=b'{"token": "T"}')
        if asked.headers.get("Authorization") == "Bearer T":
            return Reply(body=DATA)
        together.wait(30)
        return Reply(status=401, headers={"WWW-Authenticate": f'Bearer realm="{remote.url}/token"'})

    remote.answer = answer
    found = repository(remote)
    got: list[bytes] = []
    threads = [threading.Thread(target=lambda: got.append(b"".join(found.blob(DIGEST)[1]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [DATA] * 4
    assert sum(asked.path.startswith("/token") for asked in remote.asked) == 1
