"""Opening below a directory while others move things."""

from __future__ import annotations

import itertools
import os

import pytest

from sampan.linux import process


@pytest.mark.parametrize(("refusals", "found"), [(2, 7), (10**6, None)])
def test_a_refusal_for_the_moment_is_tried_again_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, refusals: int, found: int | None
) -> None:
    calls = itertools.count()

    def call(what: str, *_: object) -> int:
        if next(calls) < refusals:
            raise BlockingIOError(11, "Resource temporarily unavailable", what)
        return 7

    monkeypatch.setattr(process, "syscall", call)

    def opened() -> int:
        return process.openat2(3, "a/..", os.O_PATH, resolve=process.RESOLVE_IN_ROOT)

    if found is None:
        with pytest.raises(BlockingIOError):
            opened()
        assert next(calls) < 1000
    else:
        assert opened() == found
