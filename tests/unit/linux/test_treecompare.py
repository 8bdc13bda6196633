"""Trees are compared by what they are, not by what names their files have elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sampan.linux.treecompare import difference


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """Two trees of the same two files."""
    made = (tmp_path / "one", tmp_path / "other")
    for tree in made:
        tree.mkdir()
        for name in ("a", "b"):
            (tree / name).write_text("same")
            os.utime(tree / name, (1, 1))
        os.utime(tree, (1, 1))
    return made


def test_a_file_may_have_a_name_elsewhere(trees: tuple[Path, Path], tmp_path: Path) -> None:
    os.link(trees[0] / "a", tmp_path / "held")
    assert difference(*map(str, trees)) == ""


@pytest.mark.parametrize("linked", [0, 1])
def test_names_of_one_file_are_names_of_one_file(trees: tuple[Path, Path], linked: int) -> None:
    (trees[linked] / "b").unlink()
    os.link(trees[linked] / "a", trees[linked] / "b")
    os.utime(trees[linked], (1, 1))
    assert difference(*map(str, trees)) == "b: other hard links"
