"""The daemon's own log: one line a record on standard error, ``key=value`` pairs as dockerd writes them."""

from __future__ import annotations

import logging
import sys
import time

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}
_NAMES = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "error"}
_PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class Logfmt(logging.Formatter):
    """``time="…" level=info msg="…" key=value``; what ``extra`` adds to a record becomes pairs."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        pairs = [
            f'time="{stamp}.{int(record.msecs):03d}Z"',
            f"level={_NAMES.get(record.levelno, 'fatal')}",
            f"msg={_quoted(record.getMessage())}",
            f"module={record.name.removeprefix('sampan.')}",
        ]
        pairs += [f"{key}={_quoted(str(value))}" for key, value in vars(record).items() if key not in _PLAIN]
        if record.exc_info:
            pairs.append(f"trace={_quoted(self.formatException(record.exc_info))}")
        return " ".join(pairs)


def _quoted(text: str) -> str:
    if text and text.isprintable() and not set(text) & set(' "=\\'):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def set_up(level: str) -> None:
    """Log to standard error from ``level`` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Logfmt())
    logging.basicConfig(handlers=[handler], force=True)
    set_level(level)


def set_level(level: str) -> None:
    """Log from ``level`` on."""
    logging.getLogger().setLevel(_LEVELS[level])
    # asyncio tells of sockets that clients reset: their business, not the operator's.
    logging.getLogger("asyncio").setLevel(max(_LEVELS[level], logging.WARNING))
