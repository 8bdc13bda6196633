"""What ``RUN --mount=type=cache`` keeps: a directory for each id, from one build to the next.

Law: a directory that a step has mounted is not removed.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass

from sampan.images.turns import Turns
from sampan.linux import tree
from sampan.linux.diskspace import measure


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheMount:
    """One of them; ``size`` in bytes, times in ns since the epoch."""

    name: str
    size: int
    used_ns: int
    in_use: bool


class CacheMounts:
    """Directories below ``root``, which need not be there yet."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._turns = Turns()
        self._users: Counter[str] = Counter()

    @asynccontextmanager
    async def held(
        self, identity: str, *, alone: bool, mode: int, owner: tuple[int, int]
    ) -> AsyncIterator[str]:
        """The directory of that id, made if it is missing; ``alone`` waits for others who hold it so."""
        name = hashlib.sha256(identity.encode()).hexdigest()
        async with self._turns.of(name) if alone else nullcontext():
            self._users[name] += 1
            try:
                yield self._directory(name, mode, owner)
            finally:
                self._users[name] -= 1

    def _directory(self, name: str, mode: int, owner: tuple[int, int]) -> str:
        path = f"{self._root}/{name}"
        if not os.path.isdir(path):
            os.makedirs(self._root, mode=0o711, exist_ok=True)
            os.mkdir(path)
            os.chmod(path, mode)
            os.chown(path, *owner)
        there = os.stat(path)
        os.utime(path, ns=(time.time_ns(), there.st_mtime_ns))
        return path

    async def all(self) -> list[CacheMount]:
        """Every one, with its size."""
        return await asyncio.to_thread(self._all)

    def _all(self) -> list[CacheMount]:
        try:
            names = sorted(os.listdir(self._root))
        except FileNotFoundError:
            return []
        return [
            CacheMount(
                name=name,
                size=measure(f"{self._root}/{name}").apparent,
                used_ns=os.stat(f"{self._root}/{name}").st_atime_ns,
                in_use=self._users[name] > 0,
            )
            for name in names
        ]

    async def remove(self, names: Iterable[str]) -> None:
        """Remove those that nobody has mounted."""
        spare = [name for name in names if not self._users[name]]
        if spare:
            await asyncio.to_thread(self._remove, spare)

    def _remove(self, names: list[str]) -> None:
        fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in names:
                tree.remove_tree(fd, name)
        finally:
            os.close(fd)
