"""A database that the disk has damaged: what is saved, what the last copy gives back, what is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from sampan.errors import Internal
from sampan.state import Database, copies
from sampan.state.salvage import repair

ROWS = 200
_PAGE = 4096


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A closed database with `ROWS` volumes, and its copy, which knows no volume ``late``."""
    path = tmp_path / "state.db"
    database = Database.open(str(path))
    rows = [(f"volume-{number:03d}", number, "x" * 500) for number in range(ROWS)]
    query = "INSERT INTO volumes (name, created_ns, labels) VALUES (?, ?, ?)"

    async def fill() -> None:
        await database.write(lambda db: db.executemany(query, rows).rowcount)

    asyncio.run(fill())
    database.close()
    with sqlite3.connect(path) as connection:
        connection.execute(query, ("late", 1, None))
    connection.close()
    return path


def volumes(path: Path) -> set[str]:
    database = Database.open(str(path))
    try:
        return {row[0] for row in database.read(lambda db: db.execute("SELECT name FROM volumes").fetchall())}
    finally:
        database.close()


def all_of_the_copy() -> set[str]:
    return {f"volume-{number:03d}" for number in range(ROWS)}


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def leaf_of(path: Path, text: bytes) -> int:
    """The number of the page that has ``text``, from 0."""
    return path.read_bytes().index(text) // _PAGE


def test_a_whole_database_is_left_alone(place: Path) -> None:
    before = place.read_bytes()
    assert repair(str(place)) is None
    assert place.read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: overwrite(path, 2, b"XXXX"), id="header"),
        pytest.param(lambda path: os.truncate(path, 5 * _PAGE), id="truncated"),
        pytest.param(lambda path: os.truncate(path, 0), id="empty"),
        pytest.param(os.unlink, id="missing"),
    ],
)
def test_of_a_file_that_cannot_be_read_the_copy_has_everything(
    place: Path, damage: Callable[[Path], None]
) -> None:
    damage(place)
    salvage = repair(str(place))
    assert salvage is not None
    assert volumes(place) == all_of_the_copy()
    assert salvage.copied["volumes"] == ROWS
    if salvage.aside:
        assert os.path.exists(salvage.aside)


def test_of_a_damaged_page_the_rows_are_taken_from_the_copy_and_the_others_as_they_are(place: Path) -> None:
    overwrite(place, leaf_of(place, b"volume-100") * _PAGE, os.urandom(64))
    with pytest.raises(Internal, match=r"damaged|malformed"):
        Database.open(str(place))
    salvage = repair(str(place))
    assert salvage is not None
    assert volumes(place) == {*all_of_the_copy(), "late"}
    assert 0 < salvage.copied["volumes"] < ROWS


def test_without_a_copy_what_can_be_read_is_saved_and_the_rest_named(place: Path) -> None:
    os.unlink(f"{place}-copy")
    lost = leaf_of(place, b"volume-100")
    overwrite(place, lost * _PAGE, os.urandom(64))
    salvage = repair(str(place))
    assert salvage is not None
    found = volumes(place)
    assert "late" in found
    assert "volume-100" not in found
    assert len(found) > ROWS // 2
    assert salvage.lost == ["volumes"]
    assert any(line.endswith("it may have had more") for line in salvage.lines())


def test_a_damaged_database_is_not_copied_over_a_whole_copy(place: Path) -> None:
    before = Path(f"{place}-copy").read_bytes()
    overwrite(place, leaf_of(place, b"volume-100") * _PAGE, os.urandom(64))
    with contextlib.closing(sqlite3.connect(place)) as connection:
        copies.make(connection, str(place))
    assert Path(f"{place}-copy").read_bytes() == before
    assert not os.path.exists(f"{place}-copy.new")
