"""Limits: Docker's checks, in its order and words, and their form in an OCI specification.

``check`` returns the settled values and Docker's warnings about what this host discards; ``linux_resources``
translates settled values and cannot fail.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sampan.engine.host import HostFacts, parse_cpu_list
from sampan.engine.model import HostConfig, ThrottleDevice
from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from sampan.sandbox.cgroups import Features
    from sampan.spec.runtime import (
        BlockIo,
        Cpu,
        DeviceRule,
        LinuxResources,
        Memory,
        Rlimit,
        WeightDevice,
    )
    from sampan.spec.runtime import ThrottleDevice as Throttle

_MINIMUM_MEMORY = 6 << 20
_MOST_SHARES = 262144
_CFS_PERIOD = 100_000  # microseconds; what Docker divides --cpus by


# What a host may lack: (feature, the fields that need it, what Docker says when it discards them).
_LACKING = "Your kernel does not support {} or the cgroup is not mounted. {} discarded."
_NEEDS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "memory_reservation",
        ("memory_reservation",),
        _LACKING.format("memory soft limit capabilities", "Limitation"),
    ),
    ("cpu_shares", ("cpu_shares",), _LACKING.format("CPU shares", "Shares")),
    (
        "cpu_quota",
        ("cpu_period", "cpu_quota"),
        "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.",
    ),
    ("cpuset", ("cpuset_cpus", "cpuset_mems"), _LACKING.format("cpuset", "Cpuset")),
    ("blkio_weight", ("blkio_weight",), _LACKING.format("Block I/O weight", "Weight")),
    (
        "blkio_weight_device",
        ("blkio_weight_device",),
        _LACKING.format("Block I/O weight_device", "Weight-device"),
    ),
    (
        "blkio_throttle",
        ("blkio_device_read_bps",),
        _LACKING.format("BPS Block I/O read limit", "Block I/O BPS read limit"),
    ),
    (
        "blkio_throttle",
        ("blkio_device_write_bps",),
        _LACKING.format("BPS Block I/O write limit", "Block I/O BPS write limit"),
    ),
    (
        "blkio_throttle",
        ("blkio_device_read_iops",),
        _LACKING.format("IOPS Block read limit", "Block I/O IOPS read limit"),
    ),
    (
        "blkio_throttle",
        ("blkio_device_write_iops",),
        _LACKING.format("IOPS Block write limit", "Block I/O IOPS write limit"),
    ),
)


def check(host: HostConfig, facts: HostFacts, *, update: bool = False) -> tuple[HostConfig, list[str]]:
    """Raise InvalidArgument for limits that contradict each other; drop what the host cannot do.

    ``update``: they change those of a container, and what is zero is not meant.
    """
    warnings: list[str] = []
    host = _check_memory(host, facts, warnings, update=update)
    _check_cpu(host, facts)
    host = _discard(host, facts.limits, warnings)
    _check_cpuset(host, facts)
    _check_realtime(host, facts.limits)
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


def _discard(host: HostConfig, features: Features, warnings: list[str]) -> HostConfig:
    """Without what this host cannot limit, with Docker's warning for each."""
    fresh = HostConfig()
    for feature, fields, words in _NEEDS:
        if any(getattr(host, field) for field in fields) and not getattr(features, feature):
            warnings.append(words)
            host = replace(host, **{field: getattr(fresh, field) for field in fields})
    weighed = tuple(d for d in host.blkio_weight_device or () if _can_be_weighed(d.path))
    if len(weighed) < len(host.blkio_weight_device or ()):
        warnings.append(_LACKING.format("Block I/O weight_device", "Weight-device"))
        host = replace(host, blkio_weight_device=weighed or None)
    if host.pids_limit is not None and not features.pids_limit:
        if host.pids_limit > 0:
            warnings.append(_LACKING.format("PIDs limit capabilities", "PIDs limit"))
        host = replace(host, pids_limit=None)
    return host


