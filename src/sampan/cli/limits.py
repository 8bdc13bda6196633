"""Values of --ulimit, --blkio-weight-device, --device-*-bps and -iops, --attach, --sysctl and --restart."""

from __future__ import annotations

from sampan.cli.values import size
from sampan.wire.quoting import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ULIMITS = frozenset(
    [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ]
)


def _limit(text: str) -> int:
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not digits.isascii() or not digits.isdigit():
        raise ValueError(f"strconv.ParseInt: parsing {quoted(text)}: invalid syntax")
    return int(text)


def ulimit(text: str) -> dict[str, Any]:
    """``name=soft[:hard]``; -1 is unlimited."""
    name, sign, rest = text.partition("=")
    if not sign:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    numbers = rest.split(":")
    if len(numbers) > 2:
        raise ValueError(f"too many limit value arguments - {rest}, can only have up to two, `soft[:hard]`")
    soft = _limit(numbers[0])
    hard = _limit(numbers[1]) if len(numbers) > 1 else soft
    if hard != -1:
        if soft == -1:
            raise ValueError(
                "ulimit soft limit must be less than or equal to hard limit: "
                f"soft: -1 (unlimited), hard: {hard}"
            )
        if soft > hard:
            raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return {"Name": name, "Hard": hard, "Soft": soft}


def _device(text: str) -> tuple[str, str]:
    path, sign, value = text.partition(":")
    if not sign:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    return path, value


def weight_device(text: str) -> dict[str, Any]:
    """``/dev/NAME:WEIGHT``."""
    path, value = _device(text)
    weight = int(value) if value.isascii() and value.isdigit() else -1
    if weight != 0 and not 10 <= weight <= 1000:
        raise ValueError(f"invalid weight for device: {text}")
    return {"Path": path, "Weight": weight}


def throttle_bytes(text: str) -> dict[str, Any]:
    """``/dev/NAME:RATE[UNIT]``, bytes per second."""
    path, value = _device(text)
    try:
        rate = size(value)
    except ValueError:
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. "
            "Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        ) from None
    return {"Path": path, "Rate": rate}


def throttle_operations(text: str) -> dict[str, Any]:
    """``/dev/NAME:RATE``, operations per second."""
    path, value = _device(text)
    if not value.isascii() or not value.isdigit():
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>. "
            "Number must be a positive integer"
        )
    return {"Path": path, "Rate": int(value)}


def attachment(text: str) -> str:
    """One of the three standard streams."""
    name = text.lower()
    if name not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return name


def sysctl(text: str) -> tuple[str, str]:
    """``key=value`` of a kernel parameter that a namespace has of its own."""
    key, sign, value = text.partition("=")
    allowed = key in _SYSCTLS or key.startswith(("net.", "fs.mqueue."))
    if not sign or not allowed:
        raise ValueError(f"sysctl '{text}' is not allowed")
    return key, value


_SYSCTLS = frozenset(
    [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ]
)


def restart_policy(text: str) -> dict[str, Any]:
    """``name[:count]`` as the API's RestartPolicy."""
    name, colon, count = text.partition(":")
    policy: dict[str, Any] = {"Name": name, "MaximumRetryCount": 0}
    if colon:
        if not name:
            raise ValueError("invalid restart policy format: no policy provided before colon")
        try:
            policy["MaximumRetryCount"] = int(count)
        except ValueError:
            raise ValueError(
                "invalid restart policy format: maximum retry count must be an integer"
            ) from None
    return policy
