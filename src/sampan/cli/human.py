"""Numbers as people read them, by the rules of Docker's output: sizes, spans of time, dates."""

from __future__ import annotations

import time

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")


def _scaled(value: float, base: float, units: tuple[str, ...]) -> tuple[float, str]:
    at = 0
    while value >= base and at < len(units) - 1:
        value /= base
        at += 1
    return value, units[at]


def size(value: float, digits: int = 4) -> str:
    """Bytes in decimal units, ``digits`` significant: 1.234MB."""
    number, unit = _scaled(value, 1000.0, _DECIMAL)
    return f"{number:.{digits}g}{unit}"


def binary_size(value: float) -> str:
    """Bytes in binary units, four significant digits: 1.234MiB."""
    number, unit = _scaled(value, 1024.0, _BINARY)
    return f"{number:.4g}{unit}"


def span(seconds: float) -> str:
    """A span of time in one rough unit: "About a minute", "3 weeks"."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(seconds / 3600) // 24 // 365} years"


def ago(seconds: float) -> str:
    """``span`` of the time since ``seconds`` (epoch), with "ago"."""
    return f"{span(time.time() - seconds)} ago"


def epoch(text: str) -> float:
    """An RFC 3339 time as seconds since the epoch. Raises ValueError."""
    date, _, clock = text.partition("T")
    year, month, day = (int(part) for part in date.split("-"))
    zone = 0
    if clock.endswith("Z"):
        clock = clock[:-1]
    elif len(clock) > 6 and clock[-6] in "+-":
        zone = (int(clock[-5:-3]) * 60 + int(clock[-2:])) * (60 if clock[-6] == "+" else -60)
        clock = clock[:-6]
    hour, minute, second = clock.split(":")
    days = _days(year, month, day)
    return days * 86400 + int(hour) * 3600 + int(minute) * 60 + float(second) - zone


def _days(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 to a date of the proleptic Gregorian calendar."""
    year -= month <= 2
    era = year // 400
    in_era = year - era * 400
    in_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + in_era * 365 + in_era // 4 - in_era // 100 + in_year - 719468


def local_date(seconds: float) -> str:
    """Go's default form of a local time: 2024-01-02 03:04:05 +0000 UTC."""
    moment = time.localtime(seconds)
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", moment)


def printed(moment: str) -> str:
    """A time of the API in UTC as Go prints it: 2024-01-02 03:04:05.678 +0000 UTC; "" for none."""
    return moment.replace("T", " ", 1).replace("Z", " +0000 UTC")
