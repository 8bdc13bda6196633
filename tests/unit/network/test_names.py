"""Which names are known on which networks, and what is answered to whom, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from tests.unit.wire.test_dns import query

from sampan.network import Names
from sampan.wire import dns

A, B = "a" * 64, "b" * 64


def filled() -> Names:
    names = Names()
    names.join(A, "shop", "c1", ("10.0.0.2",), ("Shop_web_1", "web", "0123"))
    names.join(A, "shop", "c2", ("10.0.0.3", "fd00::3"), ("shop_web_2", "web"))
    names.join(B, "back", "c2", ("10.1.0.2",), ("shop_web_2", "web"))
    return names


def test_names_belong_to_networks() -> None:
    names = filled()
    assert names.lookup((A,), "shop_web_1") == ["10.0.0.2"]
    assert names.lookup((A,), "0123.shop") == ["10.0.0.2"]
    assert sorted(names.lookup((A, B), "web")) == ["10.0.0.2", "10.0.0.3", "fd00::3"]
    assert names.lookup((B, A), "web") == ["10.1.0.2"]
    assert names.lookup((B,), "shop_web_1") == []
    names.leave("c2", A)
    assert names.lookup((A,), "web") == ["10.0.0.2"]
    assert names.lookup((B,), "web") == ["10.1.0.2"]
    names.leave("c2")
    names.leave("c1")
    assert names.lookup((A, B), "web") == []


def test_joining_again_replaces() -> None:
    names = filled()
    names.join(A, "shop", "c1", ("10.0.0.9",), ("new",))
    assert names.lookup((A,), "shop_web_1") == []
    assert names.lookup((A,), "new") == ["10.0.0.9"]


def pair() -> tuple[socket.socket, socket.socket]:
    """Sockets for datagrams and connections at one port, which others may have for one of the two."""
    while True:
        udp, tcp = (socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM))
        udp.bind(("127.0.0.1", 0))
        try:
            tcp.bind(udp.getsockname())
        except OSError:
            udp.close()
            tcp.close()
        else:
            return udp, tcp


def with_server(work: Callable[[socket.socket, tuple[str, int], Names], None]) -> None:
    """Do ``work`` with the socket of container c1 and where it asks."""

    async def serve() -> None:
        names = filled()
        names.admit("c1", (A,), ())
        udp, tcp = pair()
        tcp.listen()
        where = udp.getsockname()
        names.adopt("c1", udp, tcp)
        assert names.serves("c1")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(10)
            await asyncio.to_thread(work, client, where, names)
        names.leave("c1")
        assert not names.serves("c1")
        names.close()

    asyncio.run(serve())


def ask(client: socket.socket, where: tuple[str, int], message: bytes) -> bytes:
    client.sendto(message, where)
    return client.recv(2000)


def test_questions_are_answered() -> None:
    def work(client: socket.socket, where: tuple[str, int], _: Names) -> None:
        assert ask(client, where, query("shop_web_1")).endswith(b"\x00\x04\x0a\x00\x00\x02")
        # Of a name that has no address of the kind nobody else is asked.
        said = ask(client, where, query("shop_web_1", dns.AAAA))
        assert (said[3] & 0x0F, said[7]) == (dns.NO_ERROR, 0)
        assert ask(client, where, query("web", dns.AAAA)).endswith(
            socket.inet_pton(socket.AF_INET6, "fd00::3")
        )
        reverse6 = "3." + "0." * 27 + "0.0.d.f.ip6.arpa"
        assert dns.encode_name("shop_web_2.shop") in ask(client, where, query(reverse6, dns.PTR))
        reverse = ask(client, where, query("3.0.0.10.in-addr.arpa", dns.PTR))
        assert dns.encode_name("shop_web_2.shop") in reverse
        # Without a server to ask, what is unknown is refused at once; what is no question too.
        assert ask(client, where, query("example.org"))[3] & 0x0F == dns.SERVER_FAILURE
        assert ask(client, where, bytes(12))[3] & 0x0F == dns.SERVER_FAILURE

    with_server(work)


def test_connections_are_answered() -> None:
    def work(_: socket.socket, where: tuple[str, int], names: Names) -> None:
        with socket.create_connection(where, timeout=10) as client:
            for name in ("shop_web_1", "example.org"):
                message = query(name)
                client.sendall(len(message).to_bytes(2, "big") + message)
                size = int.from_bytes(client.recv(2, socket.MSG_WAITALL), "big")
                said = client.recv(size, socket.MSG_WAITALL)
                assert said[3] & 0x0F == (dns.NO_ERROR if name == "shop_web_1" else dns.SERVER_FAILURE)

    with_server(work)
