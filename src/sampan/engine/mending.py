"""``sampan daemon --repair``: a data root whose state the disk has damaged becomes one that can be served.

Laws:
- What was written by containers is never removed: files that no record is left of go to ``lost/ID`` below the
  data root, with the container's log, and are told.
- No daemon may run on the data root meanwhile. Killed at any moment, it can be done again.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import msgspec

from sampan.engine.model import Container
from sampan.engine.networkplans import Definition
from sampan.state import copies
from sampan.state.database import Database
from sampan.state.salvage import is_missing, repair

if TYPE_CHECKING:
    from sampan.engine.paths import Paths

_DOCUMENTS: tuple[tuple[str, str, type], ...] = (
    ("container", "containers", Container),
    ("network", "user_networks", Definition),
)


def mend(paths: Paths) -> Iterator[str]:
    """Do it, and tell what was done, a line each; nothing when nothing was wrong. Raises a Failure."""
    salvage = repair(paths.database)
    if salvage is not None:
        yield from salvage.lines()
    database = Database.open(paths.database)
    try:
        for kind, table, shape in _DOCUMENTS:
            yield from asyncio.run(_documents(database, kind, table, shape))
        known = {
            row[0] for row in database.read(lambda db: db.execute("SELECT id FROM containers").fetchall())
        }
        for container in _unknown(paths, known):
            yield f"container {container}: no record of it could be saved; {_set_aside(paths, container)}"
    finally:
        database.close()


def is_lost(paths: Paths) -> bool:
    """Whether there is no database where there was one: with a new one everything else would be removed."""
    if not is_missing(paths.database):
        return False
    places = (paths.containers, paths.snapshots)
    return os.path.exists(paths.database + copies.ENDING) or any(map(_entries, places))


async def _documents(database: Database, kind: str, table: str, shape: type) -> Sequence[str]:
    """Rows that nobody can read, as they are in the last copy; those that are in none are deleted."""
    told = []
    query = f"SELECT id, name, document FROM {table}"
    for key, name, document in database.read(lambda db: db.execute(query).fetchall()):
        if _is_readable(document, shape):
            continue
        before = _copied(database.path, query, key)
        if before is not None and _is_readable(before, shape):
            await database.write(_update(table, before, key))
            told.append(f"{kind} {name} ({key}): its record was damaged, and is as in the last copy")
        else:
            await database.write(_delete(table, key))
            told.append(f"{kind} {name} ({key}): its record is damaged and in no copy")
    return told


def _update(table: str, document: bytes, key: str) -> Callable[[sqlite3.Connection], object]:
    return lambda db: db.execute(f"UPDATE {table} SET document = ? WHERE id = ?", (document, key))


def _delete(table: str, key: str) -> Callable[[sqlite3.Connection], object]:
    return lambda db: db.execute(f"DELETE FROM {table} WHERE id = ?", (key,))


def _is_readable(document: bytes, shape: type) -> bool:
    try:
        msgspec.msgpack.decode(document, type=shape)
    except (msgspec.DecodeError, ValueError):
        return False
    return True


def _copied(path: str, query: str, key: str) -> bytes | None:
    """The document of a row in the last copy, if there is one."""
    place = path + copies.ENDING
    if not os.path.exists(place):
        return None
    try:
        with closing(sqlite3.connect(place)) as copy:
            row = copy.execute(f"{query} WHERE id = ?", (key,)).fetchone()
    except sqlite3.Error:
        return None
    return None if row is None else bytes(row[2])


def _unknown(paths: Paths, known: set[str]) -> list[str]:
    """The containers that have files and no record."""
    found = {name.partition(".")[0] for name in _entries(paths.snapshots)} | {*_entries(paths.containers)}
    return sorted(found - known)


def _set_aside(paths: Paths, container: str) -> str:
    place = f"{paths.data}/lost/{container}"
    os.makedirs(place, 0o700, exist_ok=True)
    for name in _entries(paths.snapshots):
        if name.partition(".")[0] == container:
            os.rename(f"{paths.snapshots}/{name}", f"{place}/{name.replace(container, 'files', 1)}")
    with suppress(FileNotFoundError):
        os.rename(paths.container(container), f"{place}/container")
    return f"its files are in {place}"


def _entries(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []
