"""Leaving HTTP: no byte is lost, no connection is shut down, whenever the stream is detached."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable

import pytest
from tests.fakes.api import Serve

from sampan import errors
from sampan.api.request import ClientStream, Request
from sampan.api.responses import HIJACKED, Answer
from sampan.api.routing import Route


def refuse(_request: Request, _engine: object) -> Answer:
    raise errors.Conflict("not now")


BASIC = (Route("GET", "/refuse", refuse),)


def hijacking(use: Callable[[socket.socket, bytes], None], *, multiplexed: bool = False) -> tuple[Route, ...]:
    """A route that hands its connection to ``use`` in a thread, as a keeper would have it."""

    async def attach(request: Request, _engine: object) -> Answer:
        stream: ClientStream = request.hijacker(multiplexed=multiplexed)()
        sock, early = stream.detach()
        threading.Thread(target=use, args=(sock, early), daemon=True).start()
        return HIJACKED

    return (Route("POST", "/attach", attach),)


def echo_all(sock: socket.socket, early: bytes) -> None:
    """Send back everything until the client has finished sending."""
    with sock:
        data = early
        while piece := sock.recv(65536):
            data += piece
        sock.sendall(b"got:" + data)


@pytest.mark.parametrize("early", [b"", b"early bytes\r\n\r\nGET / HTTP/1.1\r\n\r\n"])
def test_hijack_by_upgrade_keeps_early_bytes_and_half_close(serve: Serve, early: bytes) -> None:
    with serve(routes=hijacking(echo_all)).client() as client:
        client.send(
            b"POST /v1.41/attach HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            b"Content-Length: 0\r\n\r\n" + early
        )
        head = client.head()
        assert (head.status, head.reason) == (101, "UPGRADED")
        assert head.fields["content-type"] == "application/vnd.docker.raw-stream"
        assert (head.fields["connection"], head.fields["upgrade"]) == ("Upgrade", "tcp")
        client.send(b"late")
        client.sock.shutdown(socket.SHUT_WR)
        assert client.rest() == b"got:" + early + b"late"


def test_hijack_without_upgrade_answers_200_and_loses_nothing(serve: Serve) -> None:
    with serve(routes=hijacking(echo_all)).client() as client:
        client.send(b"POST /attach HTTP/1.1\r\nHost: d\r\n\r\nno request at all")
        client.sock.shutdown(socket.SHUT_WR)
        head = client.head()
        assert (head.status, head.fields["content-type"]) == (200, "application/vnd.docker.raw-stream")
        assert client.rest() == b"got:no request at all"


def test_a_multiplexed_hijack_says_so_from_1_42_on(serve: Serve) -> None:
    served = serve(routes=hijacking(lambda sock, _early: sock.close(), multiplexed=True))
    for version, kind in (("1.41", "raw-stream"), ("1.42", "multiplexed-stream")):
        with served.client() as client:
            client.request(f"POST /v{version}/attach", Connection="Upgrade", Upgrade="tcp")
            assert client.head().fields["content-type"] == f"application/vnd.docker.{kind}"


def test_a_hijacked_socket_blocks_and_outlives_the_server(serve: Serve) -> None:
    handed: list[socket.socket] = []
    there = threading.Event()

    def keep(sock: socket.socket, _early: bytes) -> None:
        handed.append(sock)
        there.set()

    served = serve(routes=hijacking(keep))
    with served.client() as client:
        client.request("POST /attach", Connection="Upgrade", Upgrade="tcp")
        assert client.head().status == 101
        assert there.wait(10)
        served.close()
        (sock,) = handed
        assert os.get_blocking(sock.fileno())
        sock.sendall(b"still here")
        assert client.take(10) == b"still here"
        client.send(b"and back")
        assert sock.recv(100) == b"and back"
        sock.close()


def test_bytes_after_a_json_body_belong_to_the_hijacked_stream(serve: Serve) -> None:
    async def start(request: Request, _engine: object) -> Answer:
        body = await request.read()
        sock, early = request.hijacker(multiplexed=False)().detach()
        threading.Thread(target=echo_all, args=(sock, body + b"|" + early), daemon=True).start()
        return HIJACKED

    with serve(routes=(Route("POST", "/start", start),)).client() as client:
        client.request("POST /start", b"{}", Connection="Upgrade", Upgrade="tcp")
        client.send(b"input")
        client.sock.shutdown(socket.SHUT_WR)
        assert client.head().status == 101
        assert client.rest() == b"got:{}|input"


def test_a_refusal_before_the_hijack_is_an_ordinary_answer(serve: Serve) -> None:
    async def attach(_request: Request, _engine: object) -> Answer:
        raise errors.NotFound("No such container: x")

    with serve(routes=(Route("POST", "/attach", attach), *BASIC)).client() as client:
        client.request("POST /attach", Connection="Upgrade", Upgrade="tcp")
        assert client.document() == (404, {"message": "No such container: x"})
        client.request("GET /refuse")
        assert client.document()[0] == 409


def test_a_stream_may_be_detached_long_after_its_request(serve: Serve) -> None:
    streams: list[ClientStream] = []

    async def attach(request: Request, _engine: object) -> Answer:
        streams.append(request.hijacker(multiplexed=False)())
        return HIJACKED

    served = serve(routes=(Route("POST", "/attach", attach), *BASIC))
    with served.client() as client, served.client() as leaver:
        for one in (client, leaver):
            one.request("POST /attach", Connection="Upgrade", Upgrade="tcp")
        leaver.sock.close()  # with the answer unread, which resets the connection
        assert client.head().status == 101
        client.send(b"typed ahead")
        client.sock.shutdown(socket.SHUT_WR)
        assert served.get("GET /refuse")[0] == 409  # the server has seen all of that
        served.call(lambda: echo_all(*streams[0].detach()))
        assert client.rest() == b"got:typed ahead"
        ends: list[bytes] = []
        done = threading.Event()

        def take_the_end() -> None:
            sock, early = streams[1].detach()
            with sock:
                ends.append(early + sock.recv(10))
            done.set()

        served.call(take_the_end)
        assert done.wait(10)
        assert ends == [b""]


def test_a_hijack_whose_handler_fails_is_closed(serve: Serve) -> None:
    async def attach(request: Request, _engine: object) -> Answer:
        request.hijacker(multiplexed=False)()
        raise errors.Conflict("too late")

    with serve(routes=(Route("POST", "/attach", attach),)).client() as client:
        client.request("POST /attach", Connection="Upgrade", Upgrade="tcp")
        assert client.head().status == 101
        assert client.rest() == b""
