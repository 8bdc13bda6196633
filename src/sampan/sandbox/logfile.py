"""The log of a container: one JSON object a line, rotated by size.

Laws: a line of output becomes one record, ended by its newline; what has no newline within 16 KiB is written
in parts, and what is left when the stream ends is written as it is. Records are written by whole numbers of
them, so that a reader sees whole records only. A full disk loses output, never the container.

Rotated files move up by one number, compressed or not. Who compresses one (the daemon) holds the lock of the
log's directory while it puts the one in the other's place; rotation is put off until the next write then.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from sampan.sandbox.messages import LogFile
from sampan.wire import logrecords

_PART = 16 << 10
_HALF = _PART // 2
COMPRESSED = ".gz"
SENT = 0o440
"""The mode of a rotated file whose every record has been sent on."""


def create(log: LogFile) -> None:
    """Make an empty log where there is none: a container that says nothing has one too."""
    os.close(_open(log.path))


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _ends_whole(path: str) -> bool:
    """Whether the last record of a file that is not empty has its newline."""
    with suppress(OSError), open(path, "rb", buffering=0) as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
    return True


def rotated(path: str, number: int) -> list[str]:
    """The names that the rotated file of this number may have; what is compressed goes last."""
    return [f"{path}.{number}", f"{path}.{number}{COMPRESSED}"]


class LogWriter:
    """Appends a container's output to its log.

    ``on_rotated`` is called after each rotation; ``on_full`` when a patient log would have to drop what has
    not been sent on: no more output should be written until ``relent``.
    """

    def __init__(
        self,
        log: LogFile,
        *,
        on_rotated: Callable[[], None] = lambda: None,
        on_full: Callable[[], None] = lambda: None,
    ) -> None:
        self._log = log
        self._pending = {1: b"", 2: b""}
        self._fd = -1
        self._size = 0
        self._second = (0, "")
        self._repeated = (b"", b"")
        self._on_rotated = on_rotated
        self._on_full = on_full
        self._patient = log.patient
        self._open()

    def _open(self) -> None:
        self._fd = _open(self._log.path)
        self._size = os.fstat(self._fd).st_size
        if self._size and not _ends_whole(self._log.path):  # by a loss of power, or a full disk
            self._append(memoryview(b"\n"))

    @property
    def path(self) -> str:
        return self._log.path

    def files(self) -> list[str]:
        """The paths of the log that are not compressed, oldest first."""
        older = [f"{self._log.path}.{n}" for n in range(self._log.max_files - 1, 0, -1)]
        return [path for path in (*older, self._log.path) if os.path.exists(path)]

    def pending(self) -> Iterator[tuple[int, bytes]]:
        """Output that was received but is not in the log yet: lines without an end."""
        return ((stream, data) for stream, data in self._pending.items() if data)

    def write(self, stream: int, data: bytes) -> None:
        """Log output of ``stream`` (1 stdout, 2 stderr)."""
        if self._pending[stream]:
            data = self._pending[stream] + data
        end = data.rfind(b"\n") + 1
        after = self._tail(stream)
        if end:
            whole = data if end == len(data) else data[:end]
            self._put(logrecords.lines(whole, after) if _all_short(whole) else self._long(whole, after))
        parts = (len(data) - end) // _PART
        if parts:
            self._put(b"".join(self._parts(data, end, parts, after)))
        self._pending[stream] = data[end + parts * _PART :]

    def end(self, stream: int) -> None:
        """The stream has ended: log what is left of it."""
        rest, self._pending[stream] = self._pending[stream], b""
        if rest:
            self._put(logrecords.part(logrecords.escaped(rest), self._tail(stream)))

    def close(self) -> None:
        self.relent()
        for stream in self._pending:
            self.end(stream)
        os.close(self._fd)

    def relent(self, *, patient: bool = False) -> None:
        """From now on drop what has not been sent on, if it must be; or, if ``patient``, see again."""
        self._patient = patient

    def _tail(self, stream: int) -> bytes:
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        if seconds != self._second[0]:
            self._second = seconds, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        now = f"{self._second[1]}.{nanoseconds:09d}Z"
        return logrecords.tail(stream, now, self._log.attributes)

    def _long(self, data: bytes, after: bytes) -> bytes:
        """The records of whole lines of which some may be too long for one."""
        found: list[bytes] = []
        start = 0
        while start < len(data):
            end = data.index(b"\n", start) + 1
            parts = (end - start) // _PART
            if parts:
                found.extend(self._parts(data, start, parts, after))
                start += parts * _PART
            if start < end:
                found.append(logrecords.lines(data[start:end], after))
            start = end
        return b"".join(found)

    def _parts(self, data: bytes, start: int, count: int, after: bytes) -> Iterator[bytes]:
        """Records of ``count`` parts of a long line. Such output often repeats itself: zeros, padding."""
        for place in range(start, start + count * _PART, _PART):
            text = data[place : place + _PART]
            if text != self._repeated[0]:
                self._repeated = text, logrecords.escaped(text).replace(b"\n", b"\\n")
            yield logrecords.part(self._repeated[1], after)

    # -- files ----------------------------------------------------------------------------------------

    def _put(self, records: bytes) -> None:
        """Write whole records, as many as fit into this file and the rest into the next ones."""
        limit = self._log.max_size
        start = 0
        while limit and self._size + len(records) - start > limit:
            cut = max(start, records.rfind(b"\n", start, max(start, start + limit - self._size)) + 1)
            if cut == start and not self._size:  # one record is larger than a file may be
                cut = records.index(b"\n", start) + 1
            self._append(memoryview(records)[start:cut])
            start = cut
            if start == len(records) or not self._rotate():
                break
        self._append(memoryview(records)[start:])

    def _append(self, data: memoryview) -> None:
        with suppress(OSError):
            while data:
                written = os.write(self._fd, data)
                self._size += written
                data = data[written:]

    def _rotate(self) -> bool:
        """Begin a new file; whether that was possible."""
        path, last = self._log.path, self._log.max_files - 1
        if self._patient and not all(map(_sent, rotated(path, last) if last else [path])):
            self._on_full()
            return False
        try:
            with _directory_lock(path, needed=self._log.compressed):
                self._move(path, last)
                os.close(self._fd)
                self._open()
        except OSError:
            return False
        self._on_rotated()
        return not self._size

    def _move(self, path: str, last: int) -> None:
        if not last:
            os.unlink(path)
            return
        for name in rotated(path, last):
            with suppress(FileNotFoundError):
                os.unlink(name)
        for number in range(last, 1, -1):
            for older, newer in zip(rotated(path, number - 1), rotated(path, number), strict=True):
                with suppress(FileNotFoundError):
                    os.rename(older, newer)
        os.rename(path, f"{path}.1")


def _all_short(data: bytes) -> bool:
    """Whether no line of ``data`` can be longer than a part: each half of that length has a newline."""
    return all(data.find(b"\n", at, at + _HALF) >= 0 for at in range(0, len(data), _HALF))


def _sent(path: str) -> bool:
    try:
        return os.stat(path).st_mode & 0o777 == SENT
    except FileNotFoundError:
        return True


class _directory_lock:  # noqa: N801 - reads as a verb; contextlib's generator costs more than the lock
    """Hold the lock of the directory of ``path``, if it is ``needed``. BlockingIOError when another does."""

    def __init__(self, path: str, *, needed: bool) -> None:
        self._path = os.path.dirname(path) if needed else ""
        self._fd = -1

    def __enter__(self) -> None:
        if self._path:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(self._fd)
                raise

    def __exit__(self, *_: object) -> None:
        if self._path:
            os.close(self._fd)


def replay_records(files: list[str]) -> Iterator[tuple[int, bytes]]:
    """(stream, output) of every record in the log files, oldest first; what is no record is passed over."""
    for path in files:
        with suppress(OSError), open(path, "rb") as file:
            for line in file:
                try:
                    record = json.loads(line)
                    stream = 2 if record["stream"] == "stderr" else 1
                    yield stream, record["log"].encode()
                except (ValueError, KeyError, TypeError, AttributeError):
                    continue
