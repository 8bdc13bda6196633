"""A folder that is asked for its files: what is shown, and that nothing else is ever sent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sampan.cli.buildcontext import DOCKERFILE_LIMIT, find, watched
from sampan.cli.buildfolder import Folder
from sampan.errors import Failure
from sampan.wire import sessions


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").write_text("secret")
    folder = tmp_path / "context"
    (folder / "sub/deep").mkdir(parents=True)
    (folder / "a").write_text("aa")
    (folder / "sub/b").write_text("b")
    (folder / "sub/deep/c.txt").write_text("ccc")
    (folder / "inner").symlink_to("sub/deep")
    (folder / "absolute").symlink_to("/sub/b")
    (folder / "etc").symlink_to("/etc")
    (folder / "up").symlink_to("../outside")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    return folder


def shown(folder: Folder, *paths: str) -> dict[str, tuple[str, str]]:
    """Kind and link by path."""
    texts = b"".join(folder.entries(paths)).decode().split("\0")[:-1]
    rows = [texts[at : at + sessions.FIELDS] for at in range(0, len(texts), sessions.FIELDS)]
    return {row[7]: (row[1], row[8]) for row in rows}


def fetched(folder: Folder, number: int) -> bytes:
    return b"".join(folder.fetch([number]))


def test_everything_with_folders_before_what_is_in_them(root: Path) -> None:
    found = shown(watched(str(root), []), ".")
    names = list(found)
    assert found["sub/deep/c.txt"] == ("f", "")
    assert found["pipe"] == ("p", "")
    assert found["etc"] == ("l", "/etc")
    assert names.index("sub") < names.index("sub/b")
    assert len(names) == 11


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a", {"a"}),
        ("sub/b", {"sub", "sub/b"}),
        ("inner/c.txt", {"inner", "sub", "sub/deep", "sub/deep/c.txt"}),
        ("absolute", {"absolute", "sub", "sub/b"}),
        ("su?/*", {"sub", "sub/b", "sub/deep", "sub/deep/c.txt"}),
        ("**/c.txt", None),
        ("missing/x", set()),
        ("a/below", set()),
        ("../../etc/passwd", {"etc"}),
        ("../outside", set()),
        ("/a", {"a"}),
        ("etc/passwd", {"etc"}),
        ("up", {"up"}),
        ("loop", {"loop"}),
    ],
)
def test_what_a_path_means_is_in_the_folder(root: Path, path: str, expected: set[str] | None) -> None:
    found = shown(watched(str(root), []), path)
    assert set(found) == (set(shown(watched(str(root), []), ".")) if expected is None else expected)


def test_what_is_ignored_is_not_shown(root: Path) -> None:
    folder = watched(str(root), ["sub", "!sub/deep/c.txt", "a"])
    assert set(shown(folder, "sub", "a", "inner")) == {"sub", "sub/deep", "sub/deep/c.txt", "inner"}


def test_only_what_was_shown_can_be_had(root: Path) -> None:
    folder = watched(str(root), [])
    shown(folder, "a")
    assert fetched(folder, 0) == sessions.FILE.pack(0, 2) + b"aa\1"
    for number in (1, -1, 10**9):
        with pytest.raises(Failure, match="not in the context"):
            fetched(folder, number)
        with pytest.raises(Failure, match="not in the context"):
            b"".join(folder.digests([number]))


@pytest.mark.parametrize("way", ["link", "file", "folder"])
def test_a_file_that_was_replaced_is_gone(root: Path, way: str) -> None:
    folder = watched(str(root), [])
    shown(folder, "sub/b")
    (root / "sub").rename(root / "old") if way == "folder" else (root / "sub/b").rename(root / "old")
    if way == "link":
        (root / "sub/b").symlink_to("/etc/passwd")
    elif way == "file":
        (root / "sub/b").write_text("another")
    else:
        (root / "sub").symlink_to("/etc")
    number = 1
    assert fetched(folder, number) == sessions.FILE.pack(number, sessions.GONE)
    assert b"".join(folder.digests([number])) == bytes(sessions.DIGEST)


def test_a_file_has_the_size_that_was_told(root: Path) -> None:
    folder = watched(str(root), [])
    shown(folder, "sub/deep/c.txt")
    with open(root / "sub/deep/c.txt", "a") as file:
        file.write("more")
    assert fetched(folder, 2) == sessions.FILE.pack(2, 3) + b"ccc\0"
    os.truncate(root / "sub/deep/c.txt", 1)
    assert fetched(folder, 2) == sessions.FILE.pack(2, 3) + b"c\0\0\0"


def test_a_stamp_is_only_given_for_what_rested(root: Path) -> None:
    def stamp() -> str:
        return b"".join(watched(str(root), []).entries(["a"])).decode().split("\0")[5]

    assert stamp() == ""  # it was written just now: it may be written again in the same tick


def test_a_dockerfile_that_no_engine_takes_is_not_sent(root: Path) -> None:
    (root / "Dockerfile").write_bytes(b"#" * (DOCKERFILE_LIMIT + 1))
    with pytest.raises(Failure, match="Dockerfile is larger than 1048576 bytes"):
        find(str(root), "", bytes).text()
