"""Containers that are held to an egress policy, on hosts made of network namespaces: what gets out, by
whatever trick, and what was opened for names."""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.root.network.test_bridges import FIRST, SECOND, instance
from tests.root.network.test_published import publish

from sampan.linux import nfnetlink as nft
from sampan.network import Bridges
from sampan.network.egress import EgressRules, Interface, Refusal
from sampan.network.egresspolicy import Policy, parse
from sampan.network.published import Wish
from sampan.sandbox.messages import Endpoint

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces"),
]

Host = Any
AsHost = Callable[[Callable[[Any], None]], None]
Life = Callable[[Any, Bridges], Awaitable[None]]


def lived(as_host: AsHost, life: Life) -> None:
    """Run ``life`` on a host with the internet; at its end nothing of ours is in the firewall."""

    def work(host: Host) -> None:
        async def begun() -> None:
            async with instance(host) as bridges:
                await life(host, bridges)
                for container_id in (FIRST, SECOND):
                    await bridges.egress.release(container_id, unplug=True)
                    await bridges.release(container_id)

        asyncio.run(begun())
        with nft.Firewall() as ruleset:
            assert [name for _, name in ruleset.tables() if name.startswith("sampan")] == []

    as_host(work)


def policy(*texts: str) -> Policy:
    found = parse(texts)
    assert found is not None
    return found


def address_of(endpoint: Endpoint) -> str:
    return endpoint.addresses[0].partition("/")[0]


def plug_of(endpoint: Endpoint, *more: str) -> list[Interface]:
    return [Interface(port=endpoint.host_name, addresses=(*endpoint.addresses, *more))]


def gateway_of(bridges: Bridges) -> str:
    assert bridges.site is not None
    return bridges.site.gateway


def refused(container: Any, address: str, port: int = 80) -> bool:
    """Whether a connection is refused at once, as by nobody there; False when it is made."""
    with container.socket() as client:
        client.settimeout(10)
        try:
            client.connect((address, port))
        except ConnectionRefusedError:
            return True
    return False


def test_none_means_no_way_out_of_its_networks(as_host: AsHost) -> None:
    async def life(host: Host, bridges: Bridges) -> None:
        internet = host.internet()
        endpoint, other = await bridges.connect(FIRST), await bridges.connect(SECOND)
        await bridges.egress.hold(FIRST, policy("none"), plug_of(endpoint))
        container, neighbour = host.container(endpoint), host.container(other)
        gateway = gateway_of(bridges)
        with host.listen(internet), socket.create_server(("0.0.0.0", 80)):
            for address in (host.INTERNET, host.ADDRESS, gateway):
                assert refused(container, address), address
                assert not refused(neighbour, address), address
        # Who is on the same network is reached, also where the host shows bridged packets to its rules.
        with host.listen(neighbour) as server:
            assert host.reaches(container, server, address_of(other)) is not None
        # But not by a port that it publishes on the host: that would be a way to whoever is on the host.
        await publish(bridges, endpoint, Wish(protocol="tcp", target=80, ports=range(8080, 8081)))
        with host.listen(container) as server:
            assert refused(container, host.ADDRESS, 8080)
            # Whoever asks is answered: the host, the neighbour, another host by a published port.
            assert host.reaches(neighbour, server, address_of(endpoint)) is not None
            with socket.create_connection((address_of(endpoint), 80), timeout=10):
                server.accept()[0].close()
            assert host.reaches(internet, server, host.ADDRESS, 8080) == host.INTERNET
        await bridges.ports.withdraw(FIRST)

    lived(as_host, life)


def test_what_is_allowed_by_address(as_host: AsHost) -> None:
    async def life(host: Host, bridges: Bridges) -> None:
        internet = host.internet()
        endpoint = await bridges.connect(FIRST)
        plugs = plug_of(endpoint)
        await bridges.egress.hold(FIRST, policy(f"allow={host.INTERNET}:80"), plugs)
        container = host.container(endpoint)
        with host.listen(internet) as server, host.listen(internet, 81) as wrong:
            assert host.reaches(container, server, host.INTERNET) == host.ADDRESS
            assert refused(container, host.INTERNET, 81)
            await bridges.egress.hold(FIRST, policy("allow=198.51.100.0/24"), plugs)
            assert host.reaches(container, wrong, host.INTERNET, 81) == host.ADDRESS
            # What is connected stays so when less is allowed from now on.
            with container.socket() as client:
                client.connect((host.INTERNET, 80))
                accepted, _ = server.accept()
                await bridges.egress.hold(FIRST, policy("none"), plugs)
                client.sendall(b"still here")
                assert accepted.recv(100) == b"still here"
                accepted.close()
            assert refused(container, host.INTERNET)
            await bridges.egress.release(FIRST)
            assert host.reaches(container, server, host.INTERNET) == host.ADDRESS

    lived(as_host, life)


