"""Go's durations: ``1m30s``, ``1.5h``, ``700ms``. Values are nanoseconds."""

from __future__ import annotations

from sampan.wire.quoting import quoted

_SECOND = 1_000_000_000
UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": _SECOND,
    "m": 60 * _SECOND,
    "h": 3600 * _SECOND,
}


def parse(text: str) -> int:
    """The value of ``text``; ValueError in Go's words."""
    bad = ValueError(f"time: invalid duration {quoted(text)}")
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0
    if not rest:
        raise bad
    total = 0.0
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        number, rest = rest[:digits], rest[digits:]
        if not number or number.count(".") > 1 or number == ".":
            raise bad
        letters = next((at for at, one in enumerate(rest) if one in "0123456789."), len(rest))
        unit, rest = rest[:letters], rest[letters:]
        if not unit:
            raise ValueError(f"time: missing unit in duration {quoted(text)}")
        if unit not in UNITS:
            raise ValueError(f"time: unknown unit {quoted(unit)} in duration {quoted(text)}")
        total += float(number) * UNITS[unit]
    if total >= 1 << 63:
        raise bad
    return int(-total if text[0] == "-" else total)


def shown(duration: int) -> str:
    """As Go prints it: ``1m30s``, ``700ms``, ``1.5s``, ``0s``."""
    sign, rest = ("-", -duration) if duration < 0 else ("", duration)
    if rest < _SECOND:
        unit = next((unit for unit in ("ms", "µs", "ns") if rest >= UNITS[unit]), "s")
        return f"{sign}{_decimal(rest, UNITS[unit])}{unit}"
    minutes, seconds = divmod(rest, 60 * _SECOND)
    text = f"{_decimal(seconds, _SECOND)}s"
    if minutes:
        hours, minutes = divmod(minutes, 60)
        text = f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"
    return sign + text


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    return f"{whole}.{rest:0{len(str(unit)) - 1}d}".rstrip("0").rstrip(".") if rest else str(whole)
