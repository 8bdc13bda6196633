"""What the instances of one host agree on: a small directory in /run, gone with the kernel's own state.

    lock          held while a bridge's subnet is chosen and the bridge made, and while one is removed
    NAME.json     {"subnet": …, "owner": …} of each bridge: its subnet, empty while it is being chosen, and
                  the name of the instance's default bridge
    ip_forward    exists if it was one of us who turned forwarding on

Law: the directory is advice that saves two instances from racing; the kernel's routes are checked as well.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator

DEFAULT_DIRECTORY = "/run/sampan-networks"

_FORWARDING = "/proc/sys/net/ipv4/ip_forward"


class SharedDirectory:
    def __init__(self, path: str = DEFAULT_DIRECTORY) -> None:
        self._path = path

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Exclusive among the instances; blocks."""
        os.makedirs(self._path, mode=0o755, exist_ok=True)
        fd = os.open(os.path.join(self._path, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def subnets(self, *, but: str) -> dict[str, str]:
        """Bridge name → subnet of every registered bridge except ``but``; damaged records are skipped."""
        return {name: subnet for name, (subnet, _) in self._records().items() if subnet and name != but}

    def owned(self, owner: str) -> list[str]:
        """The bridges that an instance registered."""
        return [name for name, (_, found) in self._records().items() if found == owner]

    def _records(self) -> dict[str, tuple[str, str]]:
        found = {}
        with contextlib.suppress(FileNotFoundError):
            for entry in os.listdir(self._path):
                name, dot, _ = entry.rpartition(".json")
                with (
                    contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError),
                    open(os.path.join(self._path, entry), encoding="utf-8") as file,
                ):
                    record = json.load(file)
                    if dot:
                        found[name] = (str(record["subnet"]), str(record.get("owner", name)))
        return found

    def register(self, name: str, subnet: str, *, owner: str = "") -> None:
        path = os.path.join(self._path, f"{name}.json")
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            json.dump({"subnet": subnet, "owner": owner or name}, file)
        os.rename(f"{path}.new", path)

    def forget(self, name: str) -> None:
        """Succeeds if it is not registered."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self._path, f"{name}.json"))

    def enable_forwarding(self) -> None:
        """Turn IPv4 forwarding on, remembering it if it was off."""
        with open(_FORWARDING, encoding="ascii") as file:
            if file.read().strip() != "0":
                return
        os.close(os.open(self._mark, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        with open(_FORWARDING, "w", encoding="ascii") as file:
            file.write("1")

    def restore_forwarding(self, *, others_need_it: bool) -> None:
        """Turn forwarding off if one of us turned it on, no instance is left and nobody else needs it."""
        if not os.path.exists(self._mark) or self.subnets(but=""):
            return
        os.unlink(self._mark)
        if not others_need_it:
            with open(_FORWARDING, "w", encoding="ascii") as file:
                file.write("0")

    @property
    def _mark(self) -> str:
        return os.path.join(self._path, "ip_forward")
