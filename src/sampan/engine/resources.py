"""Limits: Docker's checks, in its order and words, and their form in an OCI specification.

``check`` returns the settled values and Docker's warnings about what this host discards; ``linux_resources``
translates settled values and cannot fail.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace

from sampan.engine.host import HostFacts, parse_cpu_list
from sampan.engine.model import DeviceMapping, HostConfig
from sampan.errors import InvalidArgument
from sampan.spec.runtime import device_rule

if TYPE_CHECKING:
    from sampan.spec.runtime import BlockIo, Cpu, Device, DeviceRule, LinuxResources, Memory, Rlimit

_MINIMUM_MEMORY = 6 << 20
_MOST_SHARES = 262144
_CFS_PERIOD = 100_000  # microseconds; what Docker divides --cpus by


def check(host: HostConfig, facts: HostFacts) -> tuple[HostConfig, list[str]]:
    """Raise InvalidArgument for limits that contradict each other; drop what the host cannot do."""
    warnings: list[str] = []
    host = _check_memory(host, facts, warnings)
    _check_cpu(host, facts)
    _check_cpuset(host, facts)
    _check_block_io(host)
    if host.cpu_percent:
        warnings.append("linux does not support CPU percent. Percent discarded.")
        host = replace(host, cpu_percent=0)
    if host.oom_kill_disable and not host.memory:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidArgument(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if host.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    return host, warnings


def _check_memory(host: HostConfig, facts: HostFacts, warnings: list[str]) -> HostConfig:
    if host.memory_swappiness == -1:
        host = replace(host, memory_swappiness=None)  # docker's CLI sends -1 for "not set"
    if host.memory != 0 and host.memory < _MINIMUM_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if host.memory > 0 and host.memory_swap != -1 and not facts.swap_limit:
        warnings.append(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
            "Memory limited without swap."
        )
        host = replace(host, memory_swap=-1)
    if 0 < host.memory_swap < host.memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if host.memory == 0 and host.memory_swap > 0:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if host.memory_swappiness is not None and not 0 <= host.memory_swappiness <= 100:
        raise InvalidArgument(
            f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100"
        )
    if 0 < host.memory_reservation < _MINIMUM_MEMORY:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if 0 < host.memory < host.memory_reservation:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    if facts.cgroup_version == "2":
        host = _discard_v1_only(host, warnings)
    return host


def _discard_v1_only(host: HostConfig, warnings: list[str]) -> HostConfig:
    if host.memory_swappiness is not None:
        warnings.append(
            "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. "
            "Memory swappiness discarded."
        )
    if host.oom_kill_disable:
        warnings.append("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
    return replace(host, memory_swappiness=None, oom_kill_disable=None)


def _check_cpu(host: HostConfig, facts: HostFacts) -> None:
    if host.nano_cpus > 0 and host.cpu_period > 0:
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if host.nano_cpus > 0 and host.cpu_quota > 0:
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    if not 0 <= host.nano_cpus <= facts.cpu_count * 1_000_000_000:
        count = facts.cpu_count
        raise InvalidArgument(
            f"Range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"
        )
    if host.cpu_shares < 0:
        raise InvalidArgument("shares: invalid argument")
    if host.cpu_shares == 1:
        raise InvalidArgument("the minimum allowed cpu-shares is 2")
    if host.cpu_shares > _MOST_SHARES:
        raise InvalidArgument(f"the maximum allowed cpu-shares is {_MOST_SHARES}")
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise InvalidArgument(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < host.cpu_quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")


def _check_cpuset(host: HostConfig, facts: HostFacts) -> None:
    for text, available, kind, words in (
        (host.cpuset_cpus, facts.cpus, "cpus", "CPUs"),
        (host.cpuset_mems, facts.memory_nodes, "mems", "memory nodes"),
    ):
        if not text:
            continue
        try:
            wanted = parse_cpu_list(text)
        except InvalidArgument as error:
            raise InvalidArgument(f"Invalid value {text} for cpuset {kind}: {error}") from error
        if not wanted <= parse_cpu_list(available):
            raise InvalidArgument(
                f"Requested {words} are not available - requested {text}, available: {available}"
            )


def _check_block_io(host: HostConfig) -> None:
    if host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    if host.io_maximum_bandwidth or host.io_maximum_iops:
        raise InvalidArgument(
            "Invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps"
        )


def linux_resources(host: HostConfig, devices: list[DeviceRule]) -> LinuxResources:
    """The limits of a settled host configuration; ``devices`` are the device rules, first rule first."""
    result: LinuxResources = {"devices": devices}
    if memory := _memory(host):
        result["memory"] = memory
    if cpu := _cpu(host):
        result["cpu"] = cpu
    if host.pids_limit:
        result["pids"] = {"limit": host.pids_limit if host.pids_limit > 0 else -1}
    if host.blkio_weight:
        weight: BlockIo = {"weight": host.blkio_weight}
        result["blockIO"] = weight
    return result


def _memory(host: HostConfig) -> Memory:
    memory: Memory = {}
    if host.memory > 0:
        memory["limit"] = host.memory
        if host.memory_swap:
            memory["swap"] = host.memory_swap
    if host.memory_reservation > 0:
        memory["reservation"] = host.memory_reservation
    if host.memory_swappiness is not None:
        memory["swappiness"] = host.memory_swappiness
    if host.oom_kill_disable:
        memory["disableOOMKiller"] = True
    return memory


def _cpu(host: HostConfig) -> Cpu:
    cpu: Cpu = {}
    if host.cpu_shares > 0:
        cpu["shares"] = host.cpu_shares
    if host.nano_cpus > 0:
        cpu["period"] = _CFS_PERIOD
        cpu["quota"] = host.nano_cpus * _CFS_PERIOD // 1_000_000_000
    if host.cpu_period:
        cpu["period"] = host.cpu_period
    if host.cpu_quota:
        cpu["quota"] = host.cpu_quota
    if host.cpuset_cpus:
        cpu["cpus"] = host.cpuset_cpus
    if host.cpuset_mems:
        cpu["mems"] = host.cpuset_mems
    return cpu


def rlimits(host: HostConfig, defaults: dict[str, tuple[int, int]]) -> list[Rlimit]:
    """``--ulimit`` over the daemon's defaults, by name."""
    limits = dict(defaults)
    for limit in host.ulimits or ():
        limits[limit.name.lower()] = (limit.soft, limit.hard)
    return [
        {"type": f"RLIMIT_{name.upper()}", "soft": _unlimited(soft), "hard": _unlimited(hard)}
        for name, (soft, hard) in limits.items()
    ]


def _unlimited(value: int) -> int:
    return (1 << 64) - 1 if value < 0 else value


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
