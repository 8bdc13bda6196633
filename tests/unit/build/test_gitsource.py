"""Addresses of git repositories."""

from __future__ import annotations

import pytest

from sampan.build.gitsource import GitSource, git_source, relative
from sampan.errors import InvalidArgument

HEX = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("https://h/a.git", GitSource(url="https://h/a.git")),
        ("https://h/a.git#v1", GitSource(url="https://h/a.git", ref="v1")),
        ("https://h/a.git#:dir/", GitSource(url="https://h/a.git", folder="dir")),
        ("git://h/a#b:/dir", GitSource(url="git://h/a", ref="b", folder="dir")),
        ("ssh://git@h:22/a", GitSource(url="ssh://git@h:22/a")),
        ("git@h:a/b.git#x", GitSource(url="git@h:a/b.git", ref="x")),
        ("github.com/a/b", GitSource(url="https://github.com/a/b")),
        (
            "https://h/a.git?branch=b&subdir=d&keep-git-dir=1",
            GitSource(url="https://h/a.git", ref="refs/heads/b", folder="d", keep=True),
        ),
        (
            "https://h/a.git?tag=t&submodules=0",
            GitSource(url="https://h/a.git", ref="refs/tags/t", submodules=False),
        ),
        (f"https://h/a.git?checksum={HEX}", GitSource(url="https://h/a.git", checksum=HEX)),
        ("https://h/a.tar.gz", None),
        ("https://h/a", None),
        ("file:///a.git", None),
        ("/a.git", None),
        ("a/b.git", None),
    ],
)
def test_what_an_address_says(text: str, found: GitSource | None) -> None:
    assert git_source(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "git://-x/a",
        "git:///a",
        "git://h/a b",
        "https://h/a.git#-x",
        "https://h/a.git#a..b",
        "https://h/a.git#a b",
        "https://h/a.git#+a^{}",
        "https://h/a.git#x:../y",
        "https://h/a.git?other=1",
        "https://h/a.git?checksum=main",
        "https://h/a.git?submodules=2",
    ],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        git_source(text)


def test_a_password_is_not_shown() -> None:
    found = git_source("https://user:secret@h/a.git")
    assert found is not None
    assert found.shown == "https://user:xxxxx@h/a.git"


def test_a_commit_that_is_named_whole_never_changes() -> None:
    assert GitSource(url="git://h/a", ref=HEX).commit == HEX
    assert GitSource(url="git://h/a", ref="main").commit == ""


@pytest.mark.parametrize(
    ("url", "base", "found"),
    [
        ("../b.git", "https://h/x/a.git", "https://h/x/b.git"),
        ("./b", "git://h/a", "git://h/a/b"),
        ("../b", "git@h:x/a", "git@h:x/b"),
        ("../../../../b", "https://h/a", "https://h/b"),
        ("https://other/b", "https://h/a", "https://other/b"),
    ],
)
def test_a_submodule_beside_its_repository(url: str, base: str, found: str) -> None:
    assert relative(url, base) == found


@pytest.mark.parametrize("url", ["/etc", "file:///etc", "ext::sh", "-x"])
def test_a_submodule_elsewhere(url: str) -> None:
    with pytest.raises(InvalidArgument):
        relative(url, "https://h/a")
