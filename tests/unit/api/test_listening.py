"""Sockets that are listened on, and how a server ends."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import threading
from collections.abc import AsyncIterator

import pytest
from tests.fakes.api import Serve

from sampan import errors
from sampan.api.request import Request
from sampan.api.responses import TEXT, Answer, Stream, text
from sampan.api.routing import Route
from sampan.api.server import Server, bind_unix


def refuse(_request: Request, _engine: object) -> Answer:
    raise errors.Conflict("not now")


BASIC = (Route("GET", "/refuse", refuse),)


def test_the_socket_has_its_mode_and_goes_with_the_server(serve: Serve) -> None:
    served = serve(routes=BASIC)
    assert stat.S_IMODE(os.stat(served.path).st_mode) == 0o660
    idle = served.client()
    served.close()
    assert not os.path.exists(served.path)
    with idle:
        assert idle.rest() == b""


def test_a_dead_socket_is_replaced_a_living_one_refused(serve: Serve, tmp_path: object) -> None:
    served = serve(routes=BASIC)
    dead = f"{tmp_path}/dead.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(dead)
    plain = f"{tmp_path}/plain"
    with open(plain, "w", encoding="ascii"):
        pass

    async def attempt() -> None:
        with await bind_unix(dead, mode=0o600, gid=os.getgid()):
            assert stat.S_IMODE(os.stat(dead).st_mode) == 0o600
        for path in (served.path, plain):
            with pytest.raises(errors.Conflict):
                await bind_unix(path, mode=0o660, gid=None)

    asyncio.run(attempt())
    assert served.get("GET /refuse")[0] == 409


def test_closing_lets_a_busy_request_finish_and_cuts_a_stream(serve: Serve) -> None:
    begun, go = threading.Event(), asyncio.Event()

    async def slow(_request: Request, _engine: object) -> Answer:
        begun.set()
        await go.wait()
        return text(b"finished")

    def follow(_request: Request, _engine: object) -> Answer:
        async def source() -> AsyncIterator[bytes]:
            await asyncio.Event().wait()
            yield b""

        return Stream(source(), TEXT)

    served = serve(routes=(Route("GET", "/slow", slow), Route("GET", "/follow", follow)))
    with served.client() as busy, served.client() as following:
        following.request("GET /follow")
        assert following.head().status == 200
        busy.request("GET /slow")
        assert begun.wait(10)
        served.call(served._stop.set)
        assert following.rest() == b""
        served.call(go.set)
        head, body = busy.answer()
        assert (body, head.fields["connection"]) == (b"finished", "close")


def test_tcp() -> None:
    async def exchange() -> bytes:
        server = Server(None, BASIC)
        await server.listen_tcp("127.0.0.1", 0, rules=None)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /refuse HTTP/1.1\r\nHost: d\r\n\r\n")
        writer.write_eof()
        data = await reader.readuntil(b"}\n")
        writer.close()
        await server.close()
        return data

    assert b'{"message":"not now"}' in asyncio.run(exchange())
