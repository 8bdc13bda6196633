"""Devices of the host for a container: by ``--device``, by ``--device-cgroup-rule``, all by ``--privileged``.

A device is a node, described by value, and a rule that lets the container's group use it.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Literal

from sampan.engine.model import DeviceMapping
from sampan.errors import InvalidArgument
from sampan.spec.runtime import device_rule

if TYPE_CHECKING:
    from sampan.spec.runtime import Device, DeviceRule


def device(mapping: DeviceMapping) -> list[tuple[Device, DeviceRule]]:
    """A ``--device`` as nodes and rules; a directory gives every device below it.

    InvalidArgument in Docker's words when there is none.
    """
    found: list[tuple[Device, DeviceRule]] = []
    source = mapping.path_on_host
    target = mapping.path_in_container or source
    access = mapping.cgroup_permissions or "rwm"
    try:
        if os.path.isdir(source):
            for path in device_paths(source):
                found.append(_device_node(path, target + path.removeprefix(source), access))
        else:
            found.append(_device_node(source, target, access))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InvalidArgument(
            f'error gathering device information while adding custom device "{source}": {reason}'
        ) from error
    return found


def host_devices() -> list[Device]:
    """Every device node of the host, for a privileged container."""
    nodes = []
    for path in device_paths("/dev"):
        try:
            nodes.append(_device_node(path, path, "rwm")[0])
        except OSError:
            continue  # it went away meanwhile
    return nodes


_NOT_LISTED = frozenset(("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"))
# The runtime makes these two itself: a terminal, and the multiplexer of the container's own devpts.
_MADE_BY_RUNTIME = frozenset(("console", "ptmx"))


def device_paths(directory: str) -> list[str]:
    """The device nodes below ``directory``, without links, the console and the terminals' directory."""
    paths = []
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda item: item.name):
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in _NOT_LISTED:
                    paths.extend(device_paths(entry.path))
            elif entry.name not in _MADE_BY_RUNTIME and not entry.is_symlink() and _is_device(entry):
                paths.append(entry.path)
    return paths


def _is_device(entry: os.DirEntry[str]) -> bool:
    mode = entry.stat(follow_symlinks=False).st_mode
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def _device_node(path: str, target: str, access: str) -> tuple[Device, DeviceRule]:
    info = os.stat(path)
    kind: Literal["b", "c"]
    if stat.S_ISCHR(info.st_mode):
        kind = "c"
    elif stat.S_ISBLK(info.st_mode):
        kind = "b"
    else:
        raise OSError(0, "not a device node")
    major, minor = os.major(info.st_rdev), os.minor(info.st_rdev)
    node: Device = {
        "type": kind,
        "path": target,
        "major": major,
        "minor": minor,
        "fileMode": stat.S_IMODE(info.st_mode),
        "uid": info.st_uid,
        "gid": info.st_gid,
    }
    return node, device_rule(kind, major, minor, access)


def parse_device_rule(text: str) -> DeviceRule:
    """A ``--device-cgroup-rule``: "c 13:* rwm"."""
    try:
        kind, numbers, access = text.split(" ")
        major, minor = numbers.split(":")
        if kind not in ("a", "b", "c") or not access or set(access) - set("rwm"):
            raise ValueError(text)
        rule: DeviceRule = {"allow": True, "access": access}
        if kind != "a":
            rule["type"] = "b" if kind == "b" else "c"
            if major != "*":
                rule["major"] = int(major)
            if minor != "*":
                rule["minor"] = int(minor)
    except ValueError:
        raise InvalidArgument(f"invalid device cgroup rule format: '{text}'") from None
    return rule
