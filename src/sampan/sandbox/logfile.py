"""The json-file log of a container: one JSON object a line, rotated by size.

Laws: a line of output becomes one record, ended by its newline; what has no newline within 16 KiB is written
in parts, and what is left when the stream ends is written as it is. A record is written by one write call, so
that a reader sees whole records only. A full disk loses output, never the container.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from json.encoder import encode_basestring

from sampan.sandbox.messages import LogFile

_PART = 16 << 10
_NAMES = {1: "stdout", 2: "stderr"}


def create(log: LogFile) -> None:
    """Make an empty log where there is none: a container that says nothing has one too."""
    os.close(_open(log.path))


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


class LogWriter:
    """Appends a container's output to its log."""

    def __init__(self, log: LogFile) -> None:
        self._log = log
        self._pending = {1: b"", 2: b""}
        self._fd = -1
        self._size = 0
        self._open()

    def _open(self) -> None:
        self._fd = _open(self._log.path)
        self._size = os.fstat(self._fd).st_size

    @property
    def path(self) -> str:
        return self._log.path

    def files(self) -> list[str]:
        """The paths of the log, oldest first."""
        older = [f"{self._log.path}.{n}" for n in range(self._log.max_files - 1, 0, -1)]
        return [path for path in (*older, self._log.path) if os.path.exists(path)]

    def pending(self) -> Iterator[tuple[int, bytes]]:
        """Output that was received but is not in the log yet: lines without an end."""
        return ((stream, data) for stream, data in self._pending.items() if data)

    def write(self, stream: int, data: bytes) -> None:
        """Log output of ``stream`` (1 stdout, 2 stderr)."""
        data = self._pending[stream] + data
        end = data.rfind(b"\n") + 1
        lines = _split(data[:end])
        rest = data[end:]
        while len(rest) >= _PART:
            lines.append(rest[:_PART])
            rest = rest[_PART:]
        self._pending[stream] = rest
        self._append(stream, lines)

    def end(self, stream: int) -> None:
        """The stream has ended: log what is left of it."""
        rest, self._pending[stream] = self._pending[stream], b""
        if rest:
            self._append(stream, [rest])

    def close(self) -> None:
        for stream in self._pending:
            self.end(stream)
        os.close(self._fd)

    def _append(self, stream: int, lines: list[bytes]) -> None:
        tail = f',"stream":"{_NAMES[stream]}","time":"{_now()}"}}\n'
        batch: list[str] = []
        size = 0
        limit = self._log.max_size
        for line in lines:
            for start in range(0, len(line), _PART):
                text = line[start : start + _PART].decode("utf-8", "replace")
                record = f'{{"log":{encode_basestring(text)}{tail}'
                if limit and self._size + size + len(record) > limit and self._size + size:
                    self._put(batch)
                    self._rotate()
                    batch, size = [], 0
                batch.append(record)
                size += len(record)
        self._put(batch)

    def _put(self, records: list[str]) -> None:
        data = memoryview("".join(records).encode())
        with suppress(OSError):
            while data:
                written = os.write(self._fd, data)
                self._size += written
                data = data[written:]

    def _rotate(self) -> None:
        path = self._log.path
        with suppress(OSError):
            if self._log.max_files > 1:
                for number in range(self._log.max_files - 1, 0, -1):
                    older = f"{path}.{number - 1}" if number > 1 else path
                    with suppress(FileNotFoundError):
                        os.rename(older, f"{path}.{number}")
            else:
                os.unlink(path)
            os.close(self._fd)
            self._open()


def _split(data: bytes) -> list[bytes]:
    """Lines by newline alone: a carriage return is output like any other."""
    lines = data.split(b"\n")
    return [line + b"\n" for line in lines[:-1]]


def _now() -> str:
    now = time.time_ns()
    seconds, nanoseconds = divmod(now, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"


def replay_records(files: list[str]) -> Iterator[tuple[int, bytes]]:
    """(stream, output) of every record in the log files, oldest first; a torn last record ends it."""
    for path in files:
        with suppress(OSError), open(path, "rb") as file:
            for line in file:
                try:
                    record = json.loads(line)
                    stream = 2 if record["stream"] == "stderr" else 1
                    yield stream, record["log"].encode()
                except (ValueError, KeyError):
                    break
