"""What the kernel cannot lead to a container is copied there."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from sampan.network.copying import Copying, bound

PATIENCE = 10


@contextlib.asynccontextmanager
async def copied(protocol: str, host: str, port: int) -> AsyncIterator[tuple[str, int]]:
    """Where to ask for what is copied to ``port`` of 127.0.0.1."""
    copying, sock = Copying(), bound(protocol, host, 0)
    copying.serve(sock, "127.0.0.1", port)
    try:
        yield sock.getsockname()[:2]
    finally:
        copying.leave(sock)
        copying.close()
        sock.close()


@pytest.mark.parametrize("host", ["::1", "127.0.0.1"])
def test_connections(host: str) -> None:
    asyncio.run(_connections(host))


async def _connections(host: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"heard " + await reader.read())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, copied("tcp", host, server.sockets[0].getsockname()[1]) as where:
        reader, writer = await asyncio.open_connection(*where)
        writer.write(b"a" * 100_000)
        writer.write_eof()
        said = await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()
        assert said == b"heard " + b"a" * 100_000


@pytest.mark.parametrize("host", ["::1", "127.0.0.1", "::"])
def test_datagrams_of_two_clients(host: str) -> None:
    asyncio.run(_datagrams_of_two_clients(host))


async def _datagrams_of_two_clients(host: str) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as server:
        server.bind(("127.0.0.1", 0))

        def echo() -> None:
            data, source = server.recvfrom(100)
            server.sendto(b"heard " + data, source)

        loop.add_reader(server, echo)
        async with copied("udp", host, server.getsockname()[1]) as (_, port):
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with contextlib.ExitStack() as stack:
                clients = [
                    stack.enter_context(socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
                    for _ in range(2)
                ]
                for number, client in enumerate(clients):
                    # Connected: an answer from another address than was asked would not be heard.
                    client.connect(("::1" if ":" in host else host, port))
                    client.send(b"%d" % number)
                for number, client in enumerate(clients):
                    said = await asyncio.wait_for(loop.sock_recv(client, 100), PATIENCE)
                    assert said == b"heard %d" % number
        loop.remove_reader(server)


def test_a_port_without_a_server_is_survived() -> None:
    asyncio.run(_a_port_without_a_server_is_survived())


async def _a_port_without_a_server_is_survived() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        port = gone.getsockname()[1]
    loop = asyncio.get_running_loop()
    async with copied("udp", "127.0.0.1", port) as where:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as client:
            client.connect(where)
            client.send(b"lost")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as server:
                server.bind(("127.0.0.1", port))
                while True:  # until the first error was read
                    client.send(b"found")
                    with contextlib.suppress(TimeoutError):
                        assert await asyncio.wait_for(loop.sock_recv(server, 100), 0.1) in (b"lost", b"found")
                        break
