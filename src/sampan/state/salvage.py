"""What can be saved of a damaged database: read row by row, what is missing taken from its copy.

Theory: SQLite refuses a damaged file, but reads most tables of it. A table that can be read to its end is
taken as it is; of any other the rows that can be read, and from the copy beside the database
(``state.copies``) the rows that cannot. A row of the copy may be of something that was removed since: whether
what it names is still there is for the readers of each table to look at when the daemon starts.

Laws: what is damaged is set aside, never removed; the new database is in its place, whole and on the disk, or
not at all, so that this may be killed and done again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field

from sampan.errors import Internal
from sampan.state import copies
from sampan.state.database import Database, damage
from sampan.state.migrations import MIGRATIONS

_PARTS = ("", "-wal", "-shm")


@dataclass(slots=True, kw_only=True)
class Salvage:
    """``aside``: where the damaged file is now. Rows by table: saved from it, from the copy, and tables whose
    rest is in neither."""

    aside: str
    saved: dict[str, int] = field(default_factory=dict)
    copied: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """What to tell of it."""
        yield f"the damaged state is kept as {self.aside}" if self.aside else "the state was missing"
        for table, rows in self.saved.items():
            more = f", and {self.copied[table]} from the last copy" if self.copied.get(table) else ""
            lost = "; it may have had more" if table in self.lost else ""
            yield f"{table}: {rows} saved{more}{lost}"


def repair(path: str) -> Salvage | None:
    """Mend the database at ``path``; None when nothing is wrong with it, or none is there.

    Internal when another version wrote it, or nothing can be written.
    """
    try:
        if is_missing(path):
            return _restored(path) if os.path.exists(path + copies.ENDING) else None
        return _salvaged(path) if damage(path) else None
    except (sqlite3.Error, OSError) as error:
        raise Internal(f"state database {path} cannot be mended: {error}") from error


def is_missing(path: str) -> bool:
    """Whether there is no file, or an empty one, which SQLite would take for a new database."""
    try:
        return os.stat(path).st_size == 0
    except FileNotFoundError:
        return True


def _restored(path: str) -> Salvage:
    """The database is gone: its copy takes its place."""
    found = Salvage(aside="")
    with _new(path) as target, _reading(path + copies.ENDING) as copy:
        for table in _tables(target):
            found.saved[table] = 0
            found.copied[table], _ = _take(copy, target, table)
            found.lost.append(table)
    os.rename(f"{path}.new", path)
    return found


def _salvaged(path: str) -> Salvage:
    aside = next(name for name in _names(path) if not os.path.exists(name))
    found = Salvage(aside=aside)
    # Read through links of another name: SQLite may mend its log when it opens it, and must not do so here.
    for part in _PARTS[:2]:
        with contextlib.suppress(FileNotFoundError):
            _copy(path + part, f"{path}.reading{part}")
    with _new(path) as target, _reading(f"{path}.reading") as source, _reading(path + copies.ENDING) as copy:
        for table in _tables(target):
            found.copied[table] = 0
            rows, whole = _take(source, target, table)
            if not whole:
                found.copied[table], complete = _take(copy, target, table)
                if not complete or not found.copied[table]:
                    found.lost.append(table)
            found.saved[table] = rows
    for part in _PARTS:
        with contextlib.suppress(FileNotFoundError):
            os.rename(path + part, aside + part)
    os.rename(f"{path}.new", path)
    for part in _PARTS:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}.reading{part}")
    return found


def _names(path: str) -> Iterator[str]:
    number = 1
    while True:
        yield f"{path}-damaged-{number}"
        number += 1


def _copy(source: str, target: str) -> None:
    """As much of a file as can be read."""
    with open(source, "rb", buffering=0) as old, open(target, "wb") as new:
        size = os.fstat(old.fileno()).st_size
        for place in range(0, size, 4096):
            try:
                data = os.pread(old.fileno(), 4096, place)
            except OSError:
                data = b""  # a hole in its place: the page is damaged then
            new.seek(place)
            new.write(data)
        new.truncate(size)


@contextlib.contextmanager
def _new(path: str) -> Iterator[sqlite3.Connection]:
    """An empty database of the newest version, on the disk when the context ends."""
    half = f"{path}.new"
    for part in _PARTS:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(half + part)
    Database.open(half, MIGRATIONS).close()
    for name in (f"{half}-spare", f"{half}-copy"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
    shutil.rmtree(f"{half}-inodes", ignore_errors=True)
    with contextlib.closing(sqlite3.connect(half, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("BEGIN")
        yield connection
        broken = connection.execute("PRAGMA foreign_key_check").fetchall()
        for table, rowid, *_ in broken:
            if rowid is not None:
                connection.execute(f"DELETE FROM {table} WHERE rowid = ?", (rowid,))
        _drop_orphans(connection)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _drop_orphans(connection: sqlite3.Connection) -> None:
    """Rows that name what could not be saved."""
    for table in _tables(connection):
        for key in connection.execute(f"PRAGMA foreign_key_list({table})").fetchall():
            parent, here, there = key[2], key[3], key[4]
            connection.execute(f"DELETE FROM {table} WHERE {here} NOT IN (SELECT {there} FROM {parent})")


@contextlib.contextmanager
def _reading(path: str) -> Iterator[sqlite3.Connection | None]:
    if not os.path.exists(path):
        yield None
        return
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA cell_size_check=ON")
    try:
        yield connection
    finally:
        with contextlib.suppress(sqlite3.Error):
            connection.close()


def _tables(connection: sqlite3.Connection) -> list[str]:
    """Those that others refer to first, as they were made."""
    query = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY rowid"
    return [row[0] for row in connection.execute(query)]


def _take(source: sqlite3.Connection | None, target: sqlite3.Connection, table: str) -> tuple[int, bool]:
    """Copy the rows that can be read and are not there yet: how many, and whether the table was whole."""
    if source is None:
        return 0, False
    there = [row[1] for row in target.execute(f"PRAGMA table_info({table})")]
    taken: dict[bytes, None] = {}
    whole = True
    columns: list[str] = []
    for order in ("ASC", "DESC"):  # from both ends: a damaged page is in between
        try:
            columns = [row[1] for row in source.execute(f"PRAGMA table_info({table})") if row[1] in there]
            key = columns[0]
            for row in source.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {key} {order}"):
                if _put(target, table, columns, row):
                    taken[repr(row[0]).encode()] = None
            break
        except (sqlite3.Error, IndexError):
            whole = False
    if whole and source.execute(f"PRAGMA quick_check({table})").fetchone()[0] != "ok":
        whole = False
    return len(taken), whole


def _put(target: sqlite3.Connection, table: str, columns: list[str], row: tuple[object, ...]) -> bool:
    """Whether the row was new, and is one that the table may have."""
    marks = ", ".join("?" * len(columns))
    try:
        cursor = target.execute(f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({marks})", row)
    except sqlite3.Error:
        return False
    return cursor.rowcount > 0
