"""Removing trees of any shape."""

from __future__ import annotations

import os
from pathlib import Path

from sampan.linux import tree


def remove(parent: Path, name: str) -> None:
    fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        tree.remove_tree(fd, name)
    finally:
        os.close(fd)


def test_a_tree_goes_and_its_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("x")
    (tmp_path / "t/a/b").mkdir(parents=True)
    (tmp_path / "t/a/b/f").write_text("x")
    (tmp_path / "t/a/l").symlink_to("../../kept")
    (tmp_path / "t/l").symlink_to("../kept")
    remove(tmp_path, "t")
    assert os.listdir(tmp_path) == ["kept"]
    assert (tmp_path / "kept/file").read_text() == "x"


def test_a_file_a_link_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    (tmp_path / "l").symlink_to("f")
    for name in ("l", "f", "none"):
        remove(tmp_path, name)
    assert os.listdir(tmp_path) == []


def test_a_tree_deeper_than_any_path_or_descriptor_limit(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    fd = os.open(tmp_path / "t", os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=fd)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        deeper = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(fd)
    remove(tmp_path, "t")
    assert os.listdir(tmp_path) == []


def test_names_left_by_an_interrupted_removal_do_not_matter(tmp_path: Path) -> None:
    for number in range(1, 4):
        (tmp_path / f"t/.removing-{number}/x").mkdir(parents=True)
    (tmp_path / "t/a/b/c").mkdir(parents=True)
    remove(tmp_path, "t")
    assert os.listdir(tmp_path) == []
