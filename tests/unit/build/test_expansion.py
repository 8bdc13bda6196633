"""Variables in words, against what the Dockerfile reference and a shell say of each modifier."""

from __future__ import annotations

import pytest

from sampan.build.expansion import expand, expand_words
from sampan.errors import InvalidArgument

VALUES = {"v": "foobarbaz", "empty": "", "two": "a b", "path": "/usr/lib/x.tar.gz", "dots": "a.b.c"}


@pytest.mark.parametrize(
    ("word", "expanded"),
    [
        ("plain", "plain"),
        ("$v", "foobarbaz"),
        ("${v}", "foobarbaz"),
        ("${v}_x", "foobarbaz_x"),
        ("$v_x", ""),
        ("$v/x", "foobarbaz/x"),
        ("\\$v", "$v"),
        ("\\${v}", "${v}"),
        ("'$v'", "$v"),
        ('"$v"', "foobarbaz"),
        ("\"'$v'\"", "'foobarbaz'"),
        ('"a\\"b"', 'a"b'),
        ("a\\ b", "a b"),
        ("$unset", ""),
        ("${unset:-word}", "word"),
        ("${empty:-word}", "word"),
        ("${empty-word}", ""),
        ("${unset-word}", "word"),
        ("${v:-word}", "foobarbaz"),
        ("${v:+word}", "word"),
        ("${empty:+word}", ""),
        ("${empty+word}", "word"),
        ("${unset+word}", ""),
        ("${unset:-$v}", "foobarbaz"),
        ("${unset:-${empty:-deep}}", "deep"),
        ("${v:?missing}", "foobarbaz"),
        ("${empty?missing}", ""),
        ("${v#f*b}", "arbaz"),
        ("${v##f*b}", "az"),
        ("${v%b*z}", "foobar"),
        ("${v%%b*z}", "foo"),
        ("${v#x}", "foobarbaz"),
        ("${path%.*}", "/usr/lib/x.tar"),
        ("${path%%.*}", "/usr/lib/x"),
        ("${path##*/}", "x.tar.gz"),
        ("${path#/*/}", "lib/x.tar.gz"),
        ("${v/ba/XX}", "fooXXrbaz"),
        ("${v//ba/XX}", "fooXXrXXz"),
        ("${v/b?r/-}", "foo-baz"),
        ("${dots//./-}", "a-b-c"),
    ],
)
def test_a_word_expands(word: str, expanded: str) -> None:
    assert expand(word, VALUES) == expanded


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("${unset:?is needed}", "is needed"),
        ("${empty:?is needed}", "is needed"),
        ("${unset?}", "unset"),
        ("${v", ""),
        ("${v:}", ""),
        ("${v^^}", ""),
        ("${}", ""),
        ("${v/ba}", "missing"),
        ("'open", ""),
        ('"open', ""),
    ],
)
def test_a_word_that_does_not_expand_says_why(word: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message or "."):
        expand(word, VALUES)


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("$two", ("a", "b")),
        ('"$two"', ("a b",)),
        ("x$two", ("xa", "b")),
        ("$empty", ()),
        ('"$empty"', ("",)),
        ("'a  b' c", ("a  b", "c")),
    ],
)
def test_unquoted_spaces_split(word: str, words: tuple[str, ...]) -> None:
    assert expand_words(word, VALUES) == words


def test_another_escape_character() -> None:
    assert expand("`$v\\x", VALUES, "`") == "$v\\x"


def test_depth_is_bounded() -> None:
    with pytest.raises(InvalidArgument):
        expand("${a:-" * 1000 + "}" * 1000, {})
