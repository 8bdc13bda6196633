"""What stands between a running container and the host, as the kernel tells it of its first process.

Law: nothing here is what was asked for, or what the engine meant to do: a container that a former version
started, or that another runtime did, is shown as it is.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import msgspec

from sampan.engine import security
from sampan.spec.runtime import ALL_CAPABILITIES

if TYPE_CHECKING:
    from sampan.engine.model import Container

_NAMESPACES = {
    "cgroup": "Cgroup",
    "ipc": "IPC",
    "mnt": "Mount",
    "net": "Network",
    "pid": "PID",
    "user": "User",
}
_NAMESPACES["uts"] = "UTS"
_FILTER = b"2"  # of Seccomp in /proc/PID/status; 1 is the strict mode, which nobody here uses
# A process's name, written first, cannot hold one of them.
_KEYS = (b"\nSeccomp:", b"\nNoNewPrivs:", b"\nCapBnd:")
_LONGEST = 1 << 14  # bytes of /proc/PID/status: 1.5 kB and a processor mask


class Isolation(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """Names as ``inspect`` shows them. ``capabilities`` are the most that any process of it can get,
    ``namespaces`` say ``host`` or ``private``: another container's is private, too."""

    seccomp: str
    no_new_privileges: bool
    capabilities: tuple[str, ...]
    app_armor: str
    namespaces: dict[str, str]


def observed(container: Container) -> Isolation | None:
    """None for a container that does not run. The same object as long as the kernel says the same."""
    pid = container.state.pid
    if not pid:
        return None
    with suppress(OSError, IndexError, ValueError):  # it ended while it was looked at
        seccomp, privileges, bounding = _status(pid)
        return _told(
            seccomp=_profile(container) if seccomp == _FILTER else security.UNCONFINED,
            no_new_privileges=privileges == b"1",
            bounding=bounding,
            app_armor=_app_armor(pid),
            namespaces=_links(pid),
        )
    return None


@lru_cache(maxsize=64)  # containers that differ in none of these are many
def _told(
    *, seccomp: str, no_new_privileges: bool, bounding: bytes, app_armor: str, namespaces: tuple[str, ...]
) -> Isolation:
    most = int(bounding, 16)
    return Isolation(
        seccomp=seccomp,
        no_new_privileges=no_new_privileges,
        capabilities=tuple(name for bit, name in enumerate(ALL_CAPABILITIES) if most >> bit & 1),
        app_armor=app_armor,
        namespaces={
            shown: "host" if ours == theirs else "private"
            for shown, ours, theirs in zip(_NAMESPACES.values(), _ours(), namespaces, strict=True)
        },
    )


def _status(pid: int) -> tuple[bytes, bytes, bytes]:
    """Values of /proc/PID/status: Seccomp, NoNewPrivs, CapBnd."""
    fd = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(fd, _LONGEST)
    finally:
        os.close(fd)
    seccomp, privileges, bounding = (text.split(key, 1)[1].split(b"\n", 1)[0].strip() for key in _KEYS)
    return seccomp, privileges, bounding


def _profile(container: Container) -> str:
    """``custom`` for a profile of the container's own; else the engine's, which may be its built-in one."""
    options = container.host.security_opt
    return "default" if not options or security.parse(options).seccomp is None else "custom"


def _app_armor(pid: int) -> str:
    """The profile that confines it; empty where the kernel has no AppArmor."""
    with suppress(OSError), open(f"/proc/{pid}/attr/apparmor/current", encoding="utf-8") as file:
        return file.read().strip()
    return ""


def _links(pid: int | str) -> tuple[str, ...]:
    """What names each namespace; not by stat(2), which opens what the link leads to: five times the work."""
    return tuple(os.readlink(f"/proc/{pid}/ns/{name}") for name in _NAMESPACES)


@cache  # the daemon never leaves them
def _ours() -> tuple[str, ...]:
    return _links("self")
