"""Which blocks of ids are whose, among the engines of one host: files in /run, gone with what runs.

    lock        held while a block is taken or given back
    N.json      {"owner": the data root} of block N

Laws: a block is one engine's as long as its file names that engine; only an engine that is gone loses one,
and only when every block is taken: its data root is locked by nobody, and no process uses an id of the block.
Ids that /etc/subuid or /etc/subgid give to somebody are never used.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
from collections.abc import Iterable, Iterator

from sampan.engine.idranges import LAST_ID

DEFAULT_DIRECTORY = "/run/sampan-ids"
_SUBORDINATE = ("/etc/subuid", "/etc/subgid")


class IdBlocks:
    """The blocks from the one of ``first`` on, of ``size`` ids each, for the engine of ``data_root``."""

    def __init__(
        self, data_root: str, *, first: int, size: int = 1 << 25, directory: str = DEFAULT_DIRECTORY
    ) -> None:
        self.size = size
        self._owner = os.path.realpath(data_root)
        self._directory = directory
        self._all = range(-(-first // size), LAST_ID // size)

    @property
    def reserved(self) -> Iterable[tuple[int, int]]:
        for path in _SUBORDINATE:
            yield from _subordinate_ids(path)

    def held(self) -> list[int]:
        return [block for block, owner in self._owners().items() if owner == self._owner]

    def claim(self) -> int | None:
        with self._lock():
            owners = self._owners()
            for block in self._all:
                if block not in owners:
                    self._write(block)
                    return block
            for block, owner in owners.items():
                if owner != self._owner and _is_gone(owner) and not self._in_use(block):
                    self._write(block)
                    return block
        return None

    def reclaim(self, block: int) -> bool:
        if block not in self._all:
            return False
        with self._lock():
            owner = self._owners().setdefault(block, self._owner)
            if owner == self._owner:
                self._write(block)
        return owner == self._owner

    def give_back(self) -> None:
        """Give all blocks back: no container uses one any more. Succeeds when there are none."""
        with contextlib.suppress(OSError):
            if not self.held():
                return
            with self._lock():
                for block in self.held():
                    os.unlink(self._path(block))

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        os.makedirs(self._directory, mode=0o755, exist_ok=True)
        fd = os.open(f"{self._directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _owners(self) -> dict[int, str]:
        """The owner of each block that is taken; a damaged file belongs to nobody who could be asked."""
        found: dict[int, str] = {}
        for path in glob.glob(f"{self._directory}/*.json"):
            number = os.path.basename(path).removesuffix(".json")
            if not number.isdecimal():
                continue
            try:
                with open(path, encoding="utf-8") as file:
                    found[int(number)] = str(json.load(file)["owner"])
            except FileNotFoundError:
                continue
            except (OSError, ValueError, KeyError, TypeError):
                found[int(number)] = ""
        return found

    def _write(self, block: int) -> None:
        path = self._path(block)
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            json.dump({"owner": self._owner}, file)
        os.rename(f"{path}.new", path)

    def _path(self, block: int) -> str:
        return f"{self._directory}/{block}.json"

    def _in_use(self, block: int) -> bool:
        """Whether a process has a user namespace with ids of the block."""
        first, last = block * self.size, (block + 1) * self.size
        for path in glob.glob("/proc/[0-9]*/uid_map"):
            with contextlib.suppress(OSError, ValueError), open(path) as file:
                for line in file:
                    _, base, count = map(int, line.split())
                    # The map of the host itself covers everything.
                    if base < last and base + count > first and count <= self.size:
                        return True
        return False


def _is_gone(data_root: str) -> bool:
    """Whether no daemon serves ``data_root``: it holds a lock there as long as it lives."""
    try:
        fd = os.open(f"{data_root}/lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def _subordinate_ids(path: str) -> Iterator[tuple[int, int]]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        first, _, count = rest.partition(":")
        if first.isdecimal() and count.isdecimal():
            yield int(first), int(count)
