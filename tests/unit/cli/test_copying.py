"""Docker's rules of cp, as values; what both ends are on a disk is compared with Docker in tests/e2e."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sampan.cli import copying
from sampan.cli.copying import End, place
from sampan.errors import Failure

FILE, DIRECTORY = End("/s/file", exists=True), End("/s/dir", exists=True, is_directory=True)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("c:/x", ("c", "/x")),
        ("c:x", ("c", "x")),
        ("c:", ("c", "")),
        ("/a:b", ("", "/a:b")),
        ("./a:b", ("", "./a:b")),
        ("x", ("", "x")),
        ("-", ("", "-")),
        (":x", ("", "x")),
    ],
)
def test_an_argument_is_a_container_s_or_the_host_s(text: str, parts: tuple[str, str]) -> None:
    assert copying.argument(text) == parts


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (FILE, End("/t", exists=True, is_directory=True), ("/t", "")),
        (FILE, End("/t/x", exists=True), ("/t", "x")),
        (FILE, End("/t/x"), ("/t", "x")),
        (DIRECTORY, End("/t", exists=True, is_directory=True), ("/t", "")),
        (DIRECTORY, End("/t/x"), ("/t", "x")),
        (DIRECTORY, End("/t/x/"), ("/t", "x")),
    ],
)
def test_places(source: End, target: End, expected: tuple[str, str]) -> None:
    found = place(source, target)
    assert (found.directory, found.name) == expected


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        (DIRECTORY, End("/t/x", exists=True), "cannot copy directory"),
        (FILE, End("/t/x/"), "no such directory"),
        (FILE, End("/t/x/."), "no such directory"),
    ],
)
def test_what_does_not_go_together(source: End, target: End, words: str) -> None:
    with pytest.raises(Failure, match=words):
        place(source, target)


def test_the_end_of_a_path_is_kept() -> None:
    assert copying.like("/a", "a/") == "/a/"
    assert copying.like("/a", "a/.") == "/a/."
    assert copying.like("/", "/") == "/"
    assert copying.split("/a/b/") == ("/a", "b")
    assert copying.split("/a/b/.") == ("/a/b", ".")
    assert copying.rebased("/a/link/", "/b/dir") == ("/b/dir/", "link")
    assert copying.rebased("/a/dir", "/b/dir") == ("/b/dir", "")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").write_text("x")
    os.symlink("dir", tmp_path / "ldir")
    os.symlink("loop", tmp_path / "loop")
    os.symlink("missing", tmp_path / "lmissing")
    return tmp_path


def test_sources(here: Path) -> None:
    assert not copying.local_source(f"{here}/ldir", follow=False).is_directory
    slashed = copying.local_source(f"{here}/ldir/", follow=False)
    assert (slashed.is_directory, slashed.rebased) == (True, "ldir")
    followed = copying.local_source(f"{here}/ldir", follow=True)
    assert (followed.path, followed.rebased) == (f"{here}/dir", "ldir")
    for path, words in (
        (f"{here}/nothing", f"lstat {here}/nothing: no such file or directory"),
        (f"{here}/nothing/x", f"lstat {here}/nothing: no such file or directory"),
        (f"{here}/file/", "not a directory"),
        (f"{here}/loop/x", "EvalSymlinks: too many links"),
    ):
        with pytest.raises(Failure) as refused:
            copying.local_source(path, follow=False)
        assert str(refused.value) == words


def test_targets(here: Path) -> None:
    assert copying.local_target(f"{here}/ldir").path == f"{here}/dir"
    missing = copying.local_target(f"{here}/lmissing")
    assert (missing.path, missing.exists) == (f"{here}/missing", False)
    with pytest.raises(Failure, match="too many symlinks"):
        copying.local_target(f"{here}/loop")
    with pytest.raises(Failure, match='invalid output path: directory "/no/such" does not exist'):
        copying.check_output("/no/such/x")
    with pytest.raises(Failure, match="must be a directory or a regular file: got a device"):
        copying.check_output("/dev/null")
