"""What a container uses, in the shape of GET /containers/{id}/stats.

Docker's shape is that of cgroup version 1; on version 2 it fills what it can (percpu_usage, max_usage and all
of blkio_stats but the bytes are absent), and so do we.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sampan.api.render.times import NEVER, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sampan.engine.stats import Reading, Sample
    from sampan.runtime.usage import Usage
    from sampan.sandbox.cgroups import BlockIo, Stats

JSONObject = dict[str, Any]

_BLKIO = (
    "io_service_bytes_recursive",
    "io_serviced_recursive",
    "io_queue_recursive",
    "io_service_time_recursive",
    "io_wait_time_recursive",
    "io_merged_recursive",
    "io_time_recursive",
    "sectors_recursive",
)
_NO_CPU: JSONObject = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}


def stats(reading: Reading, version: tuple[int, int], *, memory_total: int) -> JSONObject:
    """One document of the stream; ``memory_total`` is the host's, for containers without a limit."""
    now, before = reading.now, reading.before
    shown: JSONObject = {
        "name": "/" + reading.name,
        "id": reading.container_id,
        "read": _moment(now),
        "preread": _moment(before),
        "pids_stats": {},
        "blkio_stats": dict.fromkeys(_BLKIO),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _NO_CPU,
        "precpu_stats": _cpu(before.usage) if before is not None else _NO_CPU,
        "memory_stats": {},
    }
    if version >= (1, 52):
        shown["os_type"] = "linux"
    if now is None:
        return shown
    usage = now.usage
    shown["pids_stats"] = _pids(usage.group)
    shown["blkio_stats"] = _block_io(usage)
    shown["cpu_stats"] = _cpu(usage)
    shown["memory_stats"] = _memory(usage, memory_total)
    if usage.networks:
        shown["networks"] = {name: asdict(traffic) for name, traffic in usage.networks.items()}
    return shown


def _moment(sample: Sample | None) -> str:
    return rfc3339(sample.at) if sample is not None else NEVER


def _pids(group: Stats) -> JSONObject:
    shown = {"current": group.pids}
    if group.pids_limit is not None:
        shown["limit"] = group.pids_limit
    return shown


def _cpu(usage: Usage) -> JSONObject:
    group = usage.group
    used: JSONObject = {"total_usage": group.cpu_total}
    if group.cpu_each:
        used["percpu_usage"] = group.cpu_each[: usage.cpus]
    used["usage_in_kernelmode"] = group.cpu_kernel
    used["usage_in_usermode"] = group.cpu_user
    return {
        "cpu_usage": used,
        "system_cpu_usage": usage.host_cpu,
        "online_cpus": usage.cpus,
        "throttling_data": {
            "periods": group.cpu_periods,
            "throttled_periods": group.cpu_throttled_periods,
            "throttled_time": group.cpu_throttled,
        },
    }


def _memory(usage: Usage, memory_total: int) -> JSONObject:
    group = usage.group
    shown: JSONObject = {"usage": group.memory_usage}
    if not usage.unified:
        shown["max_usage"] = group.memory_peak
    shown["stats"] = group.memory_details
    if group.memory_failures and not usage.unified:
        shown["failcnt"] = group.memory_failures
    limit = group.memory_limit
    shown["limit"] = memory_total if limit is None else min(limit, memory_total)
    return shown


def _block_io(usage: Usage) -> JSONObject:
    group = usage.group
    shown: JSONObject = dict.fromkeys(_BLKIO, None if usage.unified else ())
    if usage.unified:
        shown["io_service_bytes_recursive"] = _operations(
            entry for entry in group.blkio_bytes if entry.operation in ("Read", "Write")
        )
        for entry in shown["io_service_bytes_recursive"]:
            entry["op"] = entry["op"].lower()
    else:
        shown["io_service_bytes_recursive"] = _operations(group.blkio_bytes)
        shown["io_serviced_recursive"] = _operations(group.blkio_operations)
    return shown


def _operations(entries: Iterable[BlockIo]) -> list[JSONObject]:
    return [
        {"major": entry.major, "minor": entry.minor, "op": entry.operation, "value": entry.value}
        for entry in entries
    ]
