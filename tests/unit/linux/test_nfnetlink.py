"""nf_tables messages against bytes that the kernel gave for rules made by nft(8) and iptables-nft(8)."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from sampan.linux import nfnetlink as nft
from sampan.linux.netlink import attributes, string, table

# nft: ip saddr 172.29.0.0/16 oifname != "sampan0" counter masquerade comment "out"
MASQUERADE = bytes.fromhex(
    "02000003060001007400000009000200706f7374000000000c000300000000000000000400010400340001000c000100"
    "7061796c6f6164002400020008000100000000010800020000000001080003000000000c08000400000000022c000100"
    "08000100636d700020000200080001000000000108000200000000000c00030006000100ac1d00002400010009000100"
    "6d6574610000000014000200080002000000000708000100000000013800010008000100636d70002c00020008000100"
    "000000010800020000000001180003001400010073616d70616e300000000000000000002c0001000c000100636f756e"
    "746572001c0002000c00010000000000000000000c000200000000000000000014000100090001006d61737100000000"
    "040002000a00070000046f7574000000"
)
# nft: ct state established,related accept
ANSWERS = bytes.fromhex(
    "02000003060001007400000009000200666f7277000000000c0003000000000000000005cc0004002000010007000100"
    "6374000014000200080001000000000108000200000000004c0001000c00010062697477697365003c00020008000100"
    "000000010800020000000001080003000000000408000600000000000c00040008000100060000000c00050008000100"
    "000000002c00010008000100636d700020000200080001000000000108000200000000010c0003000800010000000000"
    "300001000e000100696d6d6564696174650000001c0002000800010000000000100002000c0002000800010000000001"
)
# nft: ct original ip saddr 172.29.0.0/16 accept
ORIGIN = bytes.fromhex(
    "02000003060001007400000009000200666f7277000000000c00030000000000000000060c0006000000000000000005"
    "880004002800010007000100637400001c0002000800010000000001080002000000001305000300000000002c000100"
    "08000100636d700020000200080001000000000108000200000000000c00030006000100ac1d0000300001000e000100"
    "696d6d6564696174650000001c0002000800010000000000100002000c0002000800010000000001"
)
# nft: ct status dnat jump other
JUMP = bytes.fromhex(
    "02000003060001007400000009000200666f7277000000000c00030000000000000000070c0006000000000000000006"
    "d800040020000100070001006374000014000200080001000000000108000200000000024c0001000c00010062697477"
    "697365003c00020008000100000000010800020000000001080003000000000408000600000000000c00040008000100"
    "200000000c00050008000100000000002c00010008000100636d70002000020008000100000000010800020000000001"
    "0c00030008000100000000003c0001000e000100696d6d6564696174650000002800020008000100000000001c000200"
    "1800020008000100fffffffd0a0002006f74686572000000"
)
# nft: chain post { type nat hook postrouting priority srcnat; policy accept; }
NAT_CHAIN = bytes.fromhex(
    "02000003060001007400000009000300706f7374000000000c0002000000000000000001140004000800010000000004"
    "08000200000000640800050000000001080007006e61740008000a00000000010800060000000001"
)
# nft: chain forw { type filter hook forward priority -1; policy drop; }
DROPPING_CHAIN = bytes.fromhex(
    "02000003060001007400000009000300666f7277000000000c0002000000000000000002140004000800010000000002"
    "08000200ffffffff08000500000000000b00070066696c746572000008000a00000000010800060000000003"
)
# nft: chain other { }
PLAIN_CHAIN = bytes.fromhex(
    "0200000306000100740000000a0003006f746865720000000c00020000000000000000030800060000000001"
)


SUBNET, MASK = nft.network("172.29.0.0/16")


def parsed(*expressions: nft.Expression) -> tuple[tuple[str, bytes], ...]:
    tables = [table(expression) for expression in expressions]
    return tuple((string(parts[1]), unmarked(parts[2])) for parts in tables)


def unmarked(data: bytes) -> bytes:
    """Nested attributes without the flag that says so: the kernel wants it and does not give it back."""
    result, position = b"", 0
    while position + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, position)
        payload = data[position + 4 : position + length]
        if kind & 0x8000:
            payload = unmarked(payload)
        result += struct.pack("=HH", length, kind & 0x3FFF) + payload + bytes(-length % 4)
        position += (length + 3) & ~3
    return result


def test_builds_what_nft_builds() -> None:
    rule = nft.parse_rule(MASQUERADE)
    assert (rule.family, rule.table, rule.chain, rule.handle) == (nft.IP, "t", "post", 4)
    assert rule.comment == "out"
    assert (
        rule.expressions
        == parsed(
            nft.payload(nft.NETWORK_HEADER, 12, 2),  # nft shortens a /16 to two bytes
            nft.equals(SUBNET[:2]),
            nft.meta(nft.META_OIFNAME),
            nft.differs(nft.interface("sampan0")),
            nft.counter(),
            nft.masquerade(),
        )
    )


def test_connection_state() -> None:
    states = nft.host32(nft.CT_ESTABLISHED | nft.CT_RELATED)
    assert nft.parse_rule(ANSWERS).expressions == parsed(
        nft.conntrack(nft.CT_STATE), nft.mask(states), nft.differs(bytes(4)), nft.verdict(nft.ACCEPT)
    )


def test_connection_origin() -> None:
    expressions = nft.parse_rule(ORIGIN).expressions
    assert expressions[0] == parsed(nft.conntrack(nft.CT_SOURCE_IP, direction=nft.ORIGINAL))[0]


def test_jump() -> None:
    assert nft.parse_rule(JUMP).expressions == parsed(
        nft.conntrack(nft.CT_STATUS),
        nft.mask(nft.host32(nft.CT_STATUS_DNAT)),
        nft.differs(bytes(4)),
        nft.verdict(nft.JUMP, "other"),
    )


def test_chains() -> None:
    assert nft.parse_chain(NAT_CHAIN) == nft.Chain(
        family=nft.IP, table="t", name="post", kind="nat", hook=nft.POSTROUTING, priority=100
    )
    assert nft.parse_chain(DROPPING_CHAIN) == nft.Chain(
        family=nft.IP, table="t", name="forw", kind="filter", hook=nft.FORWARD, priority=-1, policy=nft.DROP
    )
    assert nft.parse_chain(PLAIN_CHAIN) == nft.Chain(family=nft.IP, table="t", name="other")


def test_a_chain_request_reads_back() -> None:
    chain = nft.parse_chain(DROPPING_CHAIN)
    kind, _, body = nft.add_chain(chain)
    assert kind == 10 << 8 | 3
    assert nft.parse_chain(body) == chain


def test_a_rule_request_reads_back() -> None:
    _, flags, body = nft.append_rule(
        nft.IP, "t", "post", [nft.counter(), nft.verdict(nft.DROP)], comment="why"
    )
    assert flags & 0x800
    values = table(body[4:])
    assert [string(table(element)[1]) for _, element in attributes(values[4])] == ["counter", "immediate"]
    # Type, length and text with its final zero.
    assert values[7] == b"\0\4why\0"


def test_elements_are_pairs() -> None:
    key, value = struct.pack("!H", 80), bytes((172, 29, 0, 2)) + struct.pack("!Hxx", 8080)
    _, _, body = nft.add_elements(nft.IP, "t", "ports", [(key, value)])
    ((_, entry),) = attributes(table(body[4:])[3])
    parts = table(entry)
    assert (table(parts[1])[1], table(parts[2])[1]) == (key, value)


def test_a_long_comment_is_cut() -> None:
    _, _, body = nft.append_rule(nft.IP, "t", "c", [], comment="x" * 500)
    assert len(table(body[4:])[7]) == 2 + 121


def test_networks() -> None:
    assert nft.network("10.0.0.0/8") == (bytes((10, 0, 0, 0)), bytes((255, 0, 0, 0)))
    assert nft.network("2001:db8::/33")[1] == bytes.fromhex("ffffffff80" + "00" * 11)


@given(st.binary(max_size=200))
def test_any_user_data_is_survived(userdata: bytes) -> None:
    body = NAT_CHAIN[:4] + b"".join(
        struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
        for kind, value in ((1, b"t\0"), (2, b"c\0"), (3, bytes(8)), (7, userdata))
    )
    assert isinstance(nft.parse_rule(body).comment, str)
