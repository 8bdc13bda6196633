"""Netlink framing, and answers recorded from the kernel."""

from __future__ import annotations

import errno
import os
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.linux import netlink

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="bytes recorded on a little-endian host")

# The answer to RTM_DELLINK of br7 by a plain user's socket: EPERM-like errors look the same.
REFUSED = bytes.fromhex("240000000200000101000000d97f0000edffffff2c000000110001000100000000000000")


def test_an_error_answer() -> None:
    ((kind, flags, sequence, body),) = netlink.messages(REFUSED)
    error = netlink.failure(flags, body)
    assert (kind, sequence) == (2, 1)
    assert error is not None
    assert error.errno == errno.ENODEV
    assert error.strerror == os.strerror(errno.ENODEV)


def test_the_kernels_words_are_kept() -> None:
    words = netlink.text(1, "Unknown device type")
    body = struct.pack("=i", -errno.EOPNOTSUPP) + struct.pack("=IHHII", 32, 16, 5, 1, 0) + words
    error = netlink.failure(0x100 | 0x200, body)
    assert error is not None
    assert error.strerror == f"{os.strerror(errno.EOPNOTSUPP)} (Unknown device type)"


def test_an_acknowledgement_is_no_failure() -> None:
    assert netlink.failure(0x100, bytes(4) + struct.pack("=IHHII", 32, 16, 5, 1, 0)) is None


def test_requests_travel_in_one_datagram() -> None:
    datagram = netlink.encode([(16, 0, b"abcde"), (17, netlink.NLM_F_ACK, b"")], 7)
    assert [message[:3] for message in netlink.messages(datagram)] == [(16, 1, 7), (17, 5, 8)]
    assert next(iter(netlink.messages(datagram)))[3] == b"abcde"


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40)), max_size=8))
def test_attributes_read_back(pairs: list[tuple[int, bytes]]) -> None:
    data = b"".join(netlink.attribute(kind, payload) for kind, payload in pairs)
    assert len(data) % 4 == 0
    assert list(netlink.attributes(data)) == pairs


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(data: bytes) -> None:
    for _, payload in netlink.attributes(data):
        assert len(payload) < len(data)
    for _, _, _, body in netlink.messages(data):
        assert len(body) < len(data)
