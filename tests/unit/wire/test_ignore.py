"""Ignore files, by the examples of Docker's build reference and the corners of Go's patterns."""

from __future__ import annotations

import pytest

from sampan.errors import InvalidArgument
from sampan.wire.ignore import Matcher, read


@pytest.mark.parametrize(
    ("patterns", "path", "ignored"),
    [
        ("*/temp*", "somedir/temporary.txt", True),
        ("*/temp*", "somedir/temp", True),
        ("*/temp*", "somedir/subdir/temporary.txt", False),
        ("*/*/temp*", "somedir/subdir/temporary.txt", True),
        ("temp?", "tempa", True),
        ("temp?", "temp", False),
        ("temp?", "tempab", False),
        ("**/*.go", "a.go", True),
        ("**/*.go", "deep/er/a.go", True),
        ("*.md\n!README.md", "README.md", False),
        ("*.md\n!README.md", "OTHER.md", True),
        ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", True),
        ("*.md\n!README*.md\nREADME-secret.md", "README-x.md", False),
        ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", False),
        ("/foo/bar", "foo/bar", True),
        ("foo/bar/", "foo/bar/baz", True),
        ("foo/../bar", "bar", True),
        ("node_modules", "node_modules/a/b", True),
        ("node_modules", "sub/node_modules", False),
        ("**/node_modules", "sub/node_modules/x", True),
        ("foo\n!foo/keep", "foo/keep", False),
        ("foo\n!foo/keep", "foo/other", True),
        ("*\n!src", "src/a.c", False),
        ("*\n!src", "doc/a.c", True),
        ("a[b-d]e", "ace", True),
        ("a[^b-d]e", "ace", False),
        ("a[^b-d]e", "aze", True),
        ("a[^b]e", "a/e", False),
        ("a\\*b", "a*b", True),
        ("a\\*b", "axb", False),
        ("a.b", "axb", False),
        ("**", "any/thing", True),
        ("a/**", "a/b/c", True),
        ("a/**/c", "a/c", True),
        ("a/**/c", "a/x/y/c", True),
        ("(x)+$", "(x)+$", True),
        ("# comment\n\n  spaced  ", "spaced", True),
        ("# comment", "# comment", False),
        ("\ufeffbom", "bom", True),
    ],
)
def test_the_last_pattern_that_matches_decides(patterns: str, path: str, ignored: bool) -> None:
    assert Matcher(read(patterns)).ignores(path) is ignored


@pytest.mark.parametrize("pattern", ["a[", "a[b", "x\\", "!"])
def test_a_malformed_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidArgument):
        Matcher([pattern])


@pytest.mark.parametrize(
    ("patterns", "folder", "skipped"),
    [
        ("big", "big", True),
        ("big", "small", False),
        ("big\n!big/keep", "big", False),
        ("big\n!other/keep", "big", True),
        ("*\n!src/**/*.c", "doc", True),
        ("*\n!src/**/*.c", "src", False),
        ("big\n!**/keep", "big", False),
        ("big\n!b*/keep", "big", False),
    ],
)
def test_a_folder_that_can_hold_nothing_wanted_is_skipped(patterns: str, folder: str, skipped: bool) -> None:
    assert Matcher(read(patterns)).skips(folder) is skipped
