from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.images.blobs import BlobStore, Pace, Part
from sampan.sandbox.source import Source
from sampan.spec import digest as digests

BLOCK = os.urandom(1 << 20)


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "blobs"), str(tmp_path / "tmp"))


@pytest.fixture
def part(store: BlobStore) -> Iterator[Part]:
    found = store.partial(digests.of(b"whatever"))
    yield found
    found.close()


def told(pace: Pace) -> list[int]:
    """Every size that was told, once there is no more to come."""
    with os.fdopen(pace.reading, "rb") as file:
        data = file.read()
    return [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]


def test_who_follows_from_the_middle_is_told_where_it_is(part: Part) -> None:
    part.write(BLOCK * 2)
    pace = part.follow()
    part.write(b"x")
    part.write(BLOCK)
    part.close()
    sizes = [2 << 20, (3 << 20) + 1, (3 << 20) + 1]
    assert told(pace) == sizes


def test_what_begins_anew_leaves_its_follower_behind(part: Part) -> None:
    part.write(BLOCK)
    pace = part.follow()
    part.restart()
    assert part.follower is None
    part.write(b"other")
    part.close()
    assert told(pace) == [1 << 20, 1 << 20]
    assert (part.size, part.digest) == (5, digests.of(b"other"))


def test_a_part_that_is_followed_is_read_whole(part: Part) -> None:
    part.write(BLOCK)
    pace = part.follow()
    reading = part.open()
    part.write(BLOCK)
    part.close()
    source = Source(reading, pace=pace.reading)
    assert source.take(2 << 20) == BLOCK * 2
    assert source.block() is None
    os.close(reading)
    os.close(pace.reading)


def test_a_part_goes_on_where_an_earlier_one_ended(store: BlobStore) -> None:
    digest = digests.of(BLOCK * 9)
    first = store.partial(digest)
    first.write(BLOCK * 4)
    first.close()
    second = store.partial(digest)
    assert (second.size, second.head) == (4 << 20, BLOCK[:8])
    second.write(BLOCK * 5)  # more than what is sent to the disk at once
    second.close()
    assert store.adopt(second) == digest
    assert store.size(digest) == 9 << 20
