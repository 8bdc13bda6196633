"""How much of the disk a tree takes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from sampan.linux.diskspace import Space, measure


def du(path: Path) -> int:
    """Bytes that du counts below a directory, without the directory itself."""
    said = subprocess.run(
        ["du", "-s", "--block-size=1", path], check=True, capture_output=True, text=True
    ).stdout
    return int(said.split()[0]) - os.stat(path).st_blocks * 512


def test_it_is_what_du_says(tmp_path: Path) -> None:
    for number in range(20):
        place = tmp_path / f"t/{number % 3}/{number}"
        place.mkdir(parents=True)
        (place / "small").write_bytes(b"x")
        (place / "large").write_bytes(bytes(100_000 + number))
    os.link(tmp_path / "t/0/0/large", tmp_path / "t/again")
    with open(tmp_path / "t/sparse", "wb") as file:
        file.truncate(1 << 30)
    (tmp_path / "t/link").symlink_to("/")
    os.mkfifo(tmp_path / "t/pipe")
    found = measure(os.fspath(tmp_path / "t"))
    assert found.occupied == du(tmp_path / "t")
    assert found.apparent == (1 << 30) + 20 * 100_001 + sum(range(20)) + len("/")


def test_an_empty_directory_and_a_missing_one_take_nothing(tmp_path: Path) -> None:
    assert measure(os.fspath(tmp_path)) == Space()
    assert measure(os.fspath(tmp_path / "missing")) == Space()


def test_a_tree_deeper_than_any_path_is_measured(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(60):
        os.mkdir("d" * 200, dir_fd=fd)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.truncate(f"/proc/self/fd/{fd}/bottom", 7)
    os.close(fd)
    assert measure(os.fspath(tmp_path)).apparent == 7
