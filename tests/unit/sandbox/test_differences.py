"""What changed, by Docker's rules: from an upper directory and what it covers."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from sampan.sandbox.differences import differences
from sampan.sandbox.marks import OPAQUE_XATTR
from sampan.sandbox.trees import Trees


class Tree:
    """An image's directory and an upper one over it, which holds copies as overlayfs makes them."""

    def __init__(self, place: Path) -> None:
        self.upper, self.lower = place / "upper", place / "lower"
        for name in ("a/b", "etc"):
            (self.lower / name).mkdir(parents=True)
        for name in ("a/b/deep", "etc/one", "etc/two", "top"):
            (self.lower / name).write_text(name)
        self.upper.mkdir()

    def up(self, path: str) -> Path:
        """Copy something up, with the directories that it is in."""
        for parent in reversed(Path(path).parents[:-1]):
            if not (self.upper / parent).exists():
                (self.upper / parent).mkdir()
                shutil.copystat(self.lower / parent, self.upper / parent)
        if not (self.upper / path).exists():
            shutil.copy2(self.lower / path, self.upper / path)
        return self.upper / path

    def white_out(self, path: str) -> None:
        try:
            os.mknod(self.upper / path, stat.S_IFCHR, 0)
        except PermissionError:
            pytest.skip("no whiteouts here")

    def changes(self) -> list[str]:
        upper, lower = (os.open(one, os.O_RDONLY) for one in (self.upper, self.lower))
        try:
            found = differences(upper, Trees((lower,)))
            return [f"{'CAD'[kind]} {os.fsdecode(path)}" for kind, path in found]
        finally:
            os.close(upper)
            os.close(lower)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_nothing(tree: Tree) -> None:
    assert tree.changes() == []
    tree.up("etc/one")
    tree.up("a/b/deep")
    assert tree.changes() == []  # opened for writing, and not written to


def test_a_change_tells_of_the_directories_around_it(tree: Tree) -> None:
    tree.up("a/b/deep").write_text("another")
    tree.up("etc/one").chmod(0o600)
    assert tree.changes() == ["C /a", "C /a/b", "C /a/b/deep", "C /etc", "C /etc/one"]


def test_what_the_image_lacks_was_added_with_all_below(tree: Tree) -> None:
    (tree.upper / "new/below").mkdir(parents=True)
    (tree.upper / "new/file").write_text("x")
    assert tree.changes() == ["A /new", "A /new/below", "A /new/file"]


def test_every_kind_that_is_new_was_added_but_what_hides_nothing(tree: Tree) -> None:
    new = tree.upper / "new"
    (new / "below").mkdir(parents=True)
    (new / "below/link").symlink_to("/nowhere")
    os.mkfifo(new / "fifo")
    tree.white_out("new/below/never")
    (new / ".wh..wh..opq").touch()
    assert tree.changes() == ["A /new", "A /new/below", "A /new/below/link", "A /new/fifo"]


def test_deletions_come_last_and_only_of_what_there_was(tree: Tree) -> None:
    tree.up("etc/two").write_text("2")
    tree.white_out("etc/one")
    tree.white_out("etc/never")
    (tree.upper / "etc/zz").write_text("z")
    assert tree.changes() == ["C /etc", "C /etc/two", "A /etc/zz", "D /etc/one"]


def test_a_directory_instead_of_a_file_and_a_file_instead_of_a_directory(tree: Tree) -> None:
    (tree.upper / "top").mkdir()
    (tree.upper / "top/in").write_text("x")
    (tree.upper / "etc").write_text("now a file")
    assert tree.changes() == ["C /etc", "C /top", "A /top/in"]


def test_a_directory_that_only_changed_its_mode(tree: Tree) -> None:
    tree.up("etc/one")
    (tree.upper / "etc").chmod(0o700)
    assert tree.changes() == ["C /etc"]


def test_whole_seconds_are_as_good_as_the_rest(tree: Tree) -> None:
    copy = tree.up("top")
    seconds = (tree.lower / "top").stat().st_mtime_ns // 10**9 * 10**9
    os.utime(copy, ns=(seconds, seconds))
    assert tree.changes() == []
    os.utime(copy, ns=(seconds, seconds - 10**9))
    assert tree.changes() == ["C /top"]


def test_an_opaque_directory_deletes_what_it_does_not_have(tree: Tree) -> None:
    tree.up("etc/one")
    try:
        os.setxattr(tree.upper / "etc", OPAQUE_XATTR, b"y")
    except PermissionError:
        pytest.skip("no opaque directories here")
    assert tree.changes() == ["C /etc", "D /etc/two"]
