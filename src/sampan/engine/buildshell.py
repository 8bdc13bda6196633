"""A shell in the files that a failed RUN left, with its mounts, variables and user; nothing of it remains.

What the program had written becomes a layer that nothing names, which goes with the build; the shell runs in
a temporary container over it, on the client's terminal.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from sampan.errors import Failure
from sampan.sandbox.messages import AttachOptions

if TYPE_CHECKING:
    from sampan.engine.buildsession import Shell
    from sampan.engine.containers import Containers

_PIECE = 1 << 16
SHELL = ("/bin/sh",)


class Ends:
    """One end of a pair as a client's connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def detach(self) -> tuple[socket.socket, bytes]:
        return self._sock, b""


async def serve(containers: Containers, container_id: str, shell: Shell) -> None:
    """Run the created container to its end, its terminal being the client's."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    sizes: set[asyncio.Task[None]] = set()

    def resize(rows: int, columns: int) -> None:
        task = asyncio.create_task(_resize(containers, container_id, rows, columns))
        sizes.add(task)
        task.add_done_callback(sizes.discard)

    options = AttachOptions(stdin=True, stdout=True, stderr=True, multiplex=False)
    typing = asyncio.create_task(_typed(shell, ours))
    try:
        await containers.attach(container_id, options, lambda: Ends(theirs))
        ended = containers.wait(container_id, "next-exit")
        await containers.start(container_id)
        shell.on_resize(resize)
        if any(shell.size):
            resize(*shell.size)
        showing = asyncio.create_task(_shown(ours, shell))
        try:
            await asyncio.wait((showing, typing), return_when=asyncio.FIRST_COMPLETED)
            if typing.done():
                typing.result()  # the client may be gone
            await showing
            await ended
        finally:
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)
    finally:
        typing.cancel()
        await asyncio.gather(typing, *sizes, return_exceptions=True)
        ours.close()


async def _typed(shell: Shell, sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with suppress(OSError):  # the shell has ended
        while data := await shell.read():
            await loop.sock_sendall(sock, data)
        sock.shutdown(socket.SHUT_WR)


async def _shown(sock: socket.socket, shell: Shell) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(sock, _PIECE):
        await shell.write(data)


async def _resize(containers: Containers, container_id: str, rows: int, columns: int) -> None:
    with suppress(Failure):  # it has ended
        await containers.resize(container_id, rows, columns)
