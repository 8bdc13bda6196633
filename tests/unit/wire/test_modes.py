"""Modes as chmod understands them."""

from __future__ import annotations

import pytest

from sampan.wire import modes


@pytest.mark.parametrize(
    ("text", "mode", "directory", "found"),
    [
        ("644", 0o777, False, 0o644),
        ("4755", 0, False, 0o4755),
        ("u+x", 0o644, False, 0o744),
        ("+x", 0o644, False, 0o755),
        ("+w", 0o444, False, 0o644),
        ("a+w", 0o444, False, 0o666),
        ("go-rwx", 0o755, False, 0o700),
        ("u=rwX,go=rX", 0o600, False, 0o644),
        ("u=rwX,go=rX", 0o700, False, 0o755),
        ("u=rwX,go=rX", 0o600, True, 0o755),
        ("g=u", 0o640, False, 0o660),
        ("o=g-w", 0o660, False, 0o664),
        ("u+s", 0o755, False, 0o4755),
        ("u=rx", 0o4755, False, 0o555),
        ("u=rx", 0o4755, True, 0o4555),
        ("+t", 0o777, True, 0o1777),
        ("=", 0o777, False, 0),
    ],
)
def test_a_mode(text: str, mode: int, directory: bool, found: int) -> None:
    assert oct(modes.apply(modes.parse(text), mode, directory=directory)) == oct(found)


@pytest.mark.parametrize("text", ["", "10000", "888", "u", "z+x", "u+q", "u+x,", "rwx"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        modes.parse(text)
