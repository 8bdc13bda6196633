"""What a container's health checks have found, as values. Times are nanoseconds since the epoch."""

from __future__ import annotations

import enum

import msgspec


class HealthStatus(enum.StrEnum):
    """Docker's words. ``NONE`` is what a container without a health check is filtered by."""

    NONE = "none"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    """One check. ``exit_code`` is the command's, -1 for one that could not be run or took too long."""

    start: int
    end: int
    exit_code: int
    output: str = ""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """``log`` holds the last results, oldest first, also of earlier runs."""

    status: HealthStatus = HealthStatus.STARTING
    failing_streak: int = 0
    log: tuple[ProbeResult, ...] = ()
