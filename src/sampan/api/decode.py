"""From a JSON body to a typed value, as leniently as Go's decoder reads it.

Clients of Docker rely on three habits of Go: ``null`` leaves a field at its zero value, fields that nobody
knows are ignored, and field names match whatever their case. msgspec knows only the second, so a document is
first put into shape along the type it is meant for: every struct, mapping and sequence type has its
`Shaper`, made once. A ``null`` value in a mapping stays a key with a zero value (`{"80/tcp": null}` exposes
the port).
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from sampan.engine.model import ExecConfig
from sampan.errors import InvalidArgument

T = TypeVar("T")

Shaper: TypeAlias = Callable[[Any], Any]

_decode = msgspec.json.Decoder().decode
_INT64 = 1 << 63


def decode_json(body: bytes, kind: type[T], *, optional: bool = False) -> T:
    """Decode ``body`` into ``kind``. InvalidArgument in Docker's words for anything that is not one.

    An empty body is an error, or the type's defaults when ``optional``.
    """
    if not body.strip():
        if optional:
            return kind()
        raise InvalidArgument("invalid JSON: got EOF while reading request body")
    try:
        document = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"invalid JSON: {_syntax_error(body, str(error))}") from None
    except RecursionError:
        raise InvalidArgument("invalid JSON: exceeded max depth") from None
    if document is None:
        return kind()
    return convert(document, kind)


def decode_once(body: bytes) -> Any:
    """The document as whoever judges a request has to read it: with one meaning.

    InvalidArgument if an object has a name twice, whatever its case: one might be judged, another obeyed.
    """
    try:
        document = json.loads(body.decode("utf-8"), object_pairs_hook=_once)
        json.dumps(document, ensure_ascii=False).encode("utf-8")  # half a surrogate is no text
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"invalid JSON: {error}") from None
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key.lower() for key, _ in pairs}) < len(pairs):
        raise ValueError("a name is given twice")
    return dict(pairs)


def convert(document: Any, kind: type[T]) -> T:
    """A decoded document as a value of ``kind``; see `decode_json`."""
    shape = _shaper(kind)
    if shape:
        document = shape(document)
    try:
        value = msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid JSON: {_type_error(kind, document, str(error))}") from None
    if (place := _too_large(value, "$")) is not None:
        message = f"Expected `int`, got `int` - at `{place}`"
        raise InvalidArgument(f"invalid JSON: {_type_error(kind, document, message)}")
    return value


def _too_large(value: Any, path: str) -> str | None:
    """Where a decoded value has an integer that Go's int64 does not hold; as msgspec names places."""
    if isinstance(value, msgspec.Struct):
        names = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
        inner = ((getattr(value, name), f"{path}.{wire}") for name, wire in names)
    elif isinstance(value, dict):
        inner = ((item, f"{path}[...]") for item in value.values())
    elif isinstance(value, list | tuple):
        inner = ((item, f"{path}[...]") for item in value)
    else:
        large = type(value) is int and not -_INT64 <= value < _INT64
        return path if large else None
    return next((place for item, where in inner if (place := _too_large(item, where))), None)


_SHAPERS: dict[Any, Shaper | None] = {}


def _shaper(kind: Any) -> Shaper | None:
    """How a document for ``kind`` is put into shape; None when it needs nothing."""
    try:
        return _SHAPERS[kind]
    except KeyError:
        shaper = _SHAPERS[kind] = _make_shaper(kind)
        return shaper


def _make_shaper(kind: Any) -> Shaper | None:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _struct_shaper(kind)
    kind, nullable = _without_none(kind)
    origin = get_origin(kind)
    if nullable or origin is None:
        return _shaper(kind) if nullable else None
    if origin is dict:
        return _mapping_shaper(get_args(kind)[1])
    if origin in (tuple, list):
        return _sequence_shaper(get_args(kind)[0])
    return None


def _without_none(kind: Any) -> tuple[Any, bool]:
    """``X | None`` as (X, True), anything else as (itself, False)."""
    if get_origin(kind) in (types.UnionType, Union):
        members = [member for member in get_args(kind) if member is not type(None)]
        if len(members) == 1 and len(get_args(kind)) == 2:
            return members[0], True
    return kind, False


def _struct_shaper(kind: type[msgspec.Struct]) -> Shaper:
    hints = get_type_hints(kind)
    names = dict(zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True))
    shapers = {
        wire: _word_or_words if wire in _WORD_OR_WORDS and kind is not ExecConfig else _shaper(hints[name])
        for wire, name in names.items()
    }
    by_case = {wire.lower(): wire for wire in names}

    def shape(document: Any) -> Any:
        if not isinstance(document, dict):
            return document
        shaped = {}
        for key, value in document.items():
            if value is None:
                continue
            if key not in shapers:
                key = by_case.get(key.lower(), "")
                if not key or document.get(key) is not None:
                    continue
            inner = shapers[key]
            shaped[key] = inner(value) if inner else value
        return shaped

    return shape


_WORD_OR_WORDS = frozenset(("Cmd", "Entrypoint", "Shell"))
"""Commands of containers, which may be given as one string for a list of one; those of execs may not."""


