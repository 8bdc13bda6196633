"""What ``RUN --mount=type=cache`` keeps: a directory for each id, from one build to the next.

Law: a directory that a step has mounted is not removed.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from sampan.errors import Conflict
from sampan.images.turns import Turns
from sampan.linux import tree
from sampan.linux.diskspace import measure


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheMount:
    """One of them; ``size`` in bytes, times in ns since the epoch. ``identity`` is what steps call it."""

    name: str
    identity: str
    size: int
    used_ns: int
    in_use: bool


Begin = Callable[[str], Awaitable[object]]
"""Puts "x" into a directory: what a cache mount is to begin with."""
_MAKING = "making-"
_IDENTITY = "id-"
_KEPT = (_MAKING, _IDENTITY)
"""What files beside the mounts begin with: one that is being made, and what one is called."""


class CacheMounts:
    """Directories below ``root``, which need not be there yet."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._turns = Turns()
        self._users: Counter[str] = Counter()
        self._alone: set[str] = set()
        self._sizes: dict[str, int] = {}
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def held(
        self,
        identity: str,
        *,
        sharing: str,
        mode: int,
        owner: tuple[int, int],
        begin: Begin | None = None,
    ) -> AsyncIterator[str]:
        """The directory of that id, made if it is missing, and then with the files that ``begin`` puts there.

        ``shared`` has it with others, ``locked`` waits until it is had alone, ``private`` takes another one
        where it is in use.
        """
        name, called = _name(identity), identity
        number = 1
        while sharing == "private" and self._users[name]:
            number += 1
            called = f"{identity} {number}"
            name = _name(called)
        async with self._taken(name, alone=sharing == "locked"):
            async with self._turns.of(name):
                path = await self._directory(name, called, mode, owner, begin)
            yield path

    @asynccontextmanager
    async def _taken(self, name: str, *, alone: bool) -> AsyncIterator[None]:
        """The right to use a mount, which others have too unless it is to be had ``alone``."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._users[name] if alone else name not in self._alone)
            self._users[name] += 1
            if alone:
                self._alone.add(name)
        try:
            yield
        finally:
            self._users[name] -= 1
            self._alone.discard(name)
            self._sizes.pop(name, None)
            async with self._changed:
                self._changed.notify_all()

    def clear(self) -> None:
        """Remove what an earlier life left half made. Before anything else."""
        with suppress(FileNotFoundError):
            self._remove([name for name in os.listdir(self._root) if name.startswith(_MAKING)])

    def __contains__(self, identity: str) -> bool:
        return os.path.isdir(f"{self._root}/{_name(identity)}")

    def name_of(self, text: str) -> str | None:
        """The name of the mount that ``text`` is the id or the name of; None if there is none."""
        if text in self:
            return _name(text)
        return text if _NAME.fullmatch(text) and os.path.isdir(f"{self._root}/{text}") else None

    @asynccontextmanager
    async def alone(self, name: str) -> AsyncIterator[str]:
        """The directory of a mount that is there, once no step has it, and as long as none may."""
        async with self._taken(name, alone=True):
            yield f"{self._root}/{name}"

    async def made(self, identity: str, fill: Begin, mode: int) -> None:
        """A new mount that ``fill`` puts files into. Conflict if there is one by now."""
        name = _name(identity)

        async def begin(making: str) -> None:
            os.mkdir(f"{making}/x", mode)
            await fill(f"{making}/x")

        async with self._taken(name, alone=True), self._turns.of(name):
            if os.path.isdir(f"{self._root}/{name}"):
                raise Conflict(f"cache mount {identity} is there already")
            await self._directory(name, identity, mode, (0, 0), begin)

    async def _directory(
        self, name: str, identity: str, mode: int, owner: tuple[int, int], begin: Begin | None
    ) -> str:
        path = f"{self._root}/{name}"
        if not os.path.isdir(path):
            os.makedirs(self._root, mode=0o711, exist_ok=True)
            making = f"{self._root}/{_MAKING}{name}"
            self._remove([os.path.basename(making)])
            os.mkdir(making)
            try:
                begun = f"{making}/x"
                if begin is None:
                    os.mkdir(begun)
                    os.chmod(begun, mode)
                    os.chown(begun, *owner)
                else:
                    await begin(making)
                with open(f"{making}/id", "w") as file:
                    file.write(identity)
                os.rename(f"{making}/id", f"{self._root}/{_IDENTITY}{name}")
                os.rename(begun, path)
            finally:
                await asyncio.to_thread(self._remove, [os.path.basename(making)])
        there = os.stat(path)
        os.utime(path, ns=(time.time_ns(), there.st_mtime_ns))
        return path

    async def all(self) -> list[CacheMount]:
        """Every one, with its size."""
        return await asyncio.to_thread(self._all)

    def _all(self) -> list[CacheMount]:
        try:
            names = sorted(name for name in os.listdir(self._root) if not name.startswith(_KEPT))
        except FileNotFoundError:
            return []
        return [
            CacheMount(
                name=name,
                identity=self._identity(name),
                size=self._size(name),
                used_ns=os.stat(f"{self._root}/{name}").st_atime_ns,
                in_use=self._users[name] > 0,
            )
            for name in names
        ]

    def _identity(self, name: str) -> str:
        """What steps call it; its name, if that was not noted."""
        with suppress(FileNotFoundError), open(f"{self._root}/{_IDENTITY}{name}") as file:
            return file.read()
        return name

    def _size(self, name: str) -> int:
        """Measured once after each use: some have very many files."""
        size = self._sizes.get(name)
        if size is None:
            size = measure(f"{self._root}/{name}").apparent
            if not self._users[name]:
                self._sizes[name] = size
        return size

    async def remove(self, names: Iterable[str]) -> None:
        """Remove those that nobody has mounted."""
        spare = [name for name in names if not self._users[name]]
        if spare:
            await asyncio.to_thread(self._remove, [*spare, *(f"{_IDENTITY}{name}" for name in spare)])

    def _remove(self, names: list[str]) -> None:
        fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in names:
                with suppress(FileNotFoundError):
                    tree.remove_tree(fd, name)
        finally:
            os.close(fd)


_NAME = re.compile(r"[0-9a-f]{64}")


def _name(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()
