"""Reading a container's log: its rotated files in order, from any line on, and what is added.

Laws: memory is bounded by one block, whatever the log's size; a record is given once; a file that is rotated
or compressed while it is read is read to its end first, because the descriptor follows it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TYPE_CHECKING

from sampan.engine import logsources
from sampan.engine.model import LogQuery
from sampan.sandbox.logfile import COMPRESSED
from sampan.wire import logblocks

if TYPE_CHECKING:
    from sampan.engine.watching import Watch, Watching
    from sampan.wire.logblocks import Entry, Text

_BLOCK = 256 << 10
_FEW = 10_000  # lines that are found faster than a thread is begun
_NEVER = b"A"  # sorts after every time
_LONGEST = 1 << 20  # a record is at most 16 KiB of output, escaped


class LogReader:
    """Whole lines of one log at ``path``, whose older files are ``path.1`` (newest) and so on.

    ``on_done`` is told of a file that was read to its end when the next one is begun.
    """

    def __init__(self, path: str, *, on_done: Callable[[logsources.Source], None] | None = None) -> None:
        self._path = path
        self._on_done = on_done
        self._source: logsources.Source | None = None
        self._rest = b""

    def close(self) -> None:
        """Idempotent."""
        if self._source is not None:
            self._source.close()
            self._source = None

    @property
    def source(self) -> logsources.Source | None:
        """The file that is being read."""
        return self._source

    @property
    def place(self) -> int:
        """Where the next line of the present file begins."""
        return self._source.offset - len(self._rest) if self._source is not None else 0

    def seek(self, tail: int | None) -> None:
        """Stand at the first record, or at the ``tail``-th last one. A log that is not there yet is empty."""
        self.stand(find(self._path, tail))

    def stand(self, place: tuple[str, int] | None) -> None:
        """Stand where ``find`` found it; None where there is no log yet."""
        self.close()
        self._rest = b""
        if place is not None:
            self.open(*place)

    def open(self, path: str, place: int = 0) -> bool:
        """Go on in the file at ``path``, at ``place``; False when it is gone."""
        self.close()
        self._rest = b""
        with contextlib.suppress(FileNotFoundError):
            self._source = logsources.Source(path, block=_BLOCK)
            self._source.skip(place)
        return self._source is not None

    def read(self) -> bytes | None:
        """The lines of the next block; None when there is nothing more for now."""
        while True:
            if self._source is None and not self.open(self._path):
                return None
            assert self._source is not None
            data = self._source.read()
            if data:
                if lines := self._whole(data):
                    return lines
                continue
            if not self._next_file():
                return None

    def _whole(self, data: bytes) -> bytes:
        if self._rest:
            data = self._rest + data
        end = data.rfind(b"\n") + 1
        self._rest = data[end:]
        if len(self._rest) > _LONGEST:  # not a log; do not collect it
            self._rest = b""
        return data[:end]

    def _next_file(self) -> bool:
        """Go on to the file that was begun after ours; False when ours is the newest."""
        source = self._source
        assert source is not None
        if source.is_at(self._path):
            return False
        newer = self._path
        for path in reversed(logsources.files(self._path)):
            if source.is_at(path):
                break
            newer = path  # ours may have been rotated out: then what is left is newer
        # Once more: a last record may have come between our read and the rotation.
        if source.grew():
            return True
        if self._on_done is not None:
            self._on_done(source)
        return self.open(newer)

    def left(self) -> int:
        """Bytes of the log that have not been read yet; those of compressed files are not counted."""
        if self._source is None:
            return 0
        left = self._source.left()
        for path in reversed(logsources.files(self._path)):
            if self._source.is_at(path):
                return left
            with contextlib.suppress(FileNotFoundError):
                left += 0 if path.endswith(COMPRESSED) else os.stat(path).st_size
        return left


def find(path: str, tail: int | None) -> tuple[str, int] | None:
    """(file, place) of the first record of the log at ``path``, or of the ``tail``-th last one."""
    files = logsources.files(path)
    if not files:
        return None
    if tail is None:
        return files[0], 0
    for file in reversed(files):
        place, found = logsources.tail(file, tail, block=_BLOCK)
        tail -= found
        if not tail:
            return file, place
    return files[0], 0


class LogStream:
    """The records that a query asks for: an asynchronous iterator of lists, none of them empty.

    ``texts`` gives the same output without times, for a fraction of the work. ``ended`` is resolved when the
    container has stopped; a stream that follows ends after the records that were written until then.
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
        self._path = path
        self._reader = LogReader(path)
        self._directory = os.path.dirname(path)
        self._query = query
        self._streams = {number for number, asked in ((1, query.stdout), (2, query.stderr)) if asked}
        self._since = logblocks.stamp(query.since) if query.since else b""
        self._until = logblocks.stamp(query.until) if query.until else b""
        self._watching = watching
        self._ended = ended
        self._now = now
        self._reading: AsyncGenerator[list[Entry], None] | AsyncGenerator[list[Text], None] | None = None

    def __aiter__(self) -> AsyncIterator[list[Entry]]:
        self._reading = reading = self._entries()
        return reading

    def texts(self) -> AsyncIterator[list[Text]]:
        """The output alone, in runs of one stream. Not for a query that selects by time."""
        self._reading = reading = self._texts()
        return reading

    async def aclose(self) -> None:
        if self._reading is not None:
            await self._reading.aclose()
        self._reader.close()

    async def _entries(self) -> AsyncGenerator[list[Entry], None]:
        async with contextlib.aclosing(self._blocks()) as blocks:
            async for block in blocks:
                entries = logblocks.entries(block)
                if not entries:
                    continue
                if wanted := self._select(entries):
                    yield wanted
                if self._until and entries[-1][1] > self._until:
                    return

    async def _texts(self) -> AsyncGenerator[list[Text], None]:
        streams = self._streams
        async with contextlib.aclosing(self._blocks()) as blocks:
            async for block in blocks:
                if wanted := [text for text in logblocks.texts(block) if text[0] in streams]:
                    yield wanted

    async def _blocks(self) -> AsyncGenerator[bytes, None]:
        try:
            self._reader.stand(await self._beginning())
            source = self._follow() if self._query.follow else self._recorded()
            async with contextlib.aclosing(source) as blocks:
                async for block in blocks:
                    yield block
        finally:
            self._reader.close()

    async def _beginning(self) -> tuple[str, int] | None:
        """See ``find``, which may have to read much: many lines, or compressed ones."""
        tail = self._query.tail
        packed = any(name.endswith(COMPRESSED) for name in logsources.files(self._path))
        if tail is None or (tail <= _FEW and not packed):
            return find(self._path, tail)
        return await asyncio.to_thread(find, self._path, tail)

    async def _recorded(self) -> AsyncGenerator[bytes, None]:
        while (block := self._reader.read()) is not None:
            yield block
            await asyncio.sleep(0)  # let others have the loop between blocks

    async def _follow(self) -> AsyncGenerator[bytes, None]:
        watch = self._watching.directory(self._directory)
        ended = self._ended
        if ended is not None:
            ended.add_done_callback(lambda _: watch.wake())
        try:
            while True:
                # Looked at before reading: what was written before the end is read after it.
                over = ended is None or ended.done()
                async for block in self._recorded():
                    yield block
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

    def _select(self, entries: list[Entry]) -> list[Entry]:
        since, until, streams = self._since, self._until or _NEVER, self._streams
        return [entry for entry in entries if since <= entry[1] <= until and entry[0] in streams]
