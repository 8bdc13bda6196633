"""Kinds of flag values: text to value, with the errors that a Docker user knows.

Every reader takes the flag's text and returns the value, or raises ValueError whose text follows
``invalid argument "x" for "--flag" flag: ``. Kinds whose syntax is longer live in modules of their own and
are imported when such a flag is used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))

_UNITS = {"b": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def quoted(text: str) -> str:
    """``text`` as Go's %q shows it."""
    from sampan.wire.quoting import quoted as spelled  # only failures need it

    return spelled(text)


def boolean(text: str) -> bool:
    """As Go's strconv.ParseBool."""
    if text in TRUE:
        return True
    if text in FALSE:
        return False
    raise ValueError(f"strconv.ParseBool: parsing {quoted(text)}: invalid syntax")


def _number(text: str, function: str, low: int, high: int) -> int:
    digits = text[1:] if text[:1] in ("+", "-") and low < 0 else text
    lower = digits.lower()
    try:
        if lower.isdigit() and len(lower) > 1 and lower[0] == "0":
            value = int(lower, 8)
        elif digits[:1] in ("_", "+", "-", "") or digits != digits.strip():
            raise ValueError(text)
        else:
            value = int(lower, 0)
    except ValueError:
        raise ValueError(f"strconv.{function}: parsing {quoted(text)}: invalid syntax") from None
    value = -value if text[:1] == "-" and low < 0 else value
    if not low <= value <= high:
        raise ValueError(f"strconv.{function}: parsing {quoted(text)}: value out of range")
    return value


def integer(text: str) -> int:
    """A signed 64-bit integer, base prefixes allowed."""
    return _number(text, "ParseInt", -(1 << 63), (1 << 63) - 1)


def unsigned(text: str) -> int:
    """An unsigned 64-bit integer."""
    return _number(text, "ParseUint", 0, (1 << 64) - 1)


def unsigned16(text: str) -> int:
    """An unsigned 16-bit integer."""
    return _number(text, "ParseUint", 0, (1 << 16) - 1)


def size(text: str) -> int:
    """Bytes, as in ``512m`` or ``1.5GiB``; binary units whatever the spelling."""
    end = max((text.rfind(digit) for digit in "0123456789. "), default=-1)
    number, unit = text[: end + 1], text[end + 1 :].lower()
    if number.endswith(" "):
        number = number[:-1]
    if unit not in ("", "b"):
        stem = unit[0]
        if stem not in _UNITS or stem == "b" or unit[1:] not in ("", "b", "ib"):
            raise ValueError(f"invalid suffix: '{unit}'" if end >= 0 else f"invalid size: '{text}'")
    else:
        stem = "b"
    if end < 0:
        raise ValueError(f"invalid size: '{text}'")
    try:
        if number != number.strip():
            raise ValueError(number)
        value = float(number)
    except ValueError:
        raise ValueError(f"strconv.ParseFloat: parsing {quoted(number)}: invalid syntax") from None
    if value < 0:
        raise ValueError(f"invalid size: '{text}'")
    return int(value * 1024 ** _UNITS[stem])


def swap(text: str) -> int:
    """Bytes, or -1 for unlimited."""
    return -1 if text == "-1" else size(text)


def cpus(text: str) -> int:
    """A decimal number of CPUs or a fraction ``a/b``, in billionths of a CPU."""
    from fractions import Fraction

    try:
        if text != text.strip():
            raise ValueError(text)
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"failed to parse {text} as a rational number") from None
    nano = value * 1_000_000_000
    if nano.denominator != 1:
        raise ValueError("value is too precise")
    return int(nano)


def duration(text: str) -> int:
    """Go's durations (``1m30s``, ``1.5h``) in nanoseconds."""
    from sampan.wire.durations import parse

    return parse(text)


def filter_(text: str) -> tuple[str, str]:
    """``key=value`` of ``--filter``; the key is lower-cased as Docker does."""
    if not text:
        return "", ""
    key, sign, value = text.partition("=")
    if not sign:
        raise ValueError("bad format of filter (expected name=value)")
    return key.strip().lower(), value.strip()


def mapping(text: str) -> tuple[str, str]:
    """``key=value``; a missing value is empty."""
    key, _, value = text.partition("=")
    return key, value


def text_(text: str) -> str:
    return text


def _later(module: str, name: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        parsed = __import__(f"sampan.cli.{module}", fromlist=(name,))
        return getattr(parsed, name)(text)

    return read


class Kind:
    """How a flag's occurrences become its value.

    ``shown``: the word in help (None: a boolean). ``many``: values collect in a list.
    """

    __slots__ = ("empty", "many", "read", "shown")

    def __init__(
        self, read: Callable[[str], Any], shown: str, *, many: bool = False, empty: Any = ""
    ) -> None:
        self.read = read
        self.shown = shown
        self.many = many
        self.empty = empty


KINDS: dict[str, Kind] = {
    "bool": Kind(boolean, "", empty=False),
    "string": Kind(text_, "string"),
    "int": Kind(integer, "int", empty=0),
    "uint": Kind(unsigned, "uint", empty=0),
    "uint16": Kind(unsigned16, "uint16", empty=0),
    "list": Kind(text_, "list", many=True),
    "strings": Kind(lambda text: text.split(","), "strings", many=True),
    "sysctl": Kind(_later("limits", "sysctl"), "map", many=True),
    "map": Kind(mapping, "map", many=True),
    "stringToString": Kind(_later("fields", "assignments"), "stringToString", many=True),
    "bytes": Kind(size, "bytes", empty=0),
    "swap": Kind(swap, "bytes", empty=0),
    "decimal": Kind(cpus, "decimal", empty=0),
    "duration": Kind(duration, "duration", empty=0),
    "filter": Kind(filter_, "filter", many=True),
    "key": Kind(text_, "key"),
    "ulimit": Kind(_later("limits", "ulimit"), "ulimit", many=True),
    "mount": Kind(_later("mounts", "mount"), "mount", many=True),
    "network": Kind(_later("endpoints", "network"), "network", many=True),
    "gpu-request": Kind(_later("devices", "gpus"), "gpu-request", many=True),
    "env": Kind(_later("labels", "variable"), "list", many=True),
    "image-name": Kind(_later("build", "tag"), "list", many=True),
    "label": Kind(_later("labels", "label"), "list", many=True),
    "attach": Kind(_later("limits", "attachment"), "list", many=True),
    "volume": Kind(_later("mounts", "volume"), "list", many=True),
    "weight-device": Kind(_later("limits", "weight_device"), "list", many=True),
    "throttle-bps": Kind(_later("limits", "throttle_bytes"), "list", many=True),
    "throttle-iops": Kind(_later("limits", "throttle_operations"), "list", many=True),
    "link": Kind(_later("endpoints", "link"), "list", many=True),
    "dns": Kind(_later("endpoints", "address"), "list", many=True),
    "dns-search": Kind(_later("endpoints", "search_domain"), "list", many=True),
    "host-list": Kind(_later("endpoints", "extra_host"), "list", many=True),
    "device": Kind(_later("devices", "device"), "list", many=True),
    "device-rule": Kind(_later("devices", "cgroup_rule"), "list", many=True),
}


def starting(kind: str, default: str) -> Any:
    """A flag's value before it is given."""
    known = KINDS[kind]
    if known.many:
        return []
    return known.read(default) if default else known.empty
