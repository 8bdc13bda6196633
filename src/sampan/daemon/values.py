"""The values of settings: from their form in ``daemon.json``, and from the texts of the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from sampan.daemon.directives import Directive, Kind
from sampan.errors import InvalidArgument

_KEPT = ("defaultKeepStorage", "defaultReservedSpace")
_BINARY = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def from_document(directive: Directive, value: Any) -> Any:
    """The value of a key as the file has it. InvalidArgument naming the key for one of another form."""
    try:
        found = _FROM_DOCUMENT[directive.kind](value)
    except InvalidArgument as error:
        raise InvalidArgument(f"{directive.key}: {error}") from None
    return check(directive, found)


def from_flag(directive: Directive, given: Any) -> Any:
    """The value of a flag: a text, or the texts of a repeated one. InvalidArgument as for the file."""
    try:
        return check(directive, _FROM_FLAG[directive.kind](given))
    except InvalidArgument as error:
        raise InvalidArgument(f"{directive.flags[-1]}: {error}") from None


def check(directive: Directive, value: Any) -> Any:
    """The value, if it is one of those that there are."""
    if directive.choices and value not in directive.choices:
        raise InvalidArgument(f"invalid {directive.key} {value!r}: use one of {', '.join(directive.choices)}")
    if directive.key == "labels":
        for label in value:
            if "=" not in label:
                raise InvalidArgument(f"bad attribute format: {label}; use KEY=VALUE")
    return value


def shape(value: Any) -> str:
    return "null" if value is None else json.dumps(value)[:40]


def spelled(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{name}:{value[name]}" for name in sorted(value)) + "]"
    return f"[{' '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidArgument(f"expected a text, not {shape(value)}")
    return value


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidArgument(f"expected true or false, not {shape(value)}")
    return value


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"expected a whole number, not {shape(value)}")
    return value


def _size(value: Any) -> int:
    if isinstance(value, str):
        return size(value)
    return _number(value)


def size(text: str) -> int:
    """A size in binary units ("64m", "1.5GiB"), as Docker reads sizes of memory."""
    word = text.strip().lower()
    for ending in ("ib", "b"):
        word = word.removesuffix(ending)
    unit = word[-1:] if word[-1:] in _BINARY else ""
    try:
        value = float(word.removesuffix(unit).strip())
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 50:
        raise InvalidArgument(f"invalid size: '{text}'")
    return int(value * _BINARY[unit])


def _list(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InvalidArgument(f"expected a list of texts, not {shape(value)}")
    return tuple(map(_text, value))


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidArgument(f"expected an object, not {shape(value)}")
    return value


def _map(value: Any) -> dict[str, str]:
    return {name: _text(text) for name, text in _object(value).items()}


def _lists(value: Any) -> dict[str, tuple[str, ...]]:
    return {name: _list(texts) for name, texts in _object(value).items()}


def _ulimits(value: Any) -> dict[str, tuple[int, int]]:
    found = {}
    for name, limit in _object(value).items():
        limit = _object(limit)
        soft, hard = _number(limit.get("Soft", 0)), _number(limit.get("Hard", 0))
        found[name] = _ordered(name, soft, hard)
    return found


def _ordered(name: str, soft: int, hard: int) -> tuple[int, int]:
    if hard != -1 and (soft > hard or soft == -1):
        raise InvalidArgument(
            f"ulimit {name}: soft limit must be less than or equal to hard limit: {soft} > {hard}"
        )
    return soft, hard


def _builder(value: Any) -> int | None:
    """The size of the build cache that may stay: dockerd's rules for it, as far as they are one size."""
    found = _object(value)
    gc = _object(found.get("gc", {}))
    for name in (*(found.keys() - {"gc"}), *(gc.keys() - {"enabled", *_KEPT})):
        raise InvalidArgument(f"{name} is not offered: gc has enabled and {_KEPT[0]}")
    if not _switch(gc.get("enabled", True)):
        return 0
    return next((_size(gc[name]) for name in _KEPT if name in gc), None)


def _runtimes(value: Any) -> dict[str, tuple[str, ...]]:
    """Name → path and arguments."""
    found = {}
    for name, runtime in _object(value).items():
        runtime = _object(runtime)
        path = _text(runtime.get("path", ""))
        if not path:
            raise InvalidArgument(f'runtime "{name}" has no path')
        found[name] = (path, *_list(runtime.get("runtimeArgs", [])))
    return found


def _pairs(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidArgument(f"invalid argument {text!r}: use NAME=VALUE")
        found[name] = value
    return found


def _ulimit_flags(texts: list[str]) -> dict[str, tuple[int, int]]:
    found = {}
    for name, value in _pairs(texts).items():
        soft, colon, hard = value.partition(":")
        found[name] = _ordered(name, _decimal(soft), _decimal(hard if colon else soft))
    return found


def _decimal(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidArgument(f"expected a whole number, not {text!r}") from None


def _switch_flag(text: str) -> bool:
    values = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
    if text.lower() not in values:
        raise InvalidArgument(f"expected true or false, not {text!r}")
    return values[text.lower()]


_FROM_DOCUMENT: Mapping[Kind, Callable[[Any], Any]] = {
    Kind.TEXT: _text,
    Kind.SWITCH: _switch,
    Kind.NUMBER: _number,
    Kind.SIZE: _size,
    Kind.LIST: _list,
    Kind.MAP: _map,
    Kind.LISTS: _lists,
    Kind.ULIMITS: _ulimits,
    Kind.RUNTIMES: _runtimes,
    Kind.BUILDER: _builder,
}

_FROM_FLAG: Mapping[Kind, Callable[[Any], Any]] = {
    Kind.TEXT: _text,
    Kind.SWITCH: _switch_flag,
    Kind.NUMBER: _decimal,
    Kind.SIZE: _size,
    Kind.BUILDER: size,
    Kind.LIST: tuple,
    Kind.MAP: _pairs,
    Kind.ULIMITS: _ulimit_flags,
    Kind.RUNTIMES: lambda texts: {name: (path,) for name, path in _pairs(texts).items()},
}
