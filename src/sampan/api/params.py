"""Query parameters by Docker's rules, which are Go's with Docker's own idea of a boolean."""

from __future__ import annotations

import msgspec

from sampan.engine.model import Filters
from sampan.errors import InvalidArgument

FALSE = frozenset(("", "0", "no", "false", "none"))
"""Everything else is true."""

_INT64 = 1 << 63


def unquote(text: str) -> str:
    """Decode %XX; sequences that are no UTF-8 become U+FFFD, a stray % stays as it is."""
    if "%" not in text:
        return text
    first, *rest = text.encode("utf-8", "surrogateescape").split(b"%")
    pieces = [first]
    for piece in rest:
        try:
            pieces.append(bytes((int(piece[:2], 16),)) + piece[2:] if len(piece) > 1 else b"%" + piece)
        except ValueError:
            pieces.append(b"%" + piece)
    return b"".join(pieces).decode("utf-8", "replace")


def parse_query(raw: str) -> dict[str, list[str]]:
    """``a=1&b=x%20y+z`` as values by name, in the order given."""
    values: dict[str, list[str]] = {}
    for pair in raw.split("&"):
        if pair:
            name, _, value = pair.partition("=")
            name, value = (unquote(part.replace("+", " ")) for part in (name, value))
            values.setdefault(name, []).append(value)
    return values


class Query:
    """The parameters of one request. Of a repeated parameter the first counts, as in Go."""

    __slots__ = ("_values",)

    def __init__(self, raw: str) -> None:
        self._values = parse_query(raw) if raw else {}

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str, default: str = "") -> str:
        values = self._values.get(name)
        return values[0] if values else default

    def texts(self, name: str) -> list[str]:
        """All values of a repeated parameter."""
        return self._values.get(name, [])

    def first(self) -> dict[str, str]:
        """Every parameter with the value that counts."""
        return {name: values[0] for name, values in self._values.items()}

    def flag(self, name: str, default: bool = False) -> bool:
        """Docker's boolean: absent gives the default; "", 0, no, false and none are false."""
        values = self._values.get(name)
        return values[0].strip().lower() not in FALSE if values else default

    def integer(self, name: str, default: int | None = None) -> int | None:
        """A 64-bit number; absent or empty gives the default. InvalidArgument in Go's words."""
        given = self.text(name)
        return integer(given, "Atoi") if given else default

    def required_integer(self, name: str) -> int:
        """A number that must be there."""
        return integer(self.text(name), "Atoi")

    def filters(self, name: str = "filters") -> Filters:
        """Filters, ``{"label": ["a=b"]}`` or ``{"label": {"a=b": true}}``; absent gives none.

        Only the JSON is checked here: which names and values a resource knows is its own affair.
        """
        return Filters.parse(self.text(name))


def integer(given: str, function: str) -> int:
    """Parse a decimal number as Go's strconv does; InvalidArgument carries its message."""
    digits = given[1:] if given[:1] in ("+", "-") else given
    if not (digits.isascii() and digits.isdigit()):
        raise InvalidArgument(f"strconv.{function}: parsing {quote(given)}: invalid syntax")
    value = int(given) if len(digits) < 20 else _INT64
    if not -_INT64 <= value < _INT64:
        raise InvalidArgument(f"strconv.{function}: parsing {quote(given)}: value out of range")
    return value


def quote(text: str) -> str:
    """A string in double quotes with Go's escapes, as its error messages show it."""
    return msgspec.json.encode(text).decode("utf-8")


def timestamp(given: str) -> int:
    """``seconds[.fraction]`` since the epoch in nanoseconds; "" is 0. InvalidArgument in Go's words."""
    if not given:
        return 0
    seconds, dot, fraction = given.partition(".")
    whole = integer(seconds, "ParseInt") * 1_000_000_000
    if not dot:
        return whole
    rest = integer(fraction, "ParseInt") if fraction else 0
    return whole + (rest * 10 ** (9 - len(fraction)) if len(fraction) < 10 else int(fraction[:9]))
