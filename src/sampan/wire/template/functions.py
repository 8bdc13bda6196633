"""The functions that a template may call: Go's own and those that Docker adds.

Each takes values and returns one; a failure is ValueError, whose text follows ``error calling NAME: ``.
"""

from __future__ import annotations

from sampan.wire.template.formatting import sprintf
from sampan.wire.template.values import Number, Struct, equal, kind, less, printed, printed_line, truth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _json(value: Any) -> str:
    from sampan.wire.template.values import to_json

    return to_json(value)


def _split(text: str, separator: str) -> list[str]:
    return text.split(separator) if separator else list(text)


def _join(values: Any, separator: str) -> str:
    if not all(isinstance(value, str) for value in values):
        raise ValueError("wrong type for value; expected []string; got []interface {}")
    return separator.join(values)


def _title(text: str) -> str:
    out, start = [], True
    for character in text:
        out.append(character.upper() if start else character)
        start = not (character.isalnum() or character == "_")
    return "".join(out)


def _pad(text: str, before: int, after: int) -> str:
    return " " * before + text + " " * after if text else text


def _truncate(text: str, length: int) -> str:
    if length < 0:
        raise ValueError(f"runtime error: slice bounds out of range [:{length}]")
    return text[:length] if len(text) > length else text


def _zero(value: dict[str, Any]) -> Any:
    """What a key that a map lacks is: empty text in a map of text."""
    texts = not isinstance(value, Struct) and all(isinstance(item, str) for item in value.values())
    return "" if texts else None


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            if not isinstance(key, str):
                raise ValueError(f"value has type {kind(key)}; should be string")
            value = value[key] if key in value else _zero(value)
        elif isinstance(value, (list, str, Number)):
            value = str(value) if isinstance(value, Number) else value
            if not isinstance(key, int) or isinstance(key, bool):
                raise ValueError(f"cannot index slice/array with type {kind(key)}")
            if not 0 <= key < len(value):
                raise ValueError(f"index out of range: {key}")
            value = value[key] if isinstance(value, list) else ord(value[key])
        elif value is None:
            raise ValueError("index of untyped nil")
        else:
            raise ValueError(f"can't index item of type {kind(value)}")
    return value


def _length(value: Any) -> int:
    if value is None:
        raise ValueError("reflect: call of reflect.Value.Type on zero Value")
    if isinstance(value, Number):
        return len(str(value))
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, (list, dict)):
        return len(value)
    raise ValueError(f"len of type {kind(value)}")


def _slice(value: Any, *bounds: int) -> Any:
    if value is None:
        raise ValueError("slice of untyped nil")
    if not isinstance(value, (str, list)):
        raise ValueError(f"can't slice item of type {kind(value)}")
    if len(bounds) == 3 and isinstance(value, str):
        raise ValueError("cannot 3-index slice a string")
    for bound in bounds:
        if not isinstance(bound, int) or isinstance(bound, bool):
            raise ValueError(f"cannot index slice/array with type {kind(bound)}")
    low = bounds[0] if bounds else 0
    high = bounds[1] if len(bounds) > 1 else len(value)
    for bound in (low, high):
        if not 0 <= bound <= len(value):
            raise ValueError(f"index out of range: {bound}")
    if low > high:
        raise ValueError(f"invalid slice index: {low} > {high}")
    return value[low:high]


def _equals(value: Any, *others: Any) -> bool:
    if not others:
        raise ValueError("missing argument for comparison")
    return any(equal(value, other) for other in others)


def _format(template: str, *values: Any) -> str:
    return sprintf(template, values)


def _html(*values: Any) -> str:
    text = printed("", values)
    for character, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;"), ("'", "&#39;")):
        text = text.replace(character, escaped)
    return text


_SCRIPT = {
    "\\": "\\\\",
    "'": "\\'",
    '"': '\\"',
    **{character: f"\\u{ord(character):04X}" for character in "<>&="},
}


def _js(*values: Any) -> str:
    """What JavaScript reads as the text between quotes."""
    text = printed("", values)
    return "".join(
        _SCRIPT.get(character) or (character if character.isprintable() else f"\\u{ord(character):04X}")
        for character in text
    )


def _call(value: Any, *_: Any) -> Any:
    """No value of a document is a function."""
    if value is None:
        raise ValueError("call of nil")
    raise ValueError(f"non-function {{}} of type {kind(value)}")


def _urlquery(*values: Any) -> str:
    from urllib.parse import quote_plus

    return quote_plus(printed("", values), errors="surrogateescape")


# name: (function, fewest arguments, most arguments or -1, types asked of each argument)
FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int, tuple[type, ...]]] = {
    "json": (_json, 1, 1, ()),
    "split": (_split, 2, 2, (str, str)),
    "join": (_join, 2, 2, (list, str)),
    "title": (_title, 1, 1, (str,)),
    "lower": (str.lower, 1, 1, (str,)),
    "upper": (str.upper, 1, 1, (str,)),
    "pad": (_pad, 3, 3, (str, int, int)),
    "truncate": (_truncate, 2, 2, (str, int)),
    "print": (lambda *values: printed("", values), 0, -1, ()),
    "println": (lambda *values: printed_line(values), 0, -1, ()),
    "printf": (_format, 1, -1, (str,)),
    "len": (_length, 1, 1, ()),
    "index": (_index, 1, -1, ()),
    "slice": (_slice, 1, 4, ()),
    "eq": (_equals, 1, -1, ()),
    "ne": (lambda one, two: not equal(one, two), 2, 2, ()),
    "lt": (less, 2, 2, ()),
    "le": (lambda one, two: less(one, two) or equal(one, two), 2, 2, ()),
    "gt": (lambda one, two: not (less(one, two) or equal(one, two)), 2, 2, ()),
    "ge": (lambda one, two: not less(one, two), 2, 2, ()),
    "not": (lambda value: not truth(value), 1, 1, ()),
    "call": (_call, 1, -1, ()),
    "js": (_js, 0, -1, ()),
    "html": (_html, 0, -1, ()),
    "urlquery": (_urlquery, 0, -1, ()),
}
