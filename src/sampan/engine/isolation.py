"""What stands between a running container and the host, as the kernel tells it of its first process.

Law: nothing here is what was asked for, or what the engine meant to do: a container that a former version
started, or that another runtime did, is shown as it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
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
_FILTER = "2"  # of Seccomp in /proc/PID/status; 1 is the strict mode, which nobody here uses


class Isolation(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """Names as ``inspect`` shows them. ``capabilities`` are the most that any process of it can get,
    ``namespaces`` say ``host`` or ``private``: another container's is private, too."""

    seccomp: str
    no_new_privileges: bool
    capabilities: tuple[str, ...]
    app_armor: str
    namespaces: dict[str, str]


def observed(container: Container) -> Isolation | None:
    """None for a container that does not run."""
    pid = container.state.pid
    if not pid:
        return None
    with suppress(OSError, KeyError, ValueError):  # it ended while it was looked at
        status = _status(pid)
        bounding = int(status["CapBnd"], 16)
        return Isolation(
            seccomp=_profile(container) if status["Seccomp"] == _FILTER else security.UNCONFINED,
            no_new_privileges=status["NoNewPrivs"] == "1",
            capabilities=tuple(name for bit, name in enumerate(ALL_CAPABILITIES) if bounding >> bit & 1),
            app_armor=_app_armor(pid),
            namespaces={shown: _whose(pid, name) for name, shown in _NAMESPACES.items()},
        )
    return None


def _status(pid: int) -> Mapping[str, str]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}


def _profile(container: Container) -> str:
    """``custom`` for a profile of the container's own; else the engine's, which may be its built-in one."""
    return "default" if security.parse(container.host.security_opt or ()).seccomp is None else "custom"


def _app_armor(pid: int) -> str:
    """The profile that confines it; empty where the kernel has no AppArmor."""
    with suppress(OSError), open(f"/proc/{pid}/attr/apparmor/current", encoding="utf-8") as file:
        return file.read().strip()
    return ""


def _whose(pid: int, name: str) -> str:
    ours, theirs = (os.stat(f"/proc/{one}/ns/{name}") for one in ("self", pid))
    return "host" if (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino) else "private"
