"""What callers ask for: filters, list and log queries, and the records they get back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from sampan.errors import InvalidArgument


class Filters:
    """Docker's filter argument: key → set of values, an OR within a key and an AND between keys.

    Built from either wire form, ``{"k": ["v"]}`` or ``{"k": {"v": true}}``.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self._values: dict[str, tuple[str, ...]] = dict(values or {})

    @classmethod
    def parse(cls, text: str | bytes | None) -> Filters:
        """Decode the query parameter ``filters``; InvalidArgument when it is neither form."""
        if not text:
            return cls()
        try:
            raw = msgspec.json.decode(text, type=dict[str, list[str] | dict[str, bool] | None])
        except msgspec.MsgspecError as error:
            raise InvalidArgument("invalid filter") from error
        return cls(
            {
                key: tuple(value if isinstance(value, list) else (v for v, on in value.items() if on))
                for key, value in raw.items()
                if value is not None
            }
        )

    def __bool__(self) -> bool:
        return bool(self._values)

    def __contains__(self, key: object) -> bool:
        return bool(self._values.get(key, ())) if isinstance(key, str) else False

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filters) and self._values == other._values

    def __hash__(self) -> int:
        return hash(tuple(sorted(self._values.items())))

    def __repr__(self) -> str:
        return f"Filters({self._values!r})"

    def get(self, key: str) -> tuple[str, ...]:
        """The values of ``key``, empty when it was not given."""
        return self._values.get(key, ())

    def accept(self, allowed: frozenset[str]) -> None:
        """Raise InvalidArgument in Docker's words for a key that this listing does not know."""
        for key in self._values:
            if key not in allowed:
                raise InvalidArgument(f"invalid filter '{key}'")

    def flag(self, key: str) -> bool | None:
        """The truth value of ``key`` (true, 1 or false, 0), None when not given."""
        values = self.get(key)
        if not values:
            return None
        words = {"1": True, "true": True, "0": False, "false": False}
        found = {words.get(value) for value in values}
        if len(found) != 1 or None in found:
            raise InvalidArgument(f"invalid filter '{key}=[{' '.join(values)}]'")
        return found.pop()

    def matches_labels(self, labels: Mapping[str, str] | None, key: str = "label") -> bool:
        """Whether ``labels`` carry every ``label`` or ``label=value`` asked for under ``key``."""
        for wanted in self.get(key):
            name, separator, value = wanted.partition("=")
            if labels is None or name not in labels or (separator and labels[name] != value):
                return False
        return True


class ListQuery(msgspec.Struct, frozen=True, kw_only=True):
    """``all``: also those not running; ``limit`` > 0: only the latest created, in any state."""

    all: bool = False
    limit: int = 0
    filters: Filters = Filters()


class LogQuery(msgspec.Struct, frozen=True, kw_only=True):
    """``since`` and ``until`` are nanoseconds (0: open); ``tail`` None means all lines."""

    follow: bool = False
    stdout: bool = False
    stderr: bool = False
    since: int = 0
    until: int = 0
    tail: int | None = None
