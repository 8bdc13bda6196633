"""Extracting onto a tree: merging and replacing by Docker's rules, and nothing outside within reach."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest
from tests.unit.sandbox.test_unpack import entry

from sampan.errors import InvalidArgument
from sampan.sandbox.extract import Rules, Target, extract
from sampan.sandbox.source import Source
from sampan.wire import tar

DIR, SYM, LINK = tar.DIRECTORY, tar.SYMLINK, tar.LINK


def onto(root: Path, path: str, archive: bytes, **rules: object) -> None:
    """Extract to ``path`` below ``root``, as into a container."""
    anchor, fd = (os.open(one, os.O_RDONLY) for one in (root, root / path.lstrip("/")))
    mask = os.umask(0)
    here = os.getcwd()
    try:
        target = Target(fd=fd, anchor=anchor, path=path.encode())
        extract(Source(iter([archive])), target, Rules(chown=False, **rules))  # type: ignore[arg-type]
    finally:
        os.umask(mask)
        os.chdir(here)
        os.close(anchor)
        os.close(fd)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A container's root with a directory; beside it what must not be reached."""
    (tmp_path / "root/there/sub").mkdir(parents=True)
    (tmp_path / "root/there/sub/kept").write_text("kept")
    (tmp_path / "root/there/file").write_text("old")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    return tmp_path / "root"


def test_directories_merge_and_files_are_replaced(root: Path) -> None:
    os.link(root / "there/file", root / "witness")
    onto(
        root,
        "/there",
        entry("./", kind=DIR, mode=0o700)
        + entry("sub/", kind=DIR, mode=0o711, mtime=10**18)
        + entry("sub/new", b"new", mode=0o600)
        + entry("file", b"newer"),
    )
    assert (root / "there/sub/kept").read_text() == "kept"
    assert (root / "there/sub/new").read_text() == "new"
    assert (root / "there/file").read_text() == "newer"
    assert (root / "witness").read_text() == "old"  # replaced, not written over
    assert stat.S_IMODE((root / "there/sub").stat().st_mode) == 0o711
    assert (root / "there/sub").stat().st_mtime == 10**9
    assert stat.S_IMODE((root / "there").stat().st_mode) != 0o700  # its own looks are nobody's business


def test_marks_of_layers_are_names_like_any_other(root: Path) -> None:
    onto(root, "/there", entry(".wh.file", b"w") + entry(".wh..wh..opq"))
    assert sorted(os.listdir(root / "there")) == [".wh..wh..opq", ".wh.file", "file", "sub"]


def test_kinds_are_kept_when_asked(root: Path) -> None:
    with pytest.raises(InvalidArgument, match='cannot overwrite non-directory "/there/file" with directory'):
        onto(root, "/there", entry("file/", kind=DIR), keep_kinds=True)
    with pytest.raises(InvalidArgument, match='cannot overwrite directory "/there/sub" with non-directory'):
        onto(root, "/there", entry("sub", b"x"), keep_kinds=True)
    onto(root, "/there", entry("file/", kind=DIR) + entry("sub", b"x"))
    assert (root / "there/file").is_dir()
    assert (root / "there/sub").read_text() == "x"


def test_links_of_the_tree_are_followed_inside_it(root: Path) -> None:
    (root / "elsewhere").mkdir()
    os.symlink("/elsewhere", root / "there/link")
    onto(root, "/there", entry("link/new", b"1"))
    assert (root / "elsewhere/new").read_text() == "1"


@pytest.mark.parametrize(
    "archive",
    [
        entry("../x", b"1"),
        entry("a/../../x", b"1"),
        entry("/../../outside/x", b"1"),
        entry("..", kind=DIR),
        entry("hard", kind=LINK, link=b"../outside/secret"),
        entry("hard", kind=LINK, link=b"/outside/secret"),
        entry("s", kind=SYM, link=b"../../outside") + entry("s/x", b"1"),
        entry("s", kind=SYM, link=b"/../../../../outside") + entry("s/secret", b"1"),
        entry("s", kind=SYM, link=b"../../outside") + entry("s/", kind=DIR) + entry("s/secret", b"1"),
        entry("x", b"1") + b"not a header".ljust(512, b"!"),
    ],
)
def test_hostile_archives_reach_nothing_outside(root: Path, archive: bytes) -> None:
    before = sorted(os.listdir(root.parent))
    with suppress(InvalidArgument):
        onto(root, "/there", archive)
    assert (root.parent / "outside/secret").read_text() == "secret"
    assert os.listdir(root.parent / "outside") == ["secret"]
    assert sorted(os.listdir(root.parent)) == before


def test_names_are_changed_at_their_beginning(root: Path) -> None:
    archive = entry("a/", kind=DIR) + entry("a/a", b"1") + entry("a/l", kind=LINK, link=b"a/a")
    onto(root, "/there", archive, rename=(b"a", b"b"))
    assert sorted(os.listdir(root / "there/b")) == ["a", "l"]
    assert (root / "there/b/l").stat().st_nlink == 2


def test_an_archive_that_ends_early_is_refused(root: Path) -> None:
    with pytest.raises(InvalidArgument, match="unexpected end of archive"):
        onto(root, "/there", entry("x", b"1" * 1000)[:700])


def test_nothing_at_all_is_an_archive(root: Path) -> None:
    onto(root, "/there", b"")
    assert sorted(os.listdir(root / "there")) == ["file", "sub"]
