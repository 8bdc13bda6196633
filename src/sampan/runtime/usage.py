"""What a running container uses, read from the kernel: its cgroup, its interfaces, and the host's clock.

Everything here blocks for a fraction of a millisecond a container and is called in a thread. Of a container
that ends while it is read comes what could still be read, or nothing.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass

from sampan.sandbox import cgroups
from sampan.sandbox.cgroups import Stats

_TICKS = os.sysconf("SC_CLK_TCK")
_SECOND = 1_000_000_000
_BUSY_FIELDS = 7  # user to softirq: what Docker counts as the host's time
_OWN_INTERFACE = "eth"  # how the engine names what it puts into a container


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Counters of one interface, as seen from inside the container."""

    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """``host_cpu`` is the time of all CPUs since boot, in nanoseconds; ``cpus`` how many are online.

    ``networks`` is by the interface's name inside. ``unified``: the group is of version 2.
    """

    group: Stats
    networks: dict[str, Traffic]
    host_cpu: int
    cpus: int
    unified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A running container to measure. ``own_network``: it has interfaces, those of the host are nobody's."""

    cgroup: str
    pid: int
    own_network: bool


class Gauges:
    """Reads many containers in one go: the host's clock is read once for all of them."""

    @functools.cached_property
    def _hierarchy(self) -> cgroups.Hierarchy:
        return cgroups.detect()

    def read(self, targets: Mapping[str, Target]) -> dict[str, Usage]:
        """The usage of each target by the key it was given; one whose cgroup is gone is left out."""
        hierarchy = self._hierarchy
        host_cpu, cpus = host_clock(_text("/proc/stat"))
        found = {}
        for key, target in targets.items():
            try:
                stats = hierarchy.group(target.cgroup).stats()
            except OSError:
                continue
            found[key] = Usage(
                group=stats,
                networks=_networks(target),
                host_cpu=host_cpu,
                cpus=cpus,
                unified=hierarchy.version == 2,
            )
        return found

    def processes(self, cgroup: str) -> list[int]:
        """The processes of a container, those of execs included; empty once it is gone."""
        return self._hierarchy.group(cgroup).pids()


def _networks(target: Target) -> dict[str, Traffic]:
    if not target.own_network:
        return {}
    try:
        return interfaces(_text(f"/proc/{target.pid}/net/dev"))
    except OSError:
        return {}


def host_clock(text: str) -> tuple[int, int]:
    """(nanoseconds of all CPUs since boot, how many are online) from /proc/stat."""
    total = cpus = 0
    for line in text.splitlines():
        name, *fields = line.split()
        if name == "cpu":
            total = sum(map(int, fields[:_BUSY_FIELDS])) * _SECOND // _TICKS
        elif name.startswith("cpu"):
            cpus += 1
        else:
            break  # the CPUs come first
    return total, cpus


def interfaces(text: str) -> dict[str, Traffic]:
    """Counters by interface from /proc/PID/net/dev, of those that the engine made."""
    found = {}
    for line in text.splitlines():
        name, colon, rest = line.strip().partition(":")
        if colon and name.startswith(_OWN_INTERFACE) and name[len(_OWN_INTERFACE) :].isdigit():
            numbers = [int(number) for number in rest.split()]
            found[name] = Traffic(
                rx_bytes=numbers[0],
                rx_packets=numbers[1],
                rx_errors=numbers[2],
                rx_dropped=numbers[3],
                tx_bytes=numbers[8],
                tx_packets=numbers[9],
                tx_errors=numbers[10],
                tx_dropped=numbers[11],
            )
    return found


def _text(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()
