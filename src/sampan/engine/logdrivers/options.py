"""Options of log drivers: how their values are read, and what all drivers have.

Every function raises InvalidArgument in Docker's words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from sampan.errors import InvalidArgument
from sampan.wire import durations
from sampan.wire.quoting import quoted

Options = Mapping[str, str]

COMMON = frozenset(("labels", "labels-regex", "env", "env-regex", "tag"))
"""What every driver but none takes, beside ``GENERAL``."""

GENERAL = frozenset(("mode", "max-buffer-size"))
CACHE = frozenset(("cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"))
"""The local copy of a driver that sends records elsewhere."""

BUFFER = 1 << 20  # max-buffer-size, when it is not said

_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?", re.IGNORECASE)


def known(given: Options, names: Collection[str], driver: str) -> None:
    """Refuse an option that the driver does not have."""
    for name in given:
        if name not in names and name not in GENERAL:
            raise InvalidArgument(f"unknown log opt '{name}' for {driver} log driver")


def boolean(given: Options, name: str, default: bool = False) -> bool:
    text = given.get(name, "")
    if not text:
        return default
    if text not in _TRUE and text not in _FALSE:
        raise InvalidArgument(f"strconv.ParseBool: parsing {quoted(text)}: invalid syntax")
    return text in _TRUE


def unsigned(given: Options, name: str, default: int) -> int:
    text = given.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()):
        raise InvalidArgument(f"strconv.ParseUint: parsing {quoted(text)}: invalid syntax")
    return int(text)


def seconds(given: Options, name: str, default: float) -> float:
    text = given.get(name, "")
    if not text:
        return default
    try:
        return durations.parse(text) / 1e9
    except ValueError as error:
        raise InvalidArgument(str(error)) from None


def size(text: str, *, base: int = 1024) -> int:
    """Bytes, as in "1m" or "512KiB"."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise InvalidArgument(f"invalid size: '{text}'")
    return int(float(found[1]) * base ** _UNITS[found[2].lower()])


def pattern(given: Options, name: str) -> None:
    """Check a regular expression; Go's words for what is usually wrong with one."""
    text = given.get(name, "")
    try:
        re.compile(text)
    except re.error as error:
        reason = str(error).partition(" at position")[0]
        shown = text[error.pos :] if error.pos is not None else text
        words = {"unterminated character set": "missing closing ]"}
        if "unterminated subpattern" in reason:
            words, shown = {reason: "missing closing )"}, text
        raise InvalidArgument(f"error parsing regexp: {words.get(reason, reason)}: `{shown}`") from None


def check_general(given: Options) -> None:
    """``mode`` and ``max-buffer-size``; what the local copy of a record is."""
    mode = given.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidArgument(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in given:
        if mode != "non-blocking":
            raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        explained("error parsing option max-buffer-size", size, given["max-buffer-size"])
    if (text := given.get("cache-disabled", "")) and text not in _TRUE | _FALSE:
        raise InvalidArgument(f"invalid value for option cache-disabled: {text}")
    for name in ("labels-regex", "env-regex"):
        pattern(given, name)


def explained(what: str, read: Callable[[str], int], text: str) -> int:
    try:
        return read(text)
    except InvalidArgument as error:
        raise InvalidArgument(f"{what}: {error}") from None


def buffer_limit(given: Options) -> int | None:
    """How many bytes may wait for a collector before more are dropped; None when none are."""
    if given.get("mode") != "non-blocking":
        return None
    return size(given["max-buffer-size"]) if "max-buffer-size" in given else BUFFER
