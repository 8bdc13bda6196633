"""Published ports on hosts made of network namespaces: who gets through, and under which address."""

from __future__ import annotations

import asyncio
import functools
import os
import resource
import socket
from collections.abc import Callable
from typing import Any

import pytest
from tests.root.network.test_bridges import FIRST, SECOND, instance

from sampan.errors import InvalidArgument, Unavailable
from sampan.linux import nfnetlink as nft
from sampan.network import Bridges
from sampan.network.copying import has_sctp
from sampan.network.published import Wish
from sampan.sandbox.messages import Endpoint

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces"),
]

Host = Any
AsHost = Callable[[Callable[[Any], None]], None]


def address_of(endpoint: Endpoint) -> str:
    return endpoint.addresses[0].partition("/")[0]


def gateway_of(bridges: Bridges) -> str:
    assert bridges.site is not None
    return bridges.site.gateway


async def publish(bridges: Bridges, endpoint: Endpoint, *wishes: Wish) -> list[int]:
    addresses = [address_of(endpoint)]
    made = await bridges.ports.publish(FIRST, wishes, addresses=addresses, bridge=endpoint.bridge)
    return [published.port for published in made]


def from_here(host: Host, server: socket.socket, address: str, port: int) -> str | None:
    """The address that the server sees when the host itself connects."""
    with socket.socket() as client:
        client.settimeout(1)
        try:
            client.connect((address, port))
        except OSError:
            return None
        accepted, (seen, _) = server.accept()
        accepted.close()
        return str(seen)


def test_who_reaches_a_published_port(as_host: AsHost) -> None:
    def work(host: Host) -> None:
        internet = host.internet()

        async def life() -> None:
            async with instance(host) as bridges:
                endpoint, other = await bridges.connect(FIRST), await bridges.connect(SECOND)
                container, neighbour = host.container(endpoint), host.container(other)
                await publish(
                    bridges,
                    endpoint,
                    Wish(protocol="tcp", target=80, ports=range(8080, 8081)),
                    Wish(protocol="tcp", target=80, address="127.0.0.1", ports=range(8081, 8082)),
                )
                with host.listen(container) as server:
                    # Another host keeps its address; the host itself comes from the bridge.
                    assert host.reaches(internet, server, host.ADDRESS, 8080) == host.INTERNET
                    assert from_here(host, server, "127.0.0.1", 8080) == gateway_of(bridges)
                    assert from_here(host, server, "127.0.0.1", 8081) == gateway_of(bridges)
                    assert from_here(host, server, host.ADDRESS, 8080) is not None
                    # Of the host's loopback nobody else gets anything.
                    assert host.blocked(internet, server, host.ADDRESS, 8081)
                    internet.run(functools.partial(host.command, "ip", "addr", "flush", "dev", "lo"))
                    internet.run(
                        functools.partial(
                            host.command, *["ip", "route", "add", "127.0.0.0/8", "via"], host.ADDRESS
                        )
                    )
                    assert host.blocked(internet, server, "127.0.0.1", 8081)
                    # A neighbour is answered, though both are on one bridge.
                    assert host.reaches(neighbour, server, host.ADDRESS, 8080) == gateway_of(bridges)
                await bridges.ports.withdraw(FIRST)
                with host.listen(container) as server:
                    assert host.blocked(internet, server, host.ADDRESS, 8080)
                await bridges.release(FIRST)
                await bridges.release(SECOND)

        asyncio.run(life())
        with nft.Firewall() as ruleset:
            assert not [name for _, name in ruleset.tables() if name.startswith("sampan")]

    as_host(work)


def test_containers_do_not_reach_the_hosts_loopback(as_host: AsHost) -> None:
    def work(host: Host) -> None:
        async def life() -> None:
            async with instance(host) as bridges:
                endpoint = await bridges.connect(FIRST)
                container = host.container(endpoint)
                await publish(bridges, endpoint, Wish(protocol="tcp", target=80))
                with socket.create_server(("127.0.0.1", 999)) as server:
                    server.settimeout(1)

                    def aim() -> None:
                        for words in (
                            "ip link set lo down",
                            f"ip route add 127.0.0.1 via {gateway_of(bridges)} dev eth0",
                            f"ip route add local {address_of(endpoint)} dev eth0",
                        ):
                            try:
                                host.command(*words.split())
                            except Exception:
                                continue
                        with open("/proc/sys/net/ipv4/conf/all/route_localnet", "w") as file:
                            file.write("1")

                    container.run(aim)
                    assert host.blocked(container, server, "127.0.0.1", 999)
                await bridges.ports.withdraw(FIRST)
                await bridges.release(FIRST)

        asyncio.run(life())

    as_host(work)


