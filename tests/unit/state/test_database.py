"""The state database: order, durability, isolation of failures, migrations, refusals."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import DiskFull, Internal, Unavailable
from sampan.state import Database, Migration

TABLE = Migration(name="things", statements=("CREATE TABLE things (name TEXT PRIMARY KEY) STRICT",))
MORE = Migration(name="sizes", statements=("ALTER TABLE things ADD COLUMN size INTEGER",))


def insert(name: str) -> Callable[[sqlite3.Connection], sqlite3.Cursor]:
    return lambda db: db.execute("INSERT INTO things (name) VALUES (?)", (name,))


def names(database: Database) -> list[str]:
    return database.read(lambda db: [row[0] for row in db.execute("SELECT name FROM things ORDER BY rowid")])


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "root" / "state.db")


@pytest.fixture
def database(path: str) -> Iterator[Database]:
    opened = Database.open(path, (TABLE,))
    yield opened
    opened.close()


def test_a_write_returns_its_result_and_is_read_at_once(database: Database) -> None:
    async def scenario() -> None:
        assert await database.write(lambda db: insert("a")(db).rowcount) == 1
        assert names(database) == ["a"]

    asyncio.run(scenario())


def test_writes_are_applied_in_the_order_in_which_they_were_asked_for(database: Database) -> None:
    async def scenario() -> None:
        database.post(insert("0"))
        await asyncio.gather(*(database.write(insert(str(n)), durable=n % 2 == 0) for n in range(1, 50)))

    asyncio.run(scenario())
    assert names(database) == [str(n) for n in range(50)]


def test_a_write_that_fails_takes_back_only_itself(database: Database) -> None:
    def half(db: sqlite3.Connection) -> None:
        insert("half")(db)
        raise ValueError("no")

    async def scenario() -> list[Any]:
        results = await asyncio.gather(
            database.write(insert("a")),
            database.write(half),
            database.write(insert("b")),
            return_exceptions=True,
        )
        return list(results)

    results = asyncio.run(scenario())
    assert isinstance(results[1], ValueError)
    assert names(database) == ["a", "b"]


def test_the_reader_cannot_write(database: Database) -> None:
    with pytest.raises(sqlite3.OperationalError):
        database.read(insert("a"))


def test_close_finishes_what_was_accepted(path: str) -> None:
    database = Database.open(path, (TABLE,))
    for n in range(100):
        database.post(insert(str(n)))
    database.close()
    database.close()
    again = Database.open(path, (TABLE,))
    assert len(names(again)) == 100
    again.close()


def test_a_closed_database_takes_no_more_writes(database: Database) -> None:
    database.close()
    with pytest.raises(Unavailable):
        database.post(insert("a"))


def test_migrations_bring_an_older_file_up_to_date(path: str) -> None:
    old = Database.open(path, (TABLE,))
    asyncio.run(old.write(insert("a")))
    old.close()
    new = Database.open(path, (TABLE, MORE))
    assert new.read(lambda db: db.execute("SELECT name, size FROM things").fetchall()) == [("a", None)]
    new.close()


def test_a_migration_that_fails_leaves_the_version_before_it(path: str) -> None:
    Database.open(path, (TABLE,)).close()
    bad = Migration(name="bad", statements=("CREATE TABLE other (x)", "NONSENSE"))
    with pytest.raises(Internal, match="cannot be used"):
        Database.open(path, (TABLE, bad))
    again = Database.open(path, (TABLE, MORE))
    assert again.read(
        lambda db: db.execute("SELECT count(*) FROM sqlite_master WHERE name='other'").fetchone()
    ) == (0,)
    again.close()


def test_a_newer_database_is_refused_and_left_alone(path: str) -> None:
    Database.open(path, (TABLE, MORE)).close()
    with pytest.raises(Internal, match="written by a newer sampan"):
        Database.open(path, (TABLE,))
    Database.open(path, (TABLE, MORE)).close()


def test_a_damaged_database_is_refused_by_name(path: str) -> None:
    Database.open(path, (TABLE,)).close()
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.write(b"\xde\xad" * (size // 2))
    with pytest.raises(Internal, match=r"state\.db cannot be used"):
        Database.open(path, (TABLE,))


def test_what_was_acknowledged_survives_kill_9(path: str) -> None:
    """Both kinds of write: the process dies without closing anything."""
    program = textwrap.dedent(
        """
        import asyncio, os, signal, sys
        from sampan.state import Database, Migration
        table = Migration(name="things", statements=("CREATE TABLE things (name TEXT PRIMARY KEY) STRICT",))
        async def main():
            database = Database.open(sys.argv[1], (table,))
            for name, durable in (("kept", True), ("quick", False)):
                await database.write(
                    lambda db: db.execute("INSERT INTO things (name) VALUES (?)", (name,)), durable=durable)
            os.kill(os.getpid(), signal.SIGKILL)
        asyncio.run(main())
        """
    )
    ended = subprocess.run([sys.executable, "-c", program, path], check=False)
    assert ended.returncode == -signal.SIGKILL
    database = Database.open(path, (TABLE,))
    assert names(database) == ["kept", "quick"]
    database.close()


def test_a_full_disk_is_a_failure_that_may_pass(database: Database) -> None:
    async def act() -> None:
        pages = await database.write(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
        await database.write(lambda db: db.execute(f"PRAGMA max_page_count={pages}"))
        with pytest.raises(DiskFull, match="disk is full"):
            await database.write(
                lambda db: db.execute("INSERT INTO things (name) VALUES (?)", ("x" * 100_000,))
            )
        await database.write(lambda db: db.execute("PRAGMA max_page_count=1000000"))
        await database.write(lambda db: db.execute("INSERT INTO things (name) VALUES (?)", ("x",)))
        assert names(database) == ["x"]

    asyncio.run(act())


def test_a_full_disk_is_told_to_who_posted_and_spoils_nothing_else(database: Database) -> None:
    refused: list[str] = []

    async def act() -> None:
        await database.write(insert("old"))
        pages = await database.write(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
        await database.write(lambda db: db.execute(f"PRAGMA max_page_count={pages}"))
        for name in ("a", "b"):
            database.post(insert(name * 100_000), functools.partial(refused.append, name))
        await database.write(lambda db: db.execute("DELETE FROM things"))
        assert (refused, names(database)) == (["a", "b"], [])

    asyncio.run(act())
