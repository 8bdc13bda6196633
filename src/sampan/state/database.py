"""The engine's SQLite file: names, relations and desired state.

Laws:
- One writer: a thread that owns the only writing connection. Writes are applied in the order in which
  they were asked for; those that wait together share one commit, each in a savepoint of its own, so that
  one that fails takes back only itself.
- ``durable`` writes are on the disk when they return (WAL, ``synchronous=FULL``). Others are in the
  write-ahead log in the page cache: they survive the death of any process, not a power loss.
- Reads happen on the caller's thread through a connection that cannot write.
- A write that the disk failed is never tried again as if nothing were: the kernel tells of a lost page once
  and takes it for clean afterwards. Everything is written anew, into the file itself, before the next commit.
- A file that is damaged, or was written by a newer version, is refused before anything is changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sampan.errors import MEND, DiskFull, HostFailure, Internal, Unavailable
from sampan.state import copies
from sampan.state.migrations import MIGRATIONS, Migration
from sampan.state.reserve import Reserve, write_in_place

logger = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

_HOST_ERRORS = frozenset(
    (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY)
)
_DAMAGED = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))
_UNREADABLE = _DAMAGED | {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM}
MENDED_BY = "what can be saved is saved by: sampan daemon --repair"
_BATCH = 256  # writes that may share one commit


@dataclass(slots=True, kw_only=True)
class _Write:
    work: Callable[[sqlite3.Connection], Any]
    durable: bool
    future: asyncio.Future[Any] | None
    refused: Callable[[], object] | None = None
    result: Any = None
    error: Exception | None = None


class Database:
    """Open with ``Database.open``; ``close`` waits for the writes that were accepted."""

    def __init__(
        self, path: str, writer: sqlite3.Connection, reader: sqlite3.Connection, reserve: Reserve
    ) -> None:
        self.path = path
        self._reserve = reserve
        self._writer = writer
        self._reader = reader
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._closed = False
        self._changed = False  # since the last copy
        self._copy_at = time.monotonic() + copies.FIRST
        self._doubtful = False  # whether the log may have lost pages that were committed
        self._thread = threading.Thread(target=self._run, name="state-writer", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, path: str, migrations: tuple[Migration, ...] = MIGRATIONS) -> Database:
        """Open or create the file at ``path`` and bring it to the newest version.

        Raises Internal with one line that names the file when it is damaged or too new; the file is then
        unchanged. A migration that fails leaves the version before it.
        """
        os.makedirs(os.path.dirname(path), mode=0o710, exist_ok=True)
        reserve = Reserve(path)
        try:
            _keep_private(path)
            write_in_place(path)
            writer = _connect(path)
            try:
                _check(writer, path, newest=len(migrations))
                _migrate(writer, migrations)
                reader = _connect(path)
                reader.execute("PRAGMA query_only=ON")
            except BaseException:
                writer.close()
                raise
        except sqlite3.DatabaseError as error:
            mend = f"; {MENDED_BY}" if _code(error) in _DAMAGED else ""
            raise Internal(f"state database {path} cannot be used: {error}{mend}") from error
        reserve.open()
        return cls(path, writer, reader, reserve)

    def read(self, work: Work[T]) -> T:
        """Run ``work`` now with the reading connection. It sees every write that has returned.

        HostFailure when the file cannot be read.
        """
        try:
            return work(self._reader)
        except sqlite3.DatabaseError as error:
            if _code(error) in _UNREADABLE:
                raise HostFailure(f"state database {self.path} cannot be read: {error}") from error
            raise

    async def write(self, work: Work[T], *, durable: bool = True) -> T:
        """Run ``work`` in a transaction on the writer thread and return what it returns.

        An exception of ``work`` undoes what it did and is raised here.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._put(_Write(work=work, durable=durable, future=future))
        return await future

    def post(self, work: Work[object], refused: Callable[[], object] | None = None) -> None:
        """Have ``work`` done, not durably, after the writes before it; nobody waits for it.

        For records that a restart can find again by other means. A failure is logged. ``refused`` hears, on
        the writer's thread, that the host did not let it be written (a full disk), which may pass.
        """
        self._put(_Write(work=work, durable=False, future=None, refused=refused))

    @property
    def waiting(self) -> int:
        """How many writes the writer has yet to take up."""
        return self._queue.qsize()

    async def drain(self) -> None:
        """Return when every write accepted so far is in the log."""
        await self.write(lambda _: None, durable=False)

    def close(self) -> None:
        """Finish the accepted writes and close. Blocks for as long as they take; idempotent."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        self._thread.join()
        self._reader.close()
        self._writer.close()
        self._reserve.close()

    def _put(self, write: _Write) -> None:
        if self._closed:
            raise Unavailable("the state database is closed")
        self._queue.put(write)

    def _run(self) -> None:
        closing = False
        while not closing:
            batch: list[_Write] = []
            try:
                item = self._queue.get(timeout=self._until_copy())
            except queue.Empty:
                self._copy()
                continue
            while True:
                if item is None:
                    closing = True
                    break
                batch.append(item)
                if len(batch) >= _BATCH or self._queue.empty():
                    break
                item = self._queue.get()
            if batch:
                self._commit(batch)
                self._report(batch)
                self._reserve.hold()
        if self._changed:
            self._copy()

    def _until_copy(self) -> float | None:
        """Seconds until the next copy is due; None when nothing has changed."""
        return max(0.0, self._copy_at - time.monotonic()) if self._changed else None

    def _copy(self) -> None:
        copies.make(self._writer, self.path)
        self._changed = False
        self._copy_at = time.monotonic() + copies.EVERY

    def _commit(self, batch: list[_Write]) -> None:
        connection = self._writer
        durable = any(write.durable for write in batch)
        try:
            if self._doubtful:
                _write_anew(connection)
                self._doubtful = False
            connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            for write in batch:
                _apply(connection, write)
            connection.execute("COMMIT")
            self._changed = True
        except Exception as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if _code(error) == sqlite3.SQLITE_IOERR:
                self._doubtful = True
            if len(batch) > 1:  # a full disk takes the whole transaction back: to each what is its own
                for write in batch:
                    write.error = None
                    self._commit([write])
                return
            batch[0].error = batch[0].error or error

    def _report(self, batch: list[_Write]) -> None:
        loops: dict[asyncio.AbstractEventLoop, list[_Write]] = {}
        for write in batch:
            if write.future is not None:
                loops.setdefault(write.future.get_loop(), []).append(write)
            elif _is_host(write.error) and write.refused is not None:
                logger.warning("a state record has to wait: %s", write.error)
                write.refused()
            elif write.error is not None:
                logger.error("a state record was lost: %s", write.error, exc_info=write.error)
        for loop, writes in loops.items():
            # A loop that was closed has nobody waiting any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, writes, self.path)


def _apply(connection: sqlite3.Connection, write: _Write) -> None:
    connection.execute("SAVEPOINT one")
    try:
        write.result = write.work(connection)
    except Exception as error:
        write.error = error
        connection.execute("ROLLBACK TO one")
    connection.execute("RELEASE one")


def _settle(writes: list[_Write], path: str) -> None:
    for write in writes:
        future = write.future
        if future is None or future.done():
            continue
        if write.error is not None:
            future.set_exception(_failure(write.error, path))
        else:
            future.set_result(write.result)


def _failure(error: Exception, path: str) -> Exception:
    """The host's refusal as a failure that may pass; a mistake of ours as it is."""
    if _code(error) == sqlite3.SQLITE_FULL:
        return DiskFull(f"state database {path} cannot be written: {error}: {MEND}")
    if _is_host(error):
        kind = Unavailable if _code(error) == sqlite3.SQLITE_BUSY else HostFailure
        return kind(f"state database {path} cannot be written: {error}")
    if _code(error) in _DAMAGED:
        return HostFailure(f"state database {path} is damaged: {error}; {MENDED_BY}")
    return error