def test_taken_ports_are_refused(as_host: AsHost) -> None:
    def work(host: Host) -> None:
        async def life() -> None:
            async with instance(host) as bridges:
                endpoint = await bridges.connect(FIRST)
                wish = Wish(protocol="tcp", target=80, ports=range(8080, 8081))
                await publish(bridges, endpoint, wish)
                with pytest.raises(Unavailable, match=r"8080 failed: port is already allocated"):
                    await publish(bridges, endpoint, wish)
                with socket.create_server(("127.0.0.1", 8081)):
                    taken = Wish(protocol="tcp", target=80, ports=range(8081, 8082))
                    with pytest.raises(Unavailable, match="address already in use"):
                        await publish(bridges, endpoint, taken)
                    some = Wish(protocol="tcp", target=80, ports=range(8080, 8084))
                    assert set(await publish(bridges, endpoint, some)) == {8082}
                # The same port of another protocol is another port.
                await publish(bridges, endpoint, Wish(protocol="udp", target=53, ports=range(8080, 8081)))
                await bridges.ports.withdraw(FIRST)
                await publish(bridges, endpoint, wish)
                await bridges.ports.withdraw(FIRST)
                await bridges.release(FIRST)

        asyncio.run(life())

    as_host(work)


def test_a_thousand_ports_and_flushed_rules(as_host: AsHost) -> None:
    def work(host: Host) -> None:
        # As the daemon does: a port takes a descriptor.
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

        async def life() -> None:
            async with instance(host) as bridges:
                endpoint = await bridges.connect(FIRST)
                container = host.container(endpoint)
                many = [
                    Wish(protocol="udp", target=9, ports=range(20000 + n, 20001 + n)) for n in range(1000)
                ]
                web = Wish(protocol="tcp", target=80, ports=range(8080, 8081))
                await publish(bridges, endpoint, *many, web)
                with nft.Firewall() as ruleset:
                    table = f"{bridges.name}-ports"
                    assert len(ruleset.elements(nft.IP, table, "udp_any")) == 1000
                    ruleset.commit([nft.delete_table(nft.IP, table)])
                    await bridges.check_firewall()
                    assert len(ruleset.elements(nft.IP, table, "udp_any")) == 1000
                with host.listen(container) as server:
                    assert from_here(host, server, "127.0.0.1", 8080) is not None
                await bridges.ports.withdraw(FIRST)
                await bridges.release(FIRST)

        asyncio.run(life())

    as_host(work)


def test_datagrams_follow_the_port(as_host: AsHost) -> None:
    """A client that never falls silent reaches whoever has the port by now."""

    def work(host: Host) -> None:
        internet = host.internet()

        async def life() -> None:
            async with instance(host) as bridges:
                with internet.socket(socket.SOCK_DGRAM) as client:
                    client.settimeout(5)
                    # Not connected: it is not to hear that nobody is there.
                    there = (host.ADDRESS, 8053)

                    async def answered(container: Any) -> bool:
                        with container.socket(socket.SOCK_DGRAM) as server:
                            server.bind(("0.0.0.0", 53))
                            server.settimeout(5)
                            client.sendto(b"question", there)
                            data, source = await asyncio.to_thread(server.recvfrom, 100)
                            server.sendto(b"answer", source)
                            said, _ = await asyncio.to_thread(client.recvfrom, 100)
                            return (data, said, source[0]) == (b"question", b"answer", str(host.INTERNET))

                    wish = Wish(protocol="udp", target=53, ports=range(8053, 8054))
                    # Before anybody has the port: a flow to the host itself, which the kernel remembers.
                    client.sendto(b"too early", there)
                    for _ in range(2):
                        endpoint = await bridges.connect(FIRST)
                        # First the container: it is a fork, and would hold the port's socket as well.
                        container = host.container(endpoint)
                        await publish(bridges, endpoint, wish)
                        await bridges.ports.forgotten()
                        assert await answered(container)
                        await bridges.ports.withdraw(FIRST)
                        await bridges.release(FIRST)
                        await bridges.sweep()

        asyncio.run(life())

    as_host(work)


def test_sctp_where_the_kernel_has_it(as_host: AsHost) -> None:
    def work(host: Host) -> None:
        async def life() -> None:
            async with instance(host) as bridges:
                endpoint = await bridges.connect(FIRST)
                wish = Wish(protocol="sctp", target=80, ports=range(8080, 8081))
                if has_sctp():
                    assert await publish(bridges, endpoint, wish) == [8080, 8080]
                    with nft.Firewall() as ruleset:
                        assert ruleset.elements(nft.IP, f"{bridges.name}-ports", "sctp_any")
                    await bridges.ports.withdraw(FIRST)
                else:
                    with pytest.raises(InvalidArgument, match="the kernel of this host has no SCTP"):
                        await publish(bridges, endpoint, wish)
                await bridges.release(FIRST)

        asyncio.run(life())

    as_host(work)
