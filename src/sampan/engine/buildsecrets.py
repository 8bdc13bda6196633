"""What a RUN is lent while it runs: secrets and ssh agents of the client.

A secret is a file of its own below the exec root, or a variable; an agent is a socket whose connections are
carried to the client's. Both are asked for when the step really runs, so that a remembered one needs neither.

Laws: no contents of a secret are in a layer, a cache key, a log, a history or the database; the files are
gone when the step is over, and those that a killed daemon left when the next one starts.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sampan.build.instructions import error
from sampan.engine.model import Mount
from sampan.errors import Failure

if TYPE_CHECKING:
    from sampan.build import instructions
    from sampan.build.evaluate import RunWork
    from sampan.engine.buildsession import Pipe, Session

_TRUE = ("true", "1")
_PIECE = 1 << 16
_CONNECTIONS = 64
"""To one agent at once."""


@dataclass(slots=True, kw_only=True)
class Lent:
    """Mounts and variables."""

    mounts: list[Mount] = field(default_factory=list)
    environment: list[str] = field(default_factory=list)


class Secrets:
    """``root`` is a directory of its own, which need not be there."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._count = 0

    def clear(self) -> None:
        """Remove what an earlier daemon left."""
        shutil.rmtree(self._root, ignore_errors=True)

    def _place(self) -> str:
        os.makedirs(self._root, mode=0o700, exist_ok=True)
        self._count += 1
        return f"{self._root}/{self._count}"

    @asynccontextmanager
    async def lent(self, session: Session | None, work: RunWork) -> AsyncIterator[Lent]:
        """What the mounts of kind secret and ssh bring."""
        found = Lent()
        places: list[str] = []
        servers: list[_Agent] = []
        try:
            for wanted in work.mounts:
                if wanted.kind == "secret":
                    await self._secret(session, work, wanted, found, places)
                elif wanted.kind == "ssh":
                    agent = await self._agent(session, work, wanted, len(servers))
                    if agent is not None:
                        servers.append(agent)
                        places.append(agent.path)
                        found.mounts.append(Mount(type="bind", source=agent.path, target=agent.target))
            if servers:
                found.environment.append(f"SSH_AUTH_SOCK={servers[0].target}")
            yield found
        finally:
            for server in servers:
                await asyncio.shield(server.close())
            for place in places:
                with suppress(FileNotFoundError):
                    os.unlink(place)

    async def _secret(
        self,
        session: Session | None,
        work: RunWork,
        wanted: instructions.Mount,
        found: Lent,
        places: list[str],
    ) -> None:
        identity = wanted["source"] or wanted["id"] or posixpath.basename(wanted["target"])
        if not identity:
            raise error(work.step.source, "one of source, target required")
        data = await session.secret(identity) if session is not None else None
        if data is None:
            if wanted["required"] in _TRUE:
                raise error(work.step.source, f"secret {identity}: not found")
            return
        if wanted["env"]:
            if b"\0" in data:
                raise error(work.step.source, f"secret {identity} holds a zero byte: no variable can")
            found.environment.append(f"{wanted['env']}={data.decode('utf-8', 'surrogateescape')}")
            if not wanted["target"]:
                return
        target = wanted["target"] or f"/run/secrets/{posixpath.basename(identity)}"
        place = self._place()
        places.append(place)
        fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            os.fchown(file.fileno(), number(work, wanted, "uid", 0), number(work, wanted, "gid", 0))
            os.fchmod(file.fileno(), number(work, wanted, "mode", 0o400))
        target = posixpath.join(work.directory, target)
        found.mounts.append(Mount(type="bind", source=place, target=target, read_only=True))

    async def _agent(
        self, session: Session | None, work: RunWork, wanted: instructions.Mount, count: int
    ) -> _Agent | None:
        identity = wanted["id"] or "default"
        pipe = await session.agent(identity) if session is not None else None
        if session is None or pipe is None:
            if wanted["required"] in _TRUE:
                raise error(work.step.source, f'no SSH key "{identity}" forwarded from the client')
            return None
        pipe.end()
        pipe.close()
        target = wanted["target"] or f"/run/buildkit/ssh_agent.{count}"
        agent = _Agent(session, identity, self._place(), posixpath.join(work.directory, target))
        await agent.listen()
        os.chown(agent.path, number(work, wanted, "uid", 0), number(work, wanted, "gid", 0))
        os.chmod(agent.path, number(work, wanted, "mode", 0o600))
        return agent


class _Agent:
    """A socket at ``path`` whose connections go to the client's agent."""

    def __init__(self, session: Session, identity: str, path: str, target: str) -> None:
        self._session = session
        self._identity = identity
        self.path = path
        self.target = target
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        directory, name = os.path.split(self.path)
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener.bind(f"/proc/self/fd/{fd}/{name}")  # however long the path is
        except BaseException:
            listener.close()
            raise
        finally:
            os.close(fd)
        listener.setblocking(False)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener)

    async def close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= _CONNECTIONS:
            writer.close()
            return
        self._tasks.add(task)
        try:
            pipe = await self._session.agent(self._identity)
            if pipe is not None:
                try:
                    await _carry(pipe, reader, writer)
                finally:
                    pipe.end()
                    pipe.close()
        except (Failure, OSError):
            return
        except asyncio.CancelledError:
            return  # the step is over
        finally:
            self._tasks.discard(task)
            writer.close()


async def _carry(pipe: Pipe, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes both ways until either side ends."""

    async def there() -> None:
        while data := await reader.read(_PIECE):
            await pipe.write(data)

    async def back() -> None:
        while data := await pipe.read():
            writer.write(data)
            await writer.drain()

    ways = [asyncio.create_task(there()), asyncio.create_task(back())]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


def number(work: RunWork, wanted: instructions.Mount, name: str, default: int) -> int:
    """A field that is a number; modes are octal."""
    text, base = wanted[name], 8 if name == "mode" else 10
    if not text:
        return default
    if not text.isdecimal() or (base == 8 and set(text) & set("89")):
        raise error(work.step.source, f"invalid value for {name}: {text}")
    return int(text, base)