def _is_host(error: Exception | None) -> bool:
    """Whether the host refused, and may do it another time."""
    return _code(error) in _HOST_ERRORS


def _code(error: Exception | None) -> int:
    """SQLite's primary result code."""
    return error.sqlite_errorcode & 0xFF if isinstance(error, sqlite3.DatabaseError) else 0


def _write_anew(connection: sqlite3.Connection) -> None:
    """Copy the whole log into the database, to the disk, and empty it. OperationalError when that fails."""
    connection.execute("PRAGMA synchronous=FULL")
    if connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        raise Unavailable("the state database is being read while it has to be written anew")


def _keep_private(path: str) -> None:
    """It holds the variables of containers, where passwords are. SQLite's other files take its mode."""
    os.close(os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o600))
    for name in (path, f"{path}-wal", f"{path}-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.chmod(name, 0o600)


def unreadable(path: str, what: str, error: Exception) -> Internal:
    """The failure of a reader to whom a document of the database means nothing."""
    return Internal(f"state database {path} is damaged: {what}: {error}; {MENDED_BY}")


def damage(path: str) -> str:
    """What is wrong with the file at ``path``; empty for nothing. Nobody else may have it open."""
    try:
        with contextlib.closing(_connect(path)) as connection:
            found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            return "" if found == "ok" else found.splitlines()[-1]
    except sqlite3.DatabaseError as error:
        if _code(error) in _DAMAGED:
            return str(error)
        raise


def _connect(path: str) -> sqlite3.Connection:
    # Each connection is used by one thread at a time; sqlite3 would only allow the creating one.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


def _check(connection: sqlite3.Connection, path: str, *, newest: int) -> None:
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise Internal(f"state database {path} is damaged: {found.splitlines()[-1]}; {MENDED_BY}")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > newest:
        raise Internal(
            f"state database {path} was written by a newer sampan "
            f"(its version is {version}, this one knows {newest})"
        )


def _migrate(connection: sqlite3.Connection, migrations: tuple[Migration, ...]) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    for number, migration in enumerate(migrations[version:], start=version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in migration.statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={number}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
