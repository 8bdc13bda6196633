"""What this host is and has, read once when the daemon starts."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sampan.engine.idmaps import EVERYTHING, IdMaps
from sampan.errors import Failure, InvalidArgument
from sampan.sandbox import cgroups
from sampan.sandbox.cgroups import Features

ALL_LIMITS = Features(
    memory_limit=True,
    swap_limit=True,
    memory_reservation=True,
    memory_swappiness=True,
    oom_kill_disable=True,
    cpu_shares=True,
    cpu_quota=True,
    cpu_realtime=True,
    cpuset=True,
    pids_limit=True,
    blkio_weight=True,
    blkio_weight_device=True,
    blkio_throttle=True,
    devices=True,
)
"""A host that lacks nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """``cpus`` and ``memory_nodes`` are those online, in the kernel's list format; memory is in bytes.

    ``limits`` says what groups can limit here, ``selinux`` and ``apparmor`` whether these are in force.
    ``idmaps`` says what can have ids of a container's own. ``ip_forwarding`` asks anew each time: the engine
    itself turns it on after these facts were read.
    """

    cpu_count: int
    cpus: str
    memory_nodes: str
    memory_total: int
    cgroup_version: Literal["1", "2"]
    swap_limit: bool
    kernel_version: str
    operating_system: str
    os_version: str
    architecture: str
    hostname: str
    ip_forwarding: Callable[[], bool]
    apparmor: bool
    selinux: bool = False
    limits: Features = ALL_LIMITS
    idmaps: IdMaps = EVERYTHING

    @classmethod
    def read(cls, idmaps: IdMaps = EVERYTHING) -> HostFacts:
        release = _os_release()
        unified = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
        return cls(
            cpu_count=len(os.sched_getaffinity(0)),
            cpus=_line("/sys/devices/system/cpu/online", "0"),
            memory_nodes=_line("/sys/devices/system/node/online", "0"),
            memory_total=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            cgroup_version="2" if unified else "1",
            swap_limit=unified or os.path.exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"),
            kernel_version=platform.release(),
            operating_system=release.get("PRETTY_NAME", "Linux"),
            os_version=release.get("VERSION_ID", ""),
            architecture=platform.machine(),
            hostname=platform.node(),
            ip_forwarding=_forwards,
            apparmor=_line("/sys/module/apparmor/parameters/enabled", "N") == "Y",
            selinux=os.path.exists("/sys/fs/selinux/enforce"),
            limits=_limits(),
            idmaps=idmaps,
        )


def _limits() -> Features:
    try:
        return cgroups.detect().features
    except (Failure, OSError):
        return Features()


def _forwards() -> bool:
    return _line("/proc/sys/net/ipv4/ip_forward", "1") == "1"


def parse_cpu_list(text: str) -> frozenset[int]:
    """The numbers of a kernel list, "0-2,5"; InvalidArgument for anything else."""
    found: set[int] = set()
    for part in text.split(","):
        low, dash, high = part.partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()) or len(part) > 16:
            raise InvalidArgument(f"invalid format: {text}")
        first, last = int(low), int(high or low)
        if first > last or last > 1 << 16:
            raise InvalidArgument(f"invalid format: {text}")
        found.update(range(first, last + 1))
    return frozenset(found)


def _line(path: str, default: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.readline().strip() or default
    except OSError:
        return default


def _os_release() -> dict[str, str]:
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path, encoding="utf-8") as file:
                pairs = (line.strip().partition("=") for line in file)
                return {key: value.strip("\"'") for key, equals, value in pairs if equals}
        except OSError:
            continue
    return {}