def test_what_others_began_is_not_gone_on_with(as_host: AsHost) -> None:
    async def life(host: Host, bridges: Bridges) -> None:
        internet = host.internet()
        endpoint = await bridges.connect(FIRST)
        container = host.container(endpoint)
        with host.listen(internet) as server, container.socket() as client:
            client.settimeout(10)
            client.connect((host.INTERNET, 80))
            accepted, _ = server.accept()
            # Whoever has the address next, and knows of the connection, has no part in it.
            await bridges.egress.hold(FIRST, policy("none"), plug_of(endpoint), fresh=True)
            client.sendall(b"a secret")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            accepted.setblocking(False)
            with pytest.raises(BlockingIOError):
                accepted.recv(1)
            accepted.close()

    lived(as_host, life)


def test_what_names_open(as_host: AsHost) -> None:
    async def life(host: Host, bridges: Bridges) -> None:
        internet = host.internet()
        endpoint = await bridges.connect(FIRST)
        await bridges.egress.hold(FIRST, policy("allow=good.example:80,*.wild.example"), plug_of(endpoint))
        container = host.container(endpoint)
        gate = bridges.egress.gate(FIRST)
        assert gate is not None
        assert [gate.admits(name) for name in ("good.example", "a.wild.example", "wild.example", "x")] == [
            *(True, True, False, False)
        ]
        with host.listen(internet) as server, host.listen(internet, 81) as other:
            assert refused(container, host.INTERNET)
            asked = [socket.inet_aton(host.INTERNET)]
            assert await gate.open("good.example", asked, 1) == (asked, 5)
            assert host.reaches(container, server, host.INTERNET) is not None
            assert refused(container, host.INTERNET, 81)
            assert await gate.open("a.wild.example", asked, 1 << 30) == (asked, 3600)
            assert host.reaches(container, other, host.INTERNET, 81) is not None
            # A name opens nothing that is not elsewhere, whoever says so.
            for address in ("127.0.0.1", "169.254.169.254", "0.0.0.0", address_of(endpoint), "224.0.0.1"):
                assert (await gate.open("a.wild.example", [socket.inet_aton(address)], 60))[0] == []
            for address in ("::1", "fe80::1", "::ffff:198.51.100.2"):
                packed = socket.inet_pton(socket.AF_INET6, address)
                assert (await gate.open("a.wild.example", [packed], 60))[0] == []
            # The host's own addresses are names for the host: the rules keep them out.
            await gate.open("a.wild.example", [socket.inet_aton(host.ADDRESS)], 60)
            with socket.create_server((host.ADDRESS, 80)):
                assert refused(container, host.ADDRESS)
            # Somebody flushes everything; a killed daemon's successor finds what is open, and what is stale.
            host.command("nft", "flush", "ruleset")
            await bridges.check_firewall()
            assert host.reaches(container, other, host.INTERNET, 81) is not None
            await bridges.egress.hold(SECOND, policy("allow=x.example"), [])
            bridges.egress.close()
            successor = EgressRules(bridges.name)
            await successor.resume(FIRST, policy("allow=good.example:80,*.wild.example"), plug_of(endpoint))
            await successor.settle()
            assert f"c_{SECOND[:12]}" not in host.command("nft", "list", "ruleset")
            assert host.reaches(container, other, host.INTERNET, 81) is not None
            assert refused(container, host.INTERNET, 82)
            successor.close()

    lived(as_host, life)


def test_tricks(as_host: AsHost) -> None:
    async def life(host: Host, bridges: Bridges) -> None:
        internet = host.internet()
        endpoint, other = await bridges.connect(FIRST), await bridges.connect(SECOND)
        await bridges.egress.hold(FIRST, policy("none"), plug_of(endpoint))
        container, neighbour = host.container(endpoint), host.container(other)
        told = heard(internet)
        forged = "10.77.0.9"
        container.run(functools.partial(host.command, "ip", "addr", "add", f"{forged}/32", "dev", "eth0"))
        taken = address_of(other)
        container.run(functools.partial(host.command, "ip", "addr", "add", f"{taken}/32", "dev", "eth0"))
        with told:
            # From its own address, from nobody's, and from its neighbour's.
            for source in (address_of(endpoint), forged, taken):
                with container.socket(socket.SOCK_DGRAM) as sock:
                    sock.bind((source, 0))
                    for _ in range(3):
                        with_or_without(sock, source.encode(), (host.INTERNET, 53))
            # Also in pieces, of which only the first has a port.
            with container.socket(socket.SOCK_DGRAM) as sock:
                with_or_without(sock, bytes(4000), (host.INTERNET, 53))
            # A frame of one's own making, past the routes of the namespace.
            container.run(functools.partial(raw_frame, forged, host.INTERNET, bridges.name))
            # What the neighbour says is the first that arrives.
            with neighbour.socket(socket.SOCK_DGRAM) as sock:
                sock.sendto(b"the neighbour", (host.INTERNET, 53))
            assert told.recv(4096) == b"the neighbour"

    lived(as_host, life)


