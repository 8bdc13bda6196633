"""What a rule logged, as it is read."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from sampan.linux import nflog
from sampan.linux.netlink import attribute, text


def message(packet: bytes) -> bytes:
    return struct.pack("!BBH", 2, 0, 7) + text(10, "who") + attribute(9, packet)


def test_packets() -> None:
    four = struct.pack("!BBHHHBBH", 0x46, 0, 0, 0, 0, 64, 6, 0) + bytes(4) + ip_address("192.0.2.1").packed
    found = nflog.parse(message(four + bytes(4) + struct.pack("!HH", 1, 443)))
    assert found == nflog.Logged(prefix="who", protocol="tcp", address="192.0.2.1", port=443)
    six = struct.pack("!IHBB", 6 << 28, 0, 58, 64) + bytes(16) + ip_address("2001:db8::1").packed
    found = nflog.parse(message(six + bytes(8)))
    assert found == nflog.Logged(prefix="who", protocol="icmpv6", address="2001:db8::1", port=0)


def test_what_is_no_packet() -> None:
    assert nflog.parse(message(b"")) is None
    assert nflog.parse(message(b"\x45" + bytes(10))) is None
    assert nflog.parse(b"") is None


@given(st.binary(max_size=100))
def test_packets_may_be_anything(data: bytes) -> None:
    nflog.parse(message(data))
    nflog.parse(data)
