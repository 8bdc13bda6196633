"""Decompression: every kind, in pieces, cut short, damaged, and as a bomb."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import InvalidArgument
from sampan.wire import compression
from sampan.wire.compression import Decompressor

zstandard = pytest.importorskip("zstandard")

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
}
kinds = pytest.mark.parametrize("kind", list(PACK))


def inflate(kind: str, data: bytes, step: int = 1 << 16) -> bytes:
    stream = Decompressor(kind)
    pieces = [p for at in range(0, len(data), step) for p in stream.feed(data[at : at + step])]
    stream.finish()
    return b"".join(pieces)


@kinds
def test_the_first_bytes_tell_the_kind(kind: str) -> None:
    assert compression.detect(PACK[kind](b"x")[: compression.MAGIC_LENGTH]) == kind


def test_a_tar_is_not_compressed() -> None:
    assert compression.detect(b"./a\0\0\0") == ""


@given(st.sampled_from(list(PACK)), st.binary(max_size=3000), st.integers(1, 700))
def test_any_data_comes_back_whatever_the_pieces(kind: str, data: bytes, step: int) -> None:
    assert inflate(kind, PACK[kind](data), step) == data


@kinds
def test_streams_that_follow_one_another_are_one(kind: str) -> None:
    assert inflate(kind, PACK[kind](b"abc") + PACK[kind](b"def")) == b"abcdef"


@kinds
def test_an_early_end_is_noticed(kind: str) -> None:
    with pytest.raises(InvalidArgument, match=f"unexpected end of {kind} data"):
        inflate(kind, PACK[kind](b"abc" * 1000)[:-5])


@kinds
def test_damage_is_noticed(kind: str) -> None:
    data = bytearray(PACK[kind](bytes(range(256)) * 40))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(InvalidArgument, match=f"{kind} data"):
        assert inflate(kind, bytes(data)) == bytes(range(256)) * 40


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz"])
def test_a_bomb_comes_in_bounded_pieces(kind: str) -> None:
    stream = Decompressor(kind)
    total = 0
    for piece in stream.feed(PACK[kind](bytes(64 << 20))):
        assert len(piece) <= compression.PIECE
        total += len(piece)
    assert total == 64 << 20


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="unknown compression"):
        Decompressor("rar")
