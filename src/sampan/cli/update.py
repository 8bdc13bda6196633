"""``update``: other limits and another restart policy for containers, running or not."""

from __future__ import annotations

from sampan.cli.command import Command, Options, UsageError
from sampan.cli.context import Context, each, out
from sampan.client.api import segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.command import Flag

_FLAGS: tuple[Flag, ...] = (
    ("", "blkio-weight", "uint16", "Relative weight of block IO, 10 to 1000, or 0 for none", "0"),
    ("", "cpu-period", "int", "Period of the CPU bandwidth limit, in microseconds"),
    ("", "cpu-quota", "int", "CPU time allowed in each period, in microseconds"),
    ("", "cpu-rt-period", "int", "Period of the real-time CPU limit, in microseconds"),
    ("", "cpu-rt-runtime", "int", "Real-time CPU time allowed in each period, in microseconds"),
    ("c", "cpu-shares", "int", "Relative weight of CPU time"),
    ("", "cpus", "decimal", "Number of CPUs that may be used at once"),
    ("", "cpuset-cpus", "string", "CPUs that may be used (0-3, 0,1)"),
    ("", "cpuset-mems", "string", "Memory nodes that may be used (0-3, 0,1)"),
    ("", "kernel-memory", "bytes", ""),
    ("m", "memory", "bytes", "Limit of memory"),
    ("", "memory-reservation", "bytes", "Memory that is kept when the host runs short"),
    ("", "memory-swap", "swap", "Limit of memory and swap together: '-1' for any amount of swap"),
    ("", "pids-limit", "int", "Limit of the number of processes (-1 for none)"),
    ("", "restart", "string", "What to do when the container exits"),
)

_FIELDS = (
    ("blkio-weight", "BlkioWeight"),
    ("cpu-period", "CpuPeriod"),
    ("cpu-quota", "CpuQuota"),
    ("cpu-rt-period", "CpuRealtimePeriod"),
    ("cpu-rt-runtime", "CpuRealtimeRuntime"),
    ("cpu-shares", "CpuShares"),
    ("cpus", "NanoCpus"),
    ("cpuset-cpus", "CpusetCpus"),
    ("cpuset-mems", "CpusetMems"),
    ("kernel-memory", "KernelMemory"),
    ("memory", "Memory"),
    ("memory-reservation", "MemoryReservation"),
    ("memory-swap", "MemorySwap"),
    ("pids-limit", "PidsLimit"),
)


def _update(context: Context, options: Options, arguments: list[str]) -> int:
    if not options.given:
        raise UsageError("you must provide one or more flags when using this command")
    body: dict[str, Any] = {key: options[flag] for flag, key in _FIELDS if flag in options.given}
    if options["restart"]:
        from sampan.cli.limits import restart_policy

        try:
            body["RestartPolicy"] = restart_policy(options["restart"])
        except ValueError as error:
            raise UsageError(str(error)) from error
    warnings: list[str] = []

    def change(name: str) -> None:
        answer = context.client.call("POST", f"/containers/{segment(name)}/update", None, body)
        warnings.extend(answer.get("Warnings") or ())

    code = each(arguments, change)
    for warning in warnings:
        out(warning)
    return code


COMMANDS: tuple[Command, ...] = (
    Command(
        "update",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Update configuration of one or more containers",
        _update,
        flags=_FLAGS,
        least=1,
        aliases=("container update", "update"),
    ),
)
