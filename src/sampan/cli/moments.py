"""Times that a person writes for --since and --until: a date, seconds since the epoch, or a span ago."""

from __future__ import annotations

import time

from sampan.cli.human import epoch
from sampan.cli.values import duration

_PARTS = 6  # length of "+00:00"


def timestamp(text: str, flag: str) -> str:
    """``text`` as the API takes it: seconds with a fraction of nine digits. Raises ValueError."""
    if not text:
        return ""
    try:
        span = duration(text)
    except ValueError:
        pass
    else:
        return _seconds(time.time_ns() - span)
    whole, _, fraction = text.partition(".")
    if whole.lstrip("-").isdigit() and (not fraction or fraction.isdigit()):
        return text
    try:
        return _seconds(_date(text))
    except ValueError:
        raise ValueError(
            f'invalid value for "{flag}": failed to parse value as time or duration: "{text}"'
        ) from None


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds // 1_000_000_000}.{nanoseconds % 1_000_000_000:09d}"


def _date(text: str) -> int:
    """An RFC 3339 date, in whole or without seconds, minutes, hours or zone (then local), in nanoseconds."""
    date, mark, clock = text.partition("T")
    zoned = clock.endswith("Z") or (len(clock) > _PARTS and clock[-_PARTS] in "+-")
    zone = ""
    if zoned:
        zone = "Z" if clock.endswith("Z") else clock[-_PARTS:]
        clock = clock[: -len(zone)]
    parts = (clock.split(":") if mark else []) + ["0"] * 3
    hour, minute, second = parts[:3]
    whole, _, fraction = second.partition(".")
    nanoseconds = int((fraction or "0").ljust(9, "0")[:9])
    base = int(epoch(f"{date}T{hour}:{minute}:{whole}{zone or 'Z'}"))
    if not zoned:
        moment = time.gmtime(base)
        base = int(time.mktime((*moment[:8], -1)))
    return base * 1_000_000_000 + nanoseconds
