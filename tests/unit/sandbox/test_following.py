"""A file that grows is read as far as its writer has told."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.errors import InvalidArgument
from sampan.images.blobs import Pace, Part
from sampan.sandbox.source import Source


@pytest.fixture
def part(tmp_path: Path) -> Iterator[Part]:
    made = Part(str(tmp_path / "part"))
    yield made
    made.close()


def followed(part: Part, kind: str = "") -> tuple[Source, int]:
    """A source that follows the part, and the descriptor that it reads from."""
    part.follower = Pace()
    fd = part.open()
    return Source(fd, kind, pace=part.follower.reading), fd


def test_what_was_told_is_read_and_no_more(part: Part) -> None:
    data = os.urandom(3 << 20)
    source, fd = followed(part)
    part.write(data[: 2 << 20])
    assert source.take(2 << 20) == data[: 2 << 20]
    part.write(data[2 << 20 :])
    part.close()
    assert source.take(1 << 20) == data[2 << 20 :]
    assert source.block() is None
    os.close(fd)


def test_a_compressed_file_that_ends_early_is_refused(part: Part) -> None:
    whole = zlib.compressobj(wbits=31)
    data = whole.compress(os.urandom(1 << 20)) + whole.flush()
    source, fd = followed(part, "gzip")
    part.write(data[:-1])
    part.close()
    with pytest.raises(InvalidArgument):
        source.finish()
    os.close(fd)


def test_a_file_that_is_shorter_than_was_told_is_refused(part: Part) -> None:
    source, fd = followed(part)
    part.write(bytes(2 << 20))
    part.restart()
    with pytest.raises(InvalidArgument, match="unexpected end of archive"):
        source.finish()
    os.close(fd)


def test_nobody_need_follow(part: Part) -> None:
    part.follower = Pace()
    os.close(part.follower.reading)
    part.write(bytes(2 << 20))
    part.close()
    assert part.size == 2 << 20
