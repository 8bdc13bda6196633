"""Times and durations as Docker writes them. Times are nanoseconds since the epoch, 0 for "never"."""

from __future__ import annotations

import time

NEVER = "0001-01-01T00:00:00Z"
"""Go's zero time."""

SECOND = 1_000_000_000


def rfc3339(nanoseconds: int) -> str:
    """UTC with as many decimals as needed, at most nine: Go's RFC3339Nano."""
    if not nanoseconds:
        return NEVER
    seconds, rest = divmod(nanoseconds, SECOND)
    t = time.gmtime(seconds)
    whole = f"{t[0]:04}-{t[1]:02}-{t[2]:02}T{t[3]:02}:{t[4]:02}:{t[5]:02}"
    return f"{whole}.{rest:09}".rstrip("0") + "Z" if rest else whole + "Z"


def rfc3339_fixed(nanoseconds: int) -> str:
    """UTC with exactly nine decimals, as log lines are stamped."""
    seconds, rest = divmod(nanoseconds, SECOND)
    t = time.gmtime(seconds)
    return f"{t[0]:04}-{t[1]:02}-{t[2]:02}T{t[3]:02}:{t[4]:02}:{t[5]:02}.{rest:09}Z"


def human_duration(nanoseconds: int) -> str:
    """``5 seconds``, ``About a minute``, ``3 hours``: the words of `docker ps`."""
    seconds = nanoseconds // SECOND
    if seconds < 60:
        if seconds < 1:
            return "Less than a second"
        return "1 second" if seconds == 1 else f"{seconds} seconds"
    minutes = seconds // 60
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    hours = (nanoseconds + 1800 * SECOND) // (3600 * SECOND)
    if hours == 1:
        return "About an hour"
    for limit, unit, name in _UNITS:
        if hours < limit:
            return f"{hours // unit} {name}"
    return f"{seconds // 3600 // 24 // 365} years"


_UNITS = (
    (48, 1, "hours"),
    (24 * 14, 24, "days"),
    (24 * 60, 24 * 7, "weeks"),
    (24 * 365 * 2, 24 * 30, "months"),
)