def heard(internet: Any) -> socket.socket:
    sock: socket.socket = internet.socket(socket.SOCK_DGRAM)
    sock.bind(("0.0.0.0", 53))
    sock.settimeout(10)
    return sock


def with_or_without(sock: socket.socket, data: bytes, where: tuple[str, int]) -> None:
    """Send; an error that an earlier packet was answered with does not matter."""
    for _ in range(2):
        try:
            sock.sendto(data, where)
        except ConnectionRefusedError:
            continue
        except PermissionError:
            continue
        return


def raw_frame(source: str, destination: str, bridge: str) -> None:
    from sampan.network.naming import bridge_mac

    data = b"a frame"
    udp = struct.pack("!HHHH", 1000, 53, 8 + len(data), 0) + data
    head = struct.pack(
        "!BBHHHBBH4s4s",
        *(0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0),
        *(socket.inet_aton(source), socket.inet_aton(destination)),
    )
    total = sum(struct.unpack("!10H", head))
    check = ~(total + (total >> 16)) & 0xFFFF
    packet = head[:10] + struct.pack("!H", check) + head[12:] + udp
    frame = bytes.fromhex(bridge_mac(bridge).replace(":", "")) + bytes(6) + b"\x08\x00" + packet
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("eth0", 0))
        sock.send(frame)


def test_both_families(as_host: AsHost) -> None:
    async def life(host: Host, bridges: Bridges) -> None:
        endpoint = await bridges.connect(FIRST)
        inside, outside = "fd00:77::2", "fd00:77::1"
        await bridges.egress.hold(FIRST, policy("none"), plug_of(endpoint))
        container = host.container(endpoint)
        host.command("ip", "-6", "addr", "add", f"{outside}/64", "dev", bridges.name, "nodad")
        container.run(
            functools.partial(
                host.command, *["ip", "-6", "addr", "add", f"{inside}/64", "dev", "eth0", "nodad"]
            )
        )
        with socket.create_server(("::", 80), family=socket.AF_INET6) as server:
            server.settimeout(10)
            # It was given no such address, so nothing from there gets anywhere.
            assert not connects6(container, outside, patience=0.3)
            both = plug_of(endpoint, f"{inside}/64")
            await bridges.egress.hold(FIRST, policy("none"), both)
            assert not connects6(container, outside)
            await bridges.egress.hold(FIRST, policy(f"allow=[{outside}]:80"), both)
            assert connects6(container, outside)
            await bridges.egress.hold(FIRST, policy("allow=six.example:80"), both)
            assert not connects6(container, outside)
        # A name opens its IPv6 addresses at its port, elsewhere than on the host.
        internet = host.internet()
        with open("/proc/sys/net/ipv6/conf/all/forwarding", "w") as file:
            file.write("1")
        container.run(
            functools.partial(host.command, *["ip", "-6", "route", "add", "default", "via", outside])
        )
        with host.listen(internet, ipv6=True):
            assert not connects6(container, host.INTERNET6)
            gate = bridges.egress.gate(FIRST)
            assert gate is not None
            packed = [socket.inet_pton(socket.AF_INET6, host.INTERNET6)]
            assert await gate.open("six.example", packed, 60) == (packed, 60)
            assert connects6(container, host.INTERNET6)
            await bridges.egress.hold(FIRST, policy("allow=seven.example:80"), both)
            # What was opened stays for as long as it was told, whatever the policy says from now on.
            assert connects6(container, host.INTERNET6)

    lived(as_host, life)


def connects6(container: Any, address: str, *, patience: float = 10) -> bool:
    made: list[socket.socket] = []
    container.run(lambda: made.append(socket.socket(socket.AF_INET6, socket.SOCK_STREAM)))
    with made[0] as client:
        client.settimeout(patience)
        try:
            client.connect((address, 80))
        except (ConnectionRefusedError, TimeoutError):
            return False
    return True


def test_refusals_are_told(as_host: AsHost) -> None:
    async def life(host: Host, bridges: Bridges) -> None:
        internet = host.internet()
        endpoint = await bridges.connect(FIRST)
        told: asyncio.Queue[Refusal] = asyncio.Queue()
        bridges.egress.on_refusal = told.put_nowait
        await bridges.egress.hold(FIRST, policy("allow=good.example:80"), plug_of(endpoint))
        container = host.container(endpoint)
        with host.listen(internet):
            assert refused(container, host.INTERNET)
        assert await asyncio.wait_for(told.get(), 10) == Refusal(
            container_id=FIRST, protocol="tcp", address=host.INTERNET, port=80
        )
        gate = bridges.egress.gate(FIRST)
        assert gate is not None
        gate.refuse("bad.example")
        gate.refuse("bad.example")  # which is not told again at once
        assert told.get_nowait() == Refusal(container_id=FIRST, name="bad.example")
        for number in range(100):
            gate.refuse(f"{number}.example")
        assert told.qsize() <= 25

    lived(as_host, life)
