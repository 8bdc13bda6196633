"""The daemon's own log: one line a record on standard error, as text or as JSON like dockerd's.

Law: what is logged while a request is answered, or by what it began, names the request by its number. So all
of one request's lines are found by it, those of the work in the background too.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator

from sampan.api.current import REQUEST

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}
_NAMES = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "error"}
_PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def _pairs(formatter: logging.Formatter, record: logging.LogRecord) -> Iterator[tuple[str, str]]:
    """What a line says, in its order; what ``extra`` adds to a record becomes pairs."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    yield "time", f"{stamp}.{int(record.msecs):03d}Z"
    yield "level", _NAMES.get(record.levelno, "fatal")
    yield "msg", record.getMessage()
    yield "module", record.name.removeprefix("sampan.")
    if request := REQUEST.get():
        yield "request", str(request)
    for key, value in vars(record).items():
        if key not in _PLAIN:
            yield key, str(value)
    if record.exc_info:
        yield "trace", formatter.formatException(record.exc_info)


class Logfmt(logging.Formatter):
    """``time="…" level=info msg="…" key=value``"""

    def format(self, record: logging.LogRecord) -> str:
        (_, stamp), *rest = _pairs(self, record)
        return " ".join((f'time="{stamp}"', *(f"{key}={_quoted(value)}" for key, value in rest)))


class JsonLines(logging.Formatter):
    """``{"time": "…", "level": "info", "msg": "…", …}``"""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(dict(_pairs(self, record)))


def _quoted(text: str) -> str:
    if text and text.isprintable() and not set(text) & set(' "=\\'):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    # What strangers say may be told: it begins no line of its own, and moves nobody's cursor.
    return f'"{"".join(map(_visible, escaped))}"'


def _visible(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")


def set_up(level: str, form: str) -> None:
    """Log to standard error from ``level`` on, in the form ``text`` or ``json``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else Logfmt())
    logging.basicConfig(handlers=[handler], force=True)
    set_level(level)


def set_level(level: str) -> None:
    """Log from ``level`` on."""
    logging.getLogger().setLevel(_LEVELS[level])
    # asyncio tells of sockets that clients reset: their business, not the operator's.
    logging.getLogger("asyncio").setLevel(max(_LEVELS[level], logging.WARNING))
