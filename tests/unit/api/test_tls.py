"""TLS before the server: who is let in, half-closing, and what a client that never gets on costs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from tests.certificates import Authority

from sampan import errors
from sampan.api import tls
from sampan.api.request import Request
from sampan.api.responses import HIJACKED, Answer, json_response
from sampan.api.routing import Route
from sampan.api.server import Server
from sampan.api.tls import Identity
from sampan.wire.trust import trusting

T = TypeVar("T")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    found = Authority(tmp_path_factory.mktemp("certificates"))
    found.sign("server")
    found.sign("client")
    return found


def server_rules(authority: Authority, *, verify: bool = True) -> ssl.SSLContext:
    place = authority.place
    return tls.rules(
        Identity(
            certificate=f"{place}/server.pem",
            key=f"{place}/server-key.pem",
            authority=f"{place}/ca.pem" if verify else "",
        )
    )


def client_rules(authority: Authority, *, certificate: bool = True) -> ssl.SSLContext:
    context = trusting(f"{authority.place}/ca.pem")
    if certificate:
        context.load_cert_chain(authority.place / "client.pem", authority.place / "client-key.pem")
    return context


def who(request: Request, _engine: object) -> Answer:
    return json_response({"name": request.caller.name, "address": request.caller.address})


async def count(request: Request, _engine: object) -> Answer:
    """Hijacks, reads to the end of the client's input, and only then answers how much it was."""
    stream = request.hijacker(multiplexed=False)()
    sock, early = stream.detach()

    def drain() -> None:
        total = len(early)
        with sock:
            while data := sock.recv(1 << 16):
                total += len(data)
            sock.sendall(b"%d bytes" % total)

    asyncio.get_running_loop().run_in_executor(None, drain)
    return HIJACKED


ROUTES = (Route("GET", "/who", who), Route("POST", "/count", count))


def served(rules: ssl.SSLContext, talk: Callable[[int], T]) -> T:
    """What ``talk`` returns, run in a thread while a server listens on the port it is given."""

    async def run() -> T:
        server = Server(None, ROUTES)
        await server.listen_tcp("127.0.0.1", 0, rules=rules)
        try:
            work: Awaitable[T] = asyncio.to_thread(talk, server.sockets[0].getsockname()[1])
            return await work
        finally:
            await server.close()

    return asyncio.run(run())


def connect(port: int, rules: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", port), timeout=30)
    return rules.wrap_socket(plain, server_hostname="127.0.0.1")


def rest(sock: socket.socket) -> bytes:
    data = b""
    while part := sock.recv(1 << 16):
        data += part
    return data


def test_a_client_is_known_by_its_certificate(authority: Authority) -> None:
    def talk(port: int) -> bytes:
        with connect(port, client_rules(authority)) as sock:
            sock.sendall(b"GET /who HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
            return rest(sock)

    head, _, body = served(server_rules(authority), talk).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    told = json.loads(body)
    assert told["name"] == "client"
    assert told["address"].startswith("127.0.0.1:")


def test_without_one_nobody_is_served(authority: Authority) -> None:
    def talk(port: int) -> bytes:
        with connect(port, client_rules(authority, certificate=False)) as sock:
            sock.sendall(b"GET /who HTTP/1.1\r\nHost: d\r\n\r\n")
            return rest(sock)

    with pytest.raises(OSError):
        served(server_rules(authority), talk)
    assert served(server_rules(authority, verify=False), lambda port: connected(port, authority))


def connected(port: int, authority: Authority) -> bool:
    with connect(port, client_rules(authority, certificate=False)) as sock:
        return sock.version() is not None


def test_the_end_of_input_leaves_the_output_open(authority: Authority) -> None:
    """TLS's own end alert, as Go's CloseWrite sends it, and four megabytes before it."""
    data = bytes(range(256)) * (1 << 14)

    def talk(port: int) -> bytes:
        plain = socket.create_connection(("127.0.0.1", port), timeout=30)
        received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = client_rules(authority).wrap_bio(received, to_send, server_hostname="127.0.0.1")

        def until(step: Callable[[], T]) -> T:
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    plain.sendall(to_send.read())
                    piece = plain.recv(1 << 16)
                    received.write(piece) if piece else received.write_eof()

        until(client.do_handshake)
        client.write(b"POST /count HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        view = memoryview(data)
        while view:
            view = view[client.write(view) :]
        with pytest.raises(ssl.SSLWantReadError):
            client.unwrap()
        plain.sendall(to_send.read())
        answer = b""
        while True:
            try:
                piece = until(lambda: client.read(1 << 16))
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                break
            if not piece:
                break
            answer += piece
        plain.close()
        return answer

    assert served(server_rules(authority), talk).endswith(b"%d bytes" % len(data))


def test_plain_http_is_told_so(authority: Authority) -> None:
    def talk(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
            sock.sendall(b"GET /who HTTP/1.1\r\nHost: d\r\n\r\n")
            return rest(sock)

    assert b"Client sent an HTTP request to an HTTPS server." in served(server_rules(authority), talk)


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01\x00", b"\x00" * 5000])
def test_who_does_not_get_on_is_cut(
    authority: Authority, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "HANDSHAKE_SECONDS", 0.05)

    def talk(port: int) -> bool:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
            sock.sendall(sent)
            with contextlib.suppress(ConnectionResetError):
                rest(sock)
            return True

    assert served(server_rules(authority), talk)


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("server.pem", "could not read the TLS file {}/server.pem: no such file or directory"),
        ("server-key.pem", "could not read the TLS file {}/server-key.pem: no such file or directory"),
        ("ca.pem", "could not read the TLS file {}/ca.pem: no such file or directory"),
    ],
)
def test_a_file_that_is_not_there_is_named(
    authority: Authority, tmp_path: Path, missing: str, words: str
) -> None:
    for name in ("server.pem", "server-key.pem", "ca.pem"):
        if name != missing:
            (tmp_path / name).write_bytes((authority.place / name).read_bytes())
    with pytest.raises(errors.InvalidArgument) as caught:
        server_rules(_at(tmp_path))
    assert str(caught.value) == words.format(tmp_path)


def test_a_key_of_another_certificate_is_refused(authority: Authority, tmp_path: Path) -> None:
    for name, source in (
        ("server.pem", "server.pem"),
        ("server-key.pem", "client-key.pem"),
        ("ca.pem", "ca.pem"),
    ):
        (tmp_path / name).write_bytes((authority.place / source).read_bytes())
    with pytest.raises(errors.InvalidArgument, match="could not load X509 key pair"):
        server_rules(_at(tmp_path))


def _at(place: Path) -> Authority:
    found = object.__new__(Authority)
    found.place = place
    return found
