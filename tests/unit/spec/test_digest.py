"""Digests: their grammar, Docker's words, chain ids."""

from __future__ import annotations

import hashlib

import pytest

from sampan.errors import InvalidArgument
from sampan.spec import digest as digests

ONE = "sha256:" + "1" * 64
TWO = "sha256:" + "2" * 64


def test_a_digest_is_the_hash_of_the_bytes() -> None:
    assert digests.of(b"x") == "sha256:" + hashlib.sha256(b"x").hexdigest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid checksum digest format"),
        ("sha256", "invalid checksum digest format"),
        ("sha256:" + "1" * 63, "invalid checksum digest length"),
        ("sha256:" + "A" * 64, "invalid checksum digest format"),
        ("sha256:../../" + "1" * 58, "invalid checksum digest format"),
        ("sha512:" + "1" * 128, "unsupported digest algorithm"),
        (ONE + "\n", "invalid checksum digest format"),
    ],
)
def test_what_is_no_digest_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        digests.parse(text)
    assert not digests.is_digest(text)


def test_chain_ids_follow_the_recurrence_of_the_image_spec() -> None:
    second = digests.of(f"{ONE} {TWO}".encode())
    assert digests.chain_ids([ONE, TWO, ONE]) == (ONE, second, digests.of(f"{second} {ONE}".encode()))
    assert digests.chain_ids([]) == ()


def test_short_takes_twelve_digits() -> None:
    assert digests.short(ONE) == "1" * 12
    assert digests.hex_of(TWO) == "2" * 64
