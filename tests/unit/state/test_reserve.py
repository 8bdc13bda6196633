"""Blocks that are the database's before it needs them; on a full disk they are tried by tests/faults."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from sampan.linux import allocation
from sampan.state import Database
from sampan.state.reserve import GROWTH, LOG, SPARE


def allocated(path: Path) -> int:
    return os.stat(path).st_blocks * 512


@pytest.fixture
def place(tmp_path: Path) -> Path:
    with open(tmp_path / "probe", "wb") as probe:
        try:
            allocation.ahead(probe.fileno(), 4096)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                pytest.skip("this file system allocates nothing ahead")
            raise
    return tmp_path / "state.db"


def test_an_open_database_has_blocks_ahead_and_a_closed_one_beside_it(place: Path) -> None:
    database = Database.open(str(place))
    try:
        log = Path(f"{place}-wal")
        assert allocated(log) >= LOG
        assert log.stat().st_size < LOG
        assert allocated(place) >= place.stat().st_size + GROWTH
    finally:
        database.close()
    assert not log.exists()
    assert allocated(Path(f"{place}-spare")) >= SPARE


def test_what_a_checkpoint_gives_up_is_allocated_again(place: Path) -> None:
    database = Database.open(str(place))

    async def change() -> None:
        await database.write(lambda c: c.execute("CREATE TABLE more (x)").fetchall())
        database._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert allocated(Path(f"{place}-wal")) == 0
        await database.write(lambda c: c.execute("INSERT INTO more VALUES (1)").fetchall())
        await database.drain()
        await database.drain()  # the one before may be told of before the reserve is held again

    try:
        asyncio.run(change())
        assert allocated(Path(f"{place}-wal")) >= LOG
        assert allocated(place) >= place.stat().st_size + GROWTH
    finally:
        database.close()
