"""Signals by name or number, as Docker reads them: "SIGTERM", "term", "15", "RTMIN+3"."""

from __future__ import annotations

import signal as host_signals

from sampan.errors import InvalidArgument

DEFAULT_STOP_SIGNAL = "SIGTERM"

_RTMIN, _RTMAX = 34, 64  # glibc keeps 32 and 33 for itself
_NAMES = {
    member.name.removeprefix("SIG"): member.value
    for member in host_signals.Signals
    if member.name not in ("SIGRTMIN", "SIGRTMAX")
}
_NAMES |= {"RTMIN": _RTMIN, "RTMAX": _RTMAX, "STKFLT": 16}
# Second names: Go's clients may choose either.
_NAMES |= {"CLD": _NAMES["CHLD"], "POLL": _NAMES["IO"], "IOT": _NAMES["ABRT"]}
_NAMES |= {f"RTMIN+{n}": _RTMIN + n for n in range(1, 16)}
_NAMES |= {f"RTMAX-{n}": _RTMAX - n for n in range(1, 15)}
_NUMBERS = frozenset(_NAMES.values())


def number(text: str) -> int:
    """The number that a name or a number stands for; InvalidArgument("invalid signal: …") if it is neither.

    As in Docker a number need not be a signal that Linux has: see ``sendable``.
    """
    try:
        value = int(text)
    except ValueError:
        found = _NAMES.get(text.strip().upper().removeprefix("SIG"))
        if found is None:
            raise InvalidArgument(f"invalid signal: {text}") from None
        return found
    if value == 0:
        raise InvalidArgument(f"invalid signal: {text}")
    return value


def sendable(text: str) -> int:
    """The number of a signal that Linux has; InvalidArgument for any other."""
    value = number(text)
    if value not in _NUMBERS and not _RTMIN <= value <= _RTMAX:
        raise InvalidArgument(f"the linux daemon does not support signal {value}")
    return value