def _can_be_weighed(path: str) -> bool:
    """Whether a device's scheduler gives weights (bfq does). One that is missing is told of at the start."""
    try:
        number = os.stat(path).st_rdev
        with open(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/queue/scheduler") as file:
            return "[bfq]" in file.read()
    except (OSError, ValueError):
        return not os.path.exists(path)


def _check_memory(host: HostConfig, facts: HostFacts, warnings: list[str], *, update: bool) -> HostConfig:
    features = facts.limits
    if host.memory_swappiness == -1:
        host = replace(host, memory_swappiness=None)  # docker's CLI sends -1 for "not set"
    if host.memory != 0 and host.memory < _MINIMUM_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if host.memory > 0 and not features.memory_limit:
        warnings.append(_LACKING.format("memory limit capabilities", "Limitation"))
        host = replace(host, memory=0, memory_swap=-1)
    if host.memory > 0 and host.memory_swap != -1 and not facts.swap_limit:
        warnings.append(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
            "Memory limited without swap."
        )
        host = replace(host, memory_swap=-1)
    if 0 < host.memory_swap < host.memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if host.memory == 0 and host.memory_swap > 0 and not update:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    host = _discard_memory(host, features, warnings)
    if host.memory_swappiness is not None and not 0 <= host.memory_swappiness <= 100:
        raise InvalidArgument(
            f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100"
        )
    if 0 < host.memory_reservation < _MINIMUM_MEMORY:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if 0 < host.memory < host.memory_reservation:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    return _check_kernel_memory(host, warnings)


def _discard_memory(host: HostConfig, features: Features, warnings: list[str]) -> HostConfig:
    if host.memory_swappiness is not None and not features.memory_swappiness:
        warnings.append(_LACKING.format("memory swappiness capabilities", "Memory swappiness"))
        host = replace(host, memory_swappiness=None)
    if host.oom_kill_disable is not None and not features.oom_kill_disable:
        if host.oom_kill_disable:
            warnings.append("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
        host = replace(host, oom_kill_disable=None)
    return host


def _check_kernel_memory(host: HostConfig, warnings: list[str]) -> HostConfig:
    """Clients before API 1.42 may ask for it; the kernel has it no more (since Linux 5.16)."""
    if host.kernel_memory > 0:
        warnings.append(
            "Specifying a kernel memory limit is deprecated and will be removed in a future release."
        )
        warnings.append(_LACKING.format("kernel memory limit capabilities", "Limitation"))
    return replace(host, kernel_memory=0) if host.kernel_memory else host


def _check_cpu(host: HostConfig, facts: HostFacts) -> None:
    if host.nano_cpus > 0 and host.cpu_period > 0:
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if host.nano_cpus > 0 and host.cpu_quota > 0:
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    if host.nano_cpus > 0 and not facts.limits.cpu_quota:
        raise InvalidArgument(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler "
            "or the cgroup is not mounted"
        )
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


def _check_realtime(host: HostConfig, features: Features) -> None:
    period, runtime = host.cpu_realtime_period, host.cpu_realtime_runtime
    if (period or runtime) and not features.cpu_realtime:
        raise InvalidArgument("Your kernel does not support CPU real-time scheduler")
    if period and runtime > period:
        raise InvalidArgument("cpu real-time runtime cannot be higher than cpu real-time period")


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
    if block_io := _block_io(host):
        result["blockIO"] = block_io
    return result


def _block_io(host: HostConfig) -> BlockIo:
    """InvalidArgument for a device that is not there; it is looked for at each start, as Docker does."""
    found: BlockIo = {}
    if host.blkio_weight:
        found["weight"] = host.blkio_weight
    if host.blkio_weight_device:
        found["weightDevice"] = [_weight(device.path, device.weight) for device in host.blkio_weight_device]
    if host.blkio_device_read_bps:
        found["throttleReadBpsDevice"] = _throttles(host.blkio_device_read_bps)
    if host.blkio_device_write_bps:
        found["throttleWriteBpsDevice"] = _throttles(host.blkio_device_write_bps)
    if host.blkio_device_read_iops:
        found["throttleReadIOPSDevice"] = _throttles(host.blkio_device_read_iops)
    if host.blkio_device_write_iops:
        found["throttleWriteIOPSDevice"] = _throttles(host.blkio_device_write_iops)
    return found


def _weight(path: str, weight: int) -> WeightDevice:
    major, minor = _numbers(path)
    return {"major": major, "minor": minor, "weight": weight}


def _throttles(devices: Iterable[ThrottleDevice]) -> list[Throttle]:
    found: list[Throttle] = []
    for device in devices:
        major, minor = _numbers(device.path)
        found.append({"major": major, "minor": minor, "rate": device.rate})
    return found


def _numbers(path: str) -> tuple[int, int]:
    try:
        number = os.stat(path).st_rdev
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", "") or str(error)
        raise InvalidArgument(f"stat {path}: {reason.lower()}") from error
    return os.major(number), os.minor(number)


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
    if host.cpu_realtime_period:
        cpu["realtimePeriod"] = host.cpu_realtime_period
    if host.cpu_realtime_runtime:
        cpu["realtimeRuntime"] = host.cpu_realtime_runtime
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
