"""Asking other servers for names, from the host's network namespace, over UDP or TCP.

Law: each server has ``PATIENCE`` seconds; what comes from anywhere else than the server, or answers another
question, is not heard.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence

from sampan.wire import dns

PATIENCE = 4.0
LARGEST = 65535

Ask = Callable[[str, bytes], Awaitable[bytes]]
"""Asks one server; OSError, EOFError or TimeoutError if it does not answer."""


async def first(ask: Ask, servers: Sequence[str], message: bytes) -> bytes | None:
    """What the first server says that says anything."""
    for server in servers:
        try:
            return await asyncio.wait_for(ask(server, message), PATIENCE)
        except (OSError, EOFError, TimeoutError):
            continue
    return None


async def by_datagram(server: str, message: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        # Connected, so that nobody else's datagrams get in and a refusal is heard.
        sock.connect((server, 53))
        sock.send(message)
        while True:
            answer = await loop.sock_recv(sock, LARGEST)
            if dns.answers(answer, message):
                return answer


async def by_stream(server: str, message: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server, 53)
    try:
        writer.write(len(message).to_bytes(2, "big") + message)
        return await receive(reader)
    finally:
        writer.close()


async def receive(reader: asyncio.StreamReader) -> bytes:
    """One message of a stream."""
    size = int.from_bytes(await reader.readexactly(2), "big")
    return await reader.readexactly(size)
