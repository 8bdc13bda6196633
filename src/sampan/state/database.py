"""The engine's SQLite file: names, relations and desired state.

Laws:
- One writer: a thread that owns the only writing connection. Writes are applied in the order in which
  they were asked for; those that wait together share one commit, each in a savepoint of its own, so that
  one that fails takes back only itself.
- ``durable`` writes are on the disk when they return (WAL, ``synchronous=FULL``). Others are in the
  write-ahead log in the page cache: they survive the death of any process, not a power loss.
- Reads happen on the caller's thread through a connection that cannot write.
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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sampan.errors import Internal, Unavailable
from sampan.state.migrations import MIGRATIONS, Migration
from sampan.state.reserve import Reserve

logger = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

_HOST_ERRORS = frozenset(
    (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY)
)
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
            raise Internal(f"state database {path} cannot be used: {error}") from error
        reserve.open()
        return cls(path, writer, reader, reserve)

    def read(self, work: Work[T]) -> T:
        """Run ``work`` now with the reading connection. It sees every write that has returned."""
        return work(self._reader)

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
            item = self._queue.get()
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

    def _commit(self, batch: list[_Write]) -> None:
        connection = self._writer
        durable = any(write.durable for write in batch)
        try:
            connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            for write in batch:
                _apply(connection, write)
            connection.execute("COMMIT")
        except Exception as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
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
                loop.call_soon_threadsafe(_settle, writes)


def _apply(connection: sqlite3.Connection, write: _Write) -> None:
    connection.execute("SAVEPOINT one")
    try:
        write.result = write.work(connection)
    except Exception as error:
        write.error = error
        connection.execute("ROLLBACK TO one")
    connection.execute("RELEASE one")


def _settle(writes: list[_Write]) -> None:
    for write in writes:
        future = write.future
        if future is None or future.done():
            continue
        if write.error is not None:
            future.set_exception(_failure(write.error))
        else:
            future.set_result(write.result)


def _failure(error: Exception) -> Exception:
    """The host's refusal as a failure that may pass; a mistake of ours as it is."""
    if _is_host(error):
        return Unavailable(f"the state database cannot be written: {error}")
    return error


def _is_host(error: Exception | None) -> bool:
    """Whether the host refused, and may do it another time."""
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF in _HOST_ERRORS


def _keep_private(path: str) -> None:
    """It holds the variables of containers, where passwords are. SQLite's other files take its mode."""
    os.close(os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o600))
    for name in (path, f"{path}-wal", f"{path}-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.chmod(name, 0o600)


def _connect(path: str) -> sqlite3.Connection:
    # Each connection is used by one thread at a time; sqlite3 would only allow the creating one.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


def _check(connection: sqlite3.Connection, path: str, *, newest: int) -> None:
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise Internal(f"state database {path} is damaged: {found.splitlines()[-1]}")
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
