"""update: other limits for a container that exists."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from sampan.errors import Failure
from sampan.oci import shapes
from sampan.oci.container import Container
from sampan.oci.failure import Failed

if TYPE_CHECKING:
    from sampan.spec.runtime import LinuxResources

# flag → (section, field); sizes and counts as numbers, sets of CPUs as texts.
_NUMBERS = {
    "cpu-period": ("cpu", "period"),
    "cpu-quota": ("cpu", "quota"),
    "cpu-burst": ("cpu", "burst"),
    "cpu-share": ("cpu", "shares"),
    "cpu-rt-period": ("cpu", "realtimePeriod"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime"),
    "cpu-idle": ("cpu", "idle"),
    "memory": ("memory", "limit"),
    "memory-reservation": ("memory", "reservation"),
    "memory-swap": ("memory", "swap"),
    "kernel-memory-tcp": ("memory", "kernelTCP"),
    "pids-limit": ("pids", "limit"),
    "blkio-weight": ("blockIO", "weight"),
}
_TEXTS = {"cpuset-cpus": ("cpu", "cpus"), "cpuset-mems": ("cpu", "mems")}
_ABSENT = ("l3-cache-schema", "mem-bw-schema", "kernel-memory")


def update(root: str, given: dict[str, Any], container_id: str) -> int:
    """Change the limits that are mentioned, in a file (``-``: standard input) or by flags."""
    container = Container.load(root, container_id)
    for name in _ABSENT:
        if name in given:
            raise Failed(f"--{name} is not supported")
    resources = _from_file(given["resources"]) if given.get("resources") else _from_flags(given)
    resources.pop("devices", None)  # as runc: devices are settled when a container is created
    for section in ("memory", "cpu", "blockIO", "hugepageLimits", "unified", "pids"):
        if resources.get(section) is None:
            resources.pop(section, None)  # type: ignore[misc]
    try:
        container.cgroup.update(resources)
    except Failure as error:
        raise Failed(str(error)) from error
    return 0


def _from_file(path: str) -> LinuxResources:
    try:
        if path == "-":
            text = sys.stdin.read()
        else:
            with open(path) as file:
                text = file.read()
        found: LinuxResources = json.loads(text)
    except OSError as error:
        raise Failed(f"open {path}: {(error.strerror or '').lower()}") from error
    except ValueError as error:
        raise Failed(f"{path}: {error}") from error
    shapes.check(found, shapes.RESOURCES, "resources")
    return found


def _from_flags(given: dict[str, Any]) -> LinuxResources:
    found: dict[str, dict[str, Any]] = {}
    for flag, (section, name) in _NUMBERS.items():
        if flag in given:
            try:
                found.setdefault(section, {})[name] = int(given[flag])
            except ValueError:
                raise Failed(f"invalid value {given[flag]!r} for flag -{flag}") from None
    for flag, (section, name) in _TEXTS.items():
        if flag in given:
            found.setdefault(section, {})[name] = given[flag]
    if not found:
        raise Failed("no limits are given")
    return found  # type: ignore[return-value]
