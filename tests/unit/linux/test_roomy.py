"""A directory made apart is one like any other, and nothing is left beside it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.linux import inodeflags, roomy


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_it_is_an_ordinary_directory(tmp_path: Path, parent: int) -> None:
    roomy.make_directory(b"made", 0o700, parent)
    assert os.listdir(tmp_path) == ["made"]
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o700
    assert (tmp_path / "made").stat().st_nlink == 2
    assert isinstance(roomy.helps(parent), bool)


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_there_stays(tmp_path: Path, parent: int, kind: str) -> None:
    place = tmp_path / "made"
    makers: dict[str, Callable[[], None]] = {
        "file": place.touch,
        "directory": place.mkdir,
        "link": lambda: place.symlink_to("nowhere"),
    }
    makers[kind]()
    before = place.lstat().st_ino
    with pytest.raises(FileExistsError):
        roomy.make_directory(b"made", 0o700, parent)
    assert (os.listdir(tmp_path), place.lstat().st_ino) == (["made"], before)


def test_one_that_is_made_meanwhile_stays(
    tmp_path: Path, parent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inodeflags, "add_flag", lambda *_: (tmp_path / "made").mkdir())
    with pytest.raises(FileExistsError):
        roomy.make_directory(b"made", 0o700, parent)
    assert os.listdir(tmp_path) == ["made"]


def test_where_it_cannot_be_had_it_is_made_in_place(
    tmp_path: Path, parent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(inodeflags, "add_flag", refused)
    roomy.make_directory(b"made", 0o755, parent)
    assert os.listdir(tmp_path) == ["made"]
