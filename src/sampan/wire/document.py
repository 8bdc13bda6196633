"""JSON by the interpreter's C scanner and encoder, without ``import json``.

``json`` pulls in ``re`` and costs as much as half an interpreter start. The two C functions behind it do
all the work for well-formed text; where an interpreter lacks them, ``json`` itself is used.
"""

from __future__ import annotations

import _json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _parse_constant(name: str) -> float:
    return float(name.replace("Infinity", "inf"))


class _Rules:
    """What the C scanner asks of a decoder object."""

    strict = False
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_parse_constant)


def _refuse(value: object) -> Any:
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _scanner() -> Callable[[str, int], tuple[Any, int]]:
    make: Any = getattr(_json, "make_scanner", None)
    if make is None:  # an interpreter without the C accelerator
        import json

        return json.JSONDecoder(strict=False).raw_decode
    scan: Callable[[str, int], tuple[Any, int]] = make(_Rules)
    return scan


def _encoder() -> Callable[[Any], str]:
    try:
        make: Any = _json.make_encoder
        encode = make(None, _refuse, _json.encode_basestring, None, ":", ",", False, False, False)
    except (AttributeError, TypeError):  # the C encoder's arguments are not a stable interface
        import json

        return json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    return lambda value: "".join(encode(value, 0))


_scan = _scanner()
encode: Callable[[Any], str] = _encoder()


def decode(text: str | bytes) -> Any:
    """The value of a whole JSON text. Raises ValueError if it is not one."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    text = text.strip()
    try:
        value, end = _scan(text, 0)
    except StopIteration as error:
        raise ValueError("the text is not JSON") from error
    if end != len(text):
        raise ValueError("the text goes on after its JSON value")
    return value


class Stream:
    """Concatenated JSON values, fed in pieces cut anywhere.

    The daemon ends every value with a newline, so a value is complete when its line is.
    """

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Any]:
        """The values completed by ``data``."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        return [decode(line) for line in lines if line.strip()]

    def close(self) -> list[Any]:
        """A last value that no newline ended."""
        rest, self._rest = self._rest.strip(), b""
        return [decode(rest)] if rest else []
