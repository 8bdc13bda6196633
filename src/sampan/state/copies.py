"""The copy that lies beside a database, from which it is mended when the disk has damaged it.

Laws: a copy replaces the one before it only when it is whole (``PRAGMA quick_check``) and on the disk; it is
made by the thread that writes, between two transactions; one that cannot be made is nobody's failure.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3

log = logging.getLogger(__name__)

FIRST = 60.0
"""Seconds from the first change of a daemon's life to its first copy."""
EVERY = 600.0
"""Least seconds between two copies."""
ENDING = "-copy"


def make(connection: sqlite3.Connection, path: str) -> None:
    """Copy the database at ``path``, which ``connection`` has open and no transaction in."""
    half = f"{path}{ENDING}.new"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(half)
        os.close(os.open(half, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with contextlib.closing(sqlite3.connect(half, isolation_level=None)) as copy:
            connection.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
            found = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        fd = os.open(half, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(half, path + ENDING)
    except (OSError, sqlite3.Error) as error:
        log.warning("%s was not copied: %s", path, error)
        with contextlib.suppress(OSError):
            os.unlink(half)