def _word_or_words(document: Any) -> Any:
    return [document] if isinstance(document, str) else document


def _mapping_shaper(kind: Any) -> Shaper:
    inner = _shaper(kind)
    zero = _zero(kind)

    def shape(document: Any) -> Any:
        if not isinstance(document, dict):
            return document
        return {
            key: zero if value is None else inner(value) if inner else value
            for key, value in document.items()
        }

    return shape


def _sequence_shaper(kind: Any) -> Shaper:
    inner = _shaper(kind)
    zero = _zero(kind)

    def shape(document: Any) -> Any:
        if not isinstance(document, list):
            return document
        return [zero if value is None else inner(value) if inner else value for value in document]

    return shape


def _zero(kind: Any) -> Any:
    """The document that stands for Go's zero value of a type."""
    kind, nullable = _without_none(kind)
    if nullable:
        return None
    if kind in (str, int, bool, float):
        return kind()
    return [] if get_origin(kind) in (tuple, list) else {}


def _syntax_error(body: bytes, message: str) -> str:
    """msgspec's complaint in Go's words."""
    if "truncated" in message:
        return "unexpected EOF"
    position = message.rpartition("(byte ")[2].rstrip(")")
    if "trailing characters" in message:
        return "unexpected content after JSON"
    if wrong := _misspelt(body.strip()):
        return wrong
    if position.isdigit() and int(position) < len(body):
        return f"invalid character '{chr(body[int(position)])}' looking for beginning of value"
    return message


def _misspelt(body: bytes) -> str:
    """Go's words for a document that begins like a literal and goes on otherwise."""
    for word in (b"null", b"true", b"false"):
        if body[:1] == word[:1]:
            for found, expected in zip(body.decode("utf-8", "replace"), word.decode(), strict=False):
                if found != expected:
                    return f"invalid character '{found}' in literal {word.decode()} (expecting '{expected}')"
    return ""


_GO_INTS = frozenset(("StopTimeout", "MaximumRetryCount", "OomScoreAdj", "Retries"))
_GO_NAMES = {"ExecConfig": "ExecOptions"}
_GO_TYPES = {"int": "int64", "str": "string", "bool": "bool", "float": "float64"}
_JSON_TYPES = {"str": "string", "int": "number", "float": "number"}


def _type_error(kind: type, document: Any, message: str) -> str:
    """``Expected `int`, got `str` - at `$.HostConfig.Memory` `` in Go's words."""
    _, _, rest = message.partition(", got ")
    given, _, path = rest.partition(" - at ")
    given = given.strip("`")
    if not given:
        return message
    value = _JSON_TYPES.get(given, given)
    path = path.strip("`").replace("[...]", "[]")
    fields = [part.partition("[")[0] for part in path.split(".")[1:]]
    owner, target = _locate(kind, fields)
    for _ in range(path.rpartition(".")[2].count("[")):
        target = _element(target)
    wanted = _go_type(target)
    if fields and wanted == "int64":
        value = f"number {number}" if (number := _number_at(document, path)) else value
        wanted = "int" if fields[-1] in _GO_INTS else wanted
    elif fields and fields[-1] in _WORD_OR_WORDS and kind is not ExecConfig:
        wanted = "string"  # Go tries a list first and complains about the second attempt
    if not fields:
        return f"json: cannot unmarshal {value} into Go value of type {wanted}"
    where = f"{_GO_NAMES.get(owner, owner)}.{'.'.join(fields)}"
    return f"json: cannot unmarshal {value} into Go struct field {where} of type {wanted}"


def _number_at(document: Any, path: str) -> str:
    """The number at a path such as ``$.HostConfig.Memory``, as it was written; "" for anything else."""
    for name in path.split(".")[1:]:
        document = document.get(name) if isinstance(document, dict) else None
    return repr(document) if type(document) in (int, float) else ""


def _locate(kind: Any, fields: list[str]) -> tuple[str, Any]:
    """Name of the struct that has the last of ``fields`` below ``kind``, and that field's type."""
    owner = kind.__name__
    for wire in fields:
        while (element := _element(kind)) is not kind:
            kind = element
        owner = kind.__name__
        names = dict(zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True))
        kind = get_type_hints(kind)[names[wire]]
    return owner, _without_none(kind)[0]


def _element(kind: Any) -> Any:
    """What a sequence or mapping type holds; any other type itself (without its None)."""
    kind, _ = _without_none(kind)
    if get_origin(kind) in (tuple, list):
        return _without_none(get_args(kind)[0])[0]
    if get_origin(kind) is dict:
        return _without_none(get_args(kind)[1])[0]
    return kind


def _go_type(kind: Any) -> str:
    kind, _ = _without_none(kind)
    if get_origin(kind) in (tuple, list):
        return "[]" + _go_type(get_args(kind)[0])
    if get_origin(kind) is dict:
        return f"map[string]{_go_type(get_args(kind)[1])}"
    name = getattr(kind, "__name__", "string")
    return _GO_TYPES.get(name) or f"container.{name}"
