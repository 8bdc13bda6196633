"""What the instances of one host agree on: a small directory in /run, gone with the kernel's own state.

    lock          held while a bridge's subnet is chosen and the bridge made, and while one is removed
    NAME.json     {"subnet": …, "subnet6": …, "owner": …} of each bridge: its subnets, both empty while they
                  are being chosen, and the name of the instance's default bridge
    ip_forward    exists if it was one of us who turned IPv4 forwarding on
    ip6_forward   the same for IPv6; holds the names of the links that were told to go on hearing routers

Law: the directory is advice that saves two instances from racing; the kernel's routes are checked as well.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator

DEFAULT_DIRECTORY = "/run/sampan-networks"

_FORWARDING = "/proc/sys/net/ipv4/ip_forward"
_FORWARDING6 = "/proc/sys/net/ipv6/conf/all/forwarding"
_ACCEPT_RA = "/proc/sys/net/ipv6/conf/{}/accept_ra"


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

    def subnets(self, *, but: str) -> dict[str, tuple[str, ...]]:
        """Bridge name → subnets of every registered bridge except ``but``; damaged records are skipped."""
        return {name: subnets for name, (subnets, _) in self._records().items() if subnets and name != but}

    def names(self) -> list[str]:
        """Every registered bridge."""
        return list(self._records())

    def owned(self, owner: str) -> list[str]:
        """The bridges that an instance registered."""
        return [name for name, (_, found) in self._records().items() if found == owner]

    def _records(self) -> dict[str, tuple[tuple[str, ...], str]]:
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
                        subnets = (str(record["subnet"]), str(record.get("subnet6", "")))
                        found[name] = (tuple(filter(None, subnets)), str(record.get("owner", name)))
        return found

    def register(self, name: str, subnet: str, *, subnet6: str = "", owner: str = "") -> None:
        path = os.path.join(self._path, f"{name}.json")
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            json.dump({"subnet": subnet, "subnet6": subnet6, "owner": owner or name}, file)
        os.rename(f"{path}.new", path)

    def forget(self, name: str) -> None:
        """Succeeds if it is not registered."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self._path, f"{name}.json"))

    def enable_forwarding(self) -> None:
        """Turn IPv4 forwarding on, remembering it if it was off."""
        if _read(_FORWARDING) != "0":
            return
        os.close(os.open(self._mark, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        _write(_FORWARDING, "1")

    def enable_forwarding6(self, hearing: Iterable[str]) -> None:
        """Turn IPv6 forwarding on, remembering it if it was off.

        A host that forwards hears no routers any more, and would lose a default route that one of them
        announced: the links of ``hearing`` are told to hear them all the same, if they did until now.
        """
        if _read(_FORWARDING6) != "0":
            return
        told = [name for name in hearing if _read(_ACCEPT_RA.format(name)) == "1"]
        with open(self._mark6, "w", encoding="utf-8") as file:
            file.write("\n".join(told))
        for name in told:
            _write(_ACCEPT_RA.format(name), "2")
        _write(_FORWARDING6, "1")

    def restore_forwarding(self, *, others_need_it: bool) -> None:
        """Turn forwarding off if one of us turned it on, no instance is left and nobody else needs it."""
        left = [subnet for subnets in self.subnets(but="").values() for subnet in subnets]
        if os.path.exists(self._mark) and not any("." in subnet for subnet in left):
            os.unlink(self._mark)
            if not others_need_it:
                _write(_FORWARDING, "0")
        if os.path.exists(self._mark6) and not any(":" in subnet for subnet in left):
            told = _read(self._mark6).split()
            os.unlink(self._mark6)
            if not others_need_it:
                _write(_FORWARDING6, "0")
                for name in told:
                    with contextlib.suppress(OSError):  # a link that is gone
                        _write(_ACCEPT_RA.format(name), "1")

    @property
    def _mark(self) -> str:
        return os.path.join(self._path, "ip_forward")

    @property
    def _mark6(self) -> str:
        return os.path.join(self._path, "ip6_forward")


def _read(path: str) -> str:
    """Empty where there is no such file."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


def _write(path: str, value: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(value)
