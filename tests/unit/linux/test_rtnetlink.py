"""Requests against the bytes that ip(8) sends for the same, and links read back."""

from __future__ import annotations

import os

import pytest

from sampan.linux import netlink, rtnetlink
from sampan.linux.netlink import attribute, nested, table, text, u32

pytestmark = pytest.mark.skipif(os.sys.byteorder != "little", reason="bytes recorded on a little-endian host")  # type: ignore[attr-defined]


def attributes_of(body: bytes, head: int) -> dict[int, bytes]:
    return table(body[head:])


def test_bridge_as_ip_makes_it() -> None:
    # ip link add br7 address 02:42:00:00:00:01 type bridge
    recorded = bytes.fromhex(
        "00000000000000000000000000000000"
        "0a00010002420000000100000800030062723700100012000a0001006272696467650000"
    )
    kind, flags, body = rtnetlink.bridge_request("br7", mac="02:42:00:00:00:01")
    assert (kind, flags) == (16, 0x600)
    ours, theirs = attributes_of(body, 16), attributes_of(recorded, 16)
    assert {1: theirs[1]}.items() <= ours.items()
    assert netlink.string(ours[3]) == netlink.string(theirs[3])
    assert netlink.string(table(ours[18])[1]) == netlink.string(table(theirs[18])[1]) == "bridge"


def test_address_as_ip_sets_it() -> None:
    # ip addr add 192.0.2.1/24 broadcast 192.0.2.255 dev br7
    recorded = bytes.fromhex("021800000200000008000200c000020108000400c00002ff08000100c0000201")
    kind, flags, body = rtnetlink.address_request(2, "192.0.2.1/24")
    assert (kind, flags) == (20, 0x600)
    assert body[:8] == recorded[:8]
    assert attributes_of(body, 8) == attributes_of(recorded, 8)


def test_route_as_ip_adds_it() -> None:
    # ip route add default via 192.0.2.9 dev br7
    recorded = bytes.fromhex("02000000fe0300010000000008000500c00002090800040002000000")
    kind, flags, body = rtnetlink.default_route_request("192.0.2.9", index=2)
    assert (kind, flags) == (24, 0x600)
    assert body == recorded


def test_up_as_ip_sets_it() -> None:
    # ip link set br7 up
    kind, flags, body = rtnetlink.set_link_request(index=2, up=True)
    assert (kind, flags) == (16, 0)
    assert body == bytes.fromhex("00000000020000000100000001000000")


def test_no_broadcast_on_a_point_to_point_prefix() -> None:
    assert 4 not in attributes_of(rtnetlink.address_request(2, "192.0.2.1/32")[2], 8)


def test_the_peer_is_described_whole() -> None:
    _, _, body = rtnetlink.veth_request(
        "sv1", master=7, mtu=1400, peer_name="eth0", peer_mac="02:42:c0:00:02:07", peer_pid=4242, up=False
    )
    ours = attributes_of(body, 16)
    peer = attributes_of(table(table(ours[18])[2])[1], 16)
    assert netlink.string(peer[3]) == "eth0"
    assert peer[1] == bytes.fromhex("0242c0000207")
    assert peer[19] == (4242).to_bytes(4, "little")
    assert ours[4] == peer[4] == (1400).to_bytes(4, "little")
    assert ours[10] == (7).to_bytes(4, "little")


def test_a_link_reads_back() -> None:
    head = (0).to_bytes(4, "little") + (5).to_bytes(4, "little") + (0x1043).to_bytes(4, "little") + bytes(4)
    body = head + b"".join(
        (
            text(3, "sv1"),
            u32(4, 1400),
            u32(10, 7),
            text(20, "sampan eth0"),
            attribute(16, b"\6"),
            attribute(1, bytes.fromhex("0242c0000207")),
            nested(18, text(1, "veth")),
        )
    )
    assert rtnetlink.parse_link(body) == rtnetlink.Link(
        index=5,
        name="sv1",
        kind="veth",
        master=7,
        up=True,
        mac="02:42:c0:00:02:07",
        mtu=1400,
        alias="sampan eth0",
        operational=True,
    )
