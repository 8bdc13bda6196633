"""The local driver: what survives which crash. A crash is a directory as it stood at that moment."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.errors import InvalidArgument
from sampan.state import Database
from sampan.volumes import records as rows
from sampan.volumes.local import LocalVolumes, check_name


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(os.fspath(tmp_path / "state.db"))
    yield opened
    opened.close()


@pytest.fixture
def local(tmp_path: Path, database: Database) -> LocalVolumes:
    return LocalVolumes(directory=os.fspath(tmp_path / "volumes"), database=database)


def names(local: LocalVolumes) -> list[str]:
    return [record.name for record in asyncio.run(local.recover())]


def put(local: LocalVolumes, name: str, text: str = "precious") -> Path:
    path = Path(local.directory) / name / "_data" / "file"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def create(local: LocalVolumes, name: str) -> Path:
    asyncio.run(local.recover())
    asyncio.run(local.create(name, {"a": "b"}))
    path = Path(local.mountpoint(name)) / "file"
    path.write_text("precious")
    return path


@pytest.mark.parametrize("name", ["ab", "A.b-c_9", "0" * 64, "a" * 200])
def test_good_names(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["", "a b", "../etc", "a/b", ".ab", "-ab", "ab\n", "é" * 2])
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_name(name)
    assert str(refused.value) == (
        f'create {name}: "{name}" includes invalid characters for a local volume name, only '
        '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
    )


def test_short_and_long_names() -> None:
    with pytest.raises(
        InvalidArgument, match="create a: volume name is too short, names should be at least two"
    ):
        check_name("a")
    with pytest.raises(InvalidArgument, match="too long"):
        check_name("a" * 250)


def test_created_volumes_are_found_again(local: LocalVolumes) -> None:
    path = create(local, "data")
    os.umask(os.umask(0o022))
    assert os.stat(path.parent).st_mode & 0o777 == 0o755
    (record,) = asyncio.run(local.recover())
    assert (record.name, record.labels) == ("data", {"a": "b"})
    assert path.read_text() == "precious"


def test_removed_volumes_are_gone(local: LocalVolumes) -> None:
    create(local, "data")
    asyncio.run(local.remove("data"))
    assert names(local) == []
    local.discard("data")
    assert os.listdir(local.directory) == []


def test_a_directory_without_a_row_is_adopted_with_its_data(local: LocalVolumes) -> None:
    path = put(local, "orphan")
    assert names(local) == ["orphan"]
    assert names(local) == ["orphan"]
    assert path.read_text() == "precious"


def test_what_is_no_volume_is_left_alone(local: LocalVolumes) -> None:
    path = Path(local.directory) / "lost+found"
    path.mkdir(parents=True)
    stray = Path(local.directory) / "notes"
    stray.write_text("precious")
    assert names(local) == []
    assert path.is_dir()
    assert stray.read_text() == "precious"


def test_a_creation_cut_before_its_row_leaves_nothing(local: LocalVolumes) -> None:
    (Path(local.directory) / ".making-data" / "_data").mkdir(parents=True)
    assert names(local) == []
    assert os.listdir(local.directory) == []


def test_a_creation_cut_after_its_row_is_finished(local: LocalVolumes) -> None:
    create(local, "data")
    os.rename(Path(local.directory) / "data", Path(local.directory) / ".making-data")
    assert names(local) == ["data"]
    assert (Path(local.mountpoint("data")) / "file").read_text() == "precious"


def test_a_removal_cut_before_its_row_is_taken_back(local: LocalVolumes) -> None:
    path = create(local, "data")
    os.rename(Path(local.directory) / "data", Path(local.directory) / ".removing-data")
    assert names(local) == ["data"]
    assert path.read_text() == "precious"


def test_a_removal_cut_after_its_row_is_finished(local: LocalVolumes) -> None:
    create(local, "data")
    asyncio.run(local.remove("data"))
    assert os.listdir(local.directory) == [".removing-data"]
    assert names(local) == []
    assert os.listdir(local.directory) == []


def test_a_deleted_directory_is_made_anew(local: LocalVolumes) -> None:
    path = create(local, "data")
    path.unlink()
    os.rmdir(path.parent)
    os.rmdir(path.parent.parent)
    assert names(local) == ["data"]
    assert local.ensure_directory("data") == os.fspath(path.parent)
    assert path.parent.is_dir()


def test_a_full_disk_leaves_no_volume(local: LocalVolumes, database: Database) -> None:
    asyncio.run(local.recover())
    asyncio.run(database.write(lambda connection: connection.execute("DROP TABLE volumes")))
    with pytest.raises(Exception, match="no such table"):
        asyncio.run(local.create("data", None))
    assert os.listdir(local.directory) == []


def test_a_renaming_cut_before_its_row_is_taken_back(local: LocalVolumes) -> None:
    path = create(local, "data")
    (path.parent.parent / "renaming").write_text("other")
    assert names(local) == ["data"]
    assert path.read_text() == "precious"
    assert not (path.parent.parent / "renaming").exists()


@pytest.mark.parametrize("moved", [True, False])
def test_a_renaming_cut_after_its_row_is_finished(
    local: LocalVolumes, database: Database, moved: bool
) -> None:
    path = create(local, "data")
    place = path.parent.parent
    (place / "renaming").write_text("other")
    asyncio.run(database.write(lambda connection: rows.rename(connection, "data", "other")))
    if moved:
        os.rename(place, place.with_name("other"))
    assert names(local) == ["other"]
    assert (Path(local.mountpoint("other")) / "file").read_text() == "precious"
    assert os.listdir(local.directory) == ["other"]
    assert sorted(os.listdir(place.with_name("other"))) == ["_data"]


def test_a_renamed_volume_keeps_its_data(local: LocalVolumes) -> None:
    create(local, "data")
    asyncio.run(local.rename("data", "other"))
    assert names(local) == ["other"]
    assert (Path(local.mountpoint("other")) / "file").read_text() == "precious"


def test_a_filling_that_fails_or_was_cut_leaves_nothing(local: LocalVolumes) -> None:
    async def fill(data: str) -> None:
        (Path(data) / "half").touch()
        raise OSError(28, "No space left on device")

    assert names(local) == []
    with pytest.raises(OSError, match="No space"):
        asyncio.run(local.create("data", None, fill=fill))
    assert os.listdir(local.directory) == []
    (Path(local.directory) / ".making-data" / "first").mkdir(parents=True)
    (Path(local.directory) / ".copying-abc" / "data").mkdir(parents=True)
    assert names(local) == []
    assert os.listdir(local.directory) == []
