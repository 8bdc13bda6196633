"""What is read of a tracked flow; how the kernel forgets one is seen in tests/root/network."""

from __future__ import annotations

import socket

from sampan.linux.ctnetlink import Flow, parse
from sampan.linux.netlink import attribute, nested, table


def flow(
    *, source: str, destination: str, answerer: str, ports: tuple[int, int, int], protocol: int
) -> bytes:
    """The attributes of a message, as the kernel nests them."""

    def tuple_of(one: str, other: str, near: int, far: int) -> bytes:
        family = socket.AF_INET6 if ":" in one else socket.AF_INET
        kinds = (3, 4) if ":" in one else (1, 2)
        addresses = [socket.inet_pton(family, address) for address in (one, other)]
        return nested(1, *map(attribute, kinds, addresses)) + nested(
            2,
            attribute(1, bytes((protocol,))),
            attribute(2, near.to_bytes(2, "big")),
            attribute(3, far.to_bytes(2, "big")),
        )

    client, asked, answering = ports
    return nested(1, tuple_of(source, destination, client, asked)) + nested(
        2, tuple_of(answerer, source, answering, client)
    )


def test_a_rewritten_flow() -> None:
    for own, there in (("192.0.2.1", "10.0.0.2"), ("2001:db8::1", "fd00::2")):
        client = "2001:db8::9" if ":" in own else "192.0.2.9"
        data = flow(
            source=client,
            destination=own,
            answerer=there,
            ports=(40000, 8053, 53),
            protocol=socket.IPPROTO_UDP,
        )
        family = socket.AF_INET6 if ":" in own else socket.AF_INET
        assert parse(table(data)) == Flow(
            protocol=socket.IPPROTO_UDP,
            destination=socket.inet_pton(family, own),
            port=8053,
            answerer=socket.inet_pton(family, there),
            answering_port=53,
        )


def test_what_has_no_ports_is_no_flow() -> None:
    assert parse({}) is None
    assert parse(table(nested(1, nested(2, attribute(1, b"\1"))) + nested(2, nested(2)))) is None
