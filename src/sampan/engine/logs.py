"""Reading a container's json-file log: its rotated files in order, from any line on, and what is added.

Laws: memory is bounded by one block, whatever the log's size; a record is given once; a file that is rotated
away while it is read is read to its end first, because the descriptor follows it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

from sampan.engine.model import LogQuery, LogRecord
from sampan.wire import jsonlog

if TYPE_CHECKING:
    from sampan.engine.watching import Watch, Watching

_BLOCK = 256 << 10
_LONGEST = 1 << 20  # a record is at most 16 KiB of output, escaped


class LogReader:
    """Records of one log at ``path``, whose older files are ``path.1`` (newest) and so on."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._rest = b""

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def seek(self, tail: int | None) -> None:
        """Stand at the first record, or at the ``tail``-th last one. A log that is not there yet is empty."""
        self.close()
        self._rest = b""
        if tail == 0:
            self._open(self._path, 0, at_end=True)
            return
        wanted = tail
        files = self._files()
        for index in range(len(files) - 1, -1, -1):
            place, found = (0, 0) if wanted is None else _tail_of(files[index], wanted)
            if wanted is not None:
                wanted -= found
            if index == 0 or wanted == 0:
                self._open(files[index], place)
                return

    def _files(self) -> list[str]:
        """Oldest first."""
        older = []
        number = 1
        while os.path.exists(f"{self._path}.{number}"):
            older.append(f"{self._path}.{number}")
            number += 1
        current = [self._path] if os.path.exists(self._path) else []
        return older[::-1] + current

    def _open(self, path: str, place: int, *, at_end: bool = False) -> bool:
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        os.lseek(self._fd, place, os.SEEK_END if at_end else os.SEEK_SET)
        return True

    def read(self) -> list[LogRecord] | None:
        """The records of the next block; None when there is nothing more for now."""
        while True:
            if self._fd < 0 and not self._open(self._path, 0):
                return None
            data = os.read(self._fd, _BLOCK)
            if data:
                records = self._parse(data)
                if records:
                    return records
                continue
            if not self._next_file():
                return None

    def _parse(self, data: bytes) -> list[LogRecord]:
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        self._rest = data[end:]
        if len(self._rest) > _LONGEST:  # not a log; do not collect it
            self._rest = b""
        records = []
        for line in data[:end].decode("utf-8", "replace").split("\n"):
            if line:
                entry = jsonlog.parse(line)
                if entry is not None:
                    records.append(LogRecord(*entry))
        return records

    def _next_file(self) -> bool:
        """Go on to the file that was begun after ours; False when ours is the newest."""
        ours = os.fstat(self._fd).st_ino
        newer = self._path
        for path in reversed(self._files()):
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path).st_ino == ours:
                    break
                newer = path
        else:
            newer = next(iter(self._files()), self._path)  # ours was rotated out: what is left is newer
        if newer == self._path and _inode(newer) in (ours, None):
            return False
        # Once more: a last record may have come between our read and the rotation.
        left = os.read(self._fd, _BLOCK)
        if left:
            os.lseek(self._fd, -len(left), os.SEEK_CUR)
            return True
        self.close()
        self._rest = b""
        return self._open(newer, 0)


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return None


def _tail_of(path: str, count: int) -> tuple[int, int]:
    """(where the ``count`` last lines of a file begin, how many it has of them), read backwards."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0, 0
    try:
        position = os.fstat(fd).st_size
        found = -1  # the newline that ends the last line begins none
        while position > 0:
            size = min(_BLOCK, position)
            position -= size
            block = os.pread(fd, size, position)
            lines = block.count(b"\n")
            if found + lines >= count:
                at = len(block)
                for _ in range(count - found):
                    at = block.rindex(b"\n", 0, at)
                return position + at + 1, count
            found += lines
        return 0, found + 1
    finally:
        os.close(fd)


class LogStream:
    """The records that a query asks for: an asynchronous iterator, or ``batches`` for those in a hurry.

    ``ended`` is resolved when the container has stopped; a stream that follows ends after the records that
    were written until then.
    """

    def __init__(
        self,
        path: str,
        query: LogQuery,
        *,
        watching: Watching,
        ended: asyncio.Future[None] | None,
        now: Callable[[], int],
    ) -> None:
        self._reader = LogReader(path)
        self._directory = os.path.dirname(path)
        self._query = query
        self._watching = watching
        self._ended = ended
        self._now = now
        self._batches = self._read()
        self._current: Iterator[LogRecord] = iter(())

    def __aiter__(self) -> LogStream:
        return self

    async def __anext__(self) -> LogRecord:
        while True:
            for record in self._current:
                return record
            self._current = iter(await anext(self._batches))

    def batches(self) -> AsyncIterator[list[LogRecord]]:
        """The same records in lists, none of them empty."""
        return self._batches

    async def aclose(self) -> None:
        await self._batches.aclose()
        self._reader.close()

    async def _read(self) -> AsyncGenerator[list[LogRecord], None]:
        try:
            self._reader.seek(self._query.tail)
            source = self._follow() if self._query.follow else self._recorded()
            async with contextlib.aclosing(source) as batches:
                async for batch in batches:
                    wanted, done = self._select(batch)
                    if wanted:
                        yield wanted
                    if done:
                        return
        finally:
            self._reader.close()

    async def _recorded(self) -> AsyncGenerator[list[LogRecord], None]:
        while (batch := self._reader.read()) is not None:
            yield batch
            await asyncio.sleep(0)  # let others have the loop between blocks

    async def _follow(self) -> AsyncGenerator[list[LogRecord], None]:
        watch = self._watching.directory(self._directory)
        ended = self._ended
        if ended is not None:
            ended.add_done_callback(lambda _: watch.wake())
        try:
            while True:
                # Looked at before reading: what was written before the end is read after it.
                over = ended is None or ended.done()
                async for batch in self._recorded():
                    yield batch
                if over or not await self._wait(watch):
                    return
        finally:
            watch.close()

    async def _wait(self, watch: Watch) -> bool:
        """Until the log's directory changes; False when the query's end has come before."""
        if not self._query.until:
            await watch.changed()
            return True
        left = (self._query.until - self._now()) / 1e9
        try:
            await asyncio.wait_for(watch.changed(), max(0.0, left))
        except TimeoutError:
            return False
        return True

    def _select(self, batch: list[LogRecord]) -> tuple[list[LogRecord], bool]:
        query = self._query
        if not query.since and not query.until and query.stdout and query.stderr:
            return batch, False
        until = query.until or 1 << 63
        streams = (1 if query.stdout else 0, 2 if query.stderr else 0)
        wanted = [
            record for record in batch if record.stream in streams and query.since <= record.time_ns <= until
        ]
        return wanted, batch[-1].time_ns > until
