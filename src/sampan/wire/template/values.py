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
    """A document that is a struct in Docker's client: its fields are fixed and it prints without names."""

    __slots__ = ()


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
        return _float(value)
    if isinstance(value, list):
        return "[" + " ".join(shown(item) for item in value) + "]"
    if isinstance(value, Struct):
        return "{" + " ".join(shown(item) for item in value.values()) + "}"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{shown(value[key])}" for key in sorted(value)) + "]"
    return str(value)


def _float(value: float) -> str:
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    text = repr(value)
    mantissa, mark, exponent = text.partition("e")
    return f"{mantissa}e{exponent[0]}{exponent[1:].zfill(2)}" if mark else text


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
    for value in (one, two):
        if isinstance(value, (list, dict)):
            raise ValueError(f"non-comparable type {shown(value)}: {kind(value)}")
    if isinstance(one, Number) and isinstance(two, str):
        return str(one) == two
    if _basic(one) != _basic(two):
        raise ValueError("incompatible types for comparison")
    return bool(one == two)


def less(one: Any, two: Any) -> bool:
    """Go's lt. Raises ValueError for values that have no order."""
    if _basic(one) != _basic(two):
        raise ValueError("incompatible types for comparison")
    if _basic(one) not in ("number", "string"):
        raise ValueError("invalid type for comparison")
    return bool(one < two)


_KINDS = {bool: "bool", int: "int", float: "float64", str: "string", Number: "json.Number"}


def kind(value: Any) -> str:
    """The Go type that an error names."""
    if value is None:
        return "<nil>"
    if isinstance(value, list):
        return "[]interface {}"
    return _KINDS.get(type(value), "map[string]interface {}")


def _basic(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
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


_FLAGS = frozenset("+-# 0")


def verb(template: str, values: Sequence[Any]) -> str:
    """Go's Sprintf for the verbs that a template has a use for: v s q d x t f g e c %, with widths."""
    out: list[str] = []
    rest = list(values)
    at = 0
    while at < len(template):
        if template[at] != "%":
            end = template.find("%", at)
            end = len(template) if end < 0 else end
            out.append(template[at:end])
            at = end
            continue
        at, text = _directive(template, at + 1, rest)
        out.append(text)
    if rest:
        extra = ", ".join(f"{kind(value)}={shown(value)}" for value in rest)
        out.append(f"%!(EXTRA {extra})")
    return "".join(out)


def _directive(template: str, at: int, rest: list[Any]) -> tuple[int, str]:
    start = at
    while at < len(template) and (template[at] in _FLAGS or template[at].isdigit() or template[at] == "."):
        at += 1
    spec = template[start:at]
    if at >= len(template):
        return at, "%!(NOVERB)"
    letter = template[at]
    if letter == "%":
        return at + 1, "%"
    if not rest:
        return at + 1, f"%!{letter}(MISSING)"
    return at + 1, _formatted(spec, letter, rest.pop(0))


def _formatted(spec: str, letter: str, value: Any) -> str:
    flags = spec[: len(spec) - len(spec.lstrip("+-# 0"))]
    width, _, precision = spec[len(flags) :].partition(".")
    text = _verb(letter, value, precision)
    if text is None:
        return f"%!{letter}({kind(value)}={shown(value)})"
    if letter in ("s", "v", "q") and precision:
        text = text[: int(precision)]
    if "+" in flags and isinstance(value, (int, float)) and not text.startswith("-"):
        text = "+" + text
    if not width:
        return text
    if "-" in flags:
        return text.ljust(int(width))
    return text.zfill(int(width)) if "0" in flags and not isinstance(value, str) else text.rjust(int(width))


def _verb(letter: str, value: Any, precision: str) -> str | None:
    if letter in ("v", "s") and (letter == "v" or isinstance(value, (str, list, dict))):
        return shown(value)
    if letter == "q" and isinstance(value, str):
        from sampan.wire.quoting import quoted

        return quoted(value)
    if letter == "t" and isinstance(value, bool):
        return shown(value)
    if letter in "dxXoc" and isinstance(value, int) and not isinstance(value, bool):
        return chr(value) if letter == "c" else format(value, letter)
    if letter in "xX" and isinstance(value, str):
        return value.encode().hex()
    if letter in "feg" and isinstance(value, float):
        return format(value, f".{precision or 6}{letter}") if letter != "g" else shown(value)
    return None
