"""Values as Go prints, compares and judges them, for values that came from JSON."""

from __future__ import annotations

from sampan.wire import document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class Missing:
    """A field that a map does not have. Prints as ``<no value>``; is false."""

    __slots__ = ()


NO_VALUE = Missing()


class Struct(dict[str, "Any"]):
    """A document that is a struct in Docker's client: its fields are fixed and it prints without names.

    ``absent`` has the values of fields that a document may leave out.
    """

    __slots__ = ("absent",)

    def __init__(self, fields: Any = (), absent: dict[str, Any] | None = None) -> None:
        super().__init__(fields)
        self.absent = absent or {}


class Number(int):
    """A number that came from JSON: Docker keeps its text beside its value, so it compares with text too."""

    __slots__ = ()


class NoList(list["Any"]):
    """A list that the document does not have: empty to a template, null in JSON."""

    __slots__ = ()


class NoMap(dict[str, "Any"]):
    """A map that the document does not have: empty to a template, null in JSON."""

    __slots__ = ()


def truth(value: Any) -> bool:
    """Whether Go's ``if`` takes ``value``: non-zero, non-empty, present."""
    if value is None or isinstance(value, Missing):
        return False
    if isinstance(value, (bool, int, float, str, list, dict)):
        return bool(value)
    return True


def shown(value: Any) -> str:
    """``value`` as Go's %v."""
    if isinstance(value, str):
        return value
    if value is True:
        return "true"
    if value is False:
        return "false"
    if value is None:
        return "<nil>"
    if isinstance(value, Missing):
        return "<no value>"
    if isinstance(value, float):
        return general(value)
    if isinstance(value, complex):
        return f"({general(value.real)}{value.imag:+g}i)"
    if isinstance(value, list):
        return "[" + " ".join(shown(item) for item in value) + "]"
    if isinstance(value, Struct):
        return "{" + " ".join(shown(item) for item in value.values()) + "}"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{shown(value[key])}" for key in sorted(value)) + "]"
    return str(value)


def general(value: float) -> str:
    """A float by %v: the shortest digits that give it back, with an exponent from 1e6 on or below 1e-4."""
    if not value:
        return "0"
    digits, _, exponent = f"{abs(value):e}".partition("e")
    if -5 < int(exponent) < 6:
        text = repr(abs(value)).removesuffix(".0")
    else:
        shortest = f"{abs(value)!r}".replace(".", "").partition("e")[0].strip("0")
        digits = shortest[0] + ("." + shortest[1:] if len(shortest) > 1 else "")
        text = f"{digits}e{int(exponent):+03d}"
    return "-" + text if value < 0 else text


def printed(separator: str, values: Sequence[Any]) -> str:
    """Go's Sprint: a space between two values neither of which is a string."""
    out: list[str] = []
    for at, value in enumerate(values):
        if at and not isinstance(value, str) and not isinstance(values[at - 1], str):
            out.append(separator or " ")
        out.append(shown(value))
    return "".join(out)


def printed_line(values: Sequence[Any]) -> str:
    """Go's Sprintln."""
    return " ".join(shown(value) for value in values) + "\n"


def equal(one: Any, two: Any) -> bool:
    """Go's eq. Raises ValueError for values that cannot be compared."""
    if one is None or two is None:
        return one is two
    if not (_is_flat(one) and _is_flat(two)):
        for value in (one, two):
            if isinstance(value, (list, dict)):
                raise ValueError(f"non-comparable type {shown(value)}: {kind(value)}")
    if isinstance(one, Number) and isinstance(two, str):
        return str(one) == two
    if _basic(one) != _basic(two):
        raise ValueError("incompatible types for comparison")
    return bool(one == two)


def _is_flat(value: Any) -> bool:
    """Whether Go compares the value by its parts: a struct without lists or maps."""
    return isinstance(value, Struct) and not any(isinstance(part, (list, dict)) for part in value.values())


def less(one: Any, two: Any) -> bool:
    """Go's lt. Raises ValueError for values that have no order."""
    if _basic(one) == "other" or _basic(one) == "bool" == _basic(two):
        raise ValueError("invalid type for comparison")
    if _basic(one) != _basic(two):
        raise ValueError("incompatible types for comparison")
    return bool(one < two)


_KINDS = {
    bool: "bool",
    int: "int",
    float: "float64",
    complex: "complex128",
    str: "string",
    Number: "json.Number",
}


def kind(value: Any) -> str:
    """The Go type that an error names."""
    if value is None:
        return "<nil>"
    if isinstance(value, list):
        return "[]interface {}"
    return _KINDS.get(type(value), "map[string]interface {}")


def go_type(value: Any) -> str:
    """The type of a value in Docker's client, as far as the value tells."""
    if isinstance(value, Number):
        return "int"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "[]string"
    return kind(value)


def _basic(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float"
    return "string" if isinstance(value, str) else "other"


def to_json(value: Any) -> str:
    """``value`` as Go's encoder writes it without HTML escapes; keys in the order they came."""
    if hasattr(value, "as_json"):
        return str(value.as_json())
    return document.encode(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, (NoList, NoMap, Missing)):
        return None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, Number) else value
