"""Who reaches whom: the table of docs/network.md on hosts made of network namespaces, for both versions of
IP, with a host that forwards everything and with hosts whose own firewall drops what it does not know.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.root.network.test_bridges import (
    instance,
    iptables_drops,
    legacy_drops,
    needs,
    nft_drops,
    no_policy,
)

from sampan.linux import nfnetlink as nft
from sampan.network import Bridges, Plan, Range
from sampan.network.published import Wish
from sampan.sandbox.messages import Endpoint

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces"),
]

AsHost = Callable[[Callable[[Any], None]], None]
Host = Any

PATIENCE = 1.0
BOTH = (Range(), Range(version=6))
IDS = {
    name: digit * 64 for name, digit in (("web", "a"), ("near", "b"), ("far", "c"), ("in", "d"), ("in2", "e"))
}
NETWORKS = {"web": "net", "near": "net", "far": "other", "in": "inside", "in2": "inside"}


PROGRAMS: dict[Callable[[Host], None], dict[bool, str]] = {
    iptables_drops: {False: "iptables-nft", True: "ip6tables-nft"},
    legacy_drops: {False: "iptables-legacy", True: "ip6tables-legacy"},
}


def host_allows(host: Host, policy: Callable[[Host], None]) -> None:
    """What an administrator does to let a published port through a firewall that drops."""
    if policy is nft_drops:
        port = [nft.payload(nft.TRANSPORT_HEADER, 2, 2), nft.equals(b"\0\x50")]
        place = (nft.INET, "hostfw", "routed")
        with nft.Firewall() as ruleset:
            ruleset.commit((nft.append_rule(*place, [*port, nft.verdict(nft.ACCEPT)]), _answers_pass()))
    else:
        for program in PROGRAMS[policy].values():
            for match in ("-p tcp --dport 80", "-m conntrack --ctstate ESTABLISHED"):
                host.command(program, "-I", "FORWARD", *match.split(), "-j", "ACCEPT")


def _answers_pass() -> Any:
    known = [
        nft.conntrack(nft.CT_STATE),
        nft.mask(nft.host32(nft.CT_ESTABLISHED)),
        nft.differs(bytes(4)),
        nft.verdict(nft.ACCEPT),
    ]
    return nft.append_rule(nft.INET, "hostfw", "routed", known)


@dataclass(slots=True)
class Place:
    """A host of the test with a server at port 80."""

    namespace: Any
    address: str
    server: socket.socket


@dataclass(frozen=True, slots=True)
class Attempt:
    """A connection that is not to come about: from a place, or from the host itself, to an address."""

    origin: str
    address: str
    port: int = 80


@dataclass(slots=True)
class World:
    host: Host
    ipv6: bool
    places: dict[str, Place]

    @property
    def own(self) -> str:
        """The host's own address."""
        return str(self.host.ADDRESS6 if self.ipv6 else self.host.ADDRESS)

    def address(self, name: str) -> str:
        return self.places[name].address

    def reach(self, origin: str, target: str, address: str = "", port: int = 80) -> str | None:
        """Under which address the target sees who connects from ``origin``; None if it cannot."""
        place = self.places[target]
        seen: str | None = self.host.reaches(
            self.places[origin].namespace, place.server, address or place.address, port
        )
        return seen

    def from_host(self, target: str, address: str = "", port: int = 80) -> str | None:
        place = self.places[target]
        with socket.socket(socket.AF_INET6 if self.ipv6 else socket.AF_INET) as client:
            client.settimeout(5)
            try:
                client.connect((address or place.address, port))
            except OSError:
                return None
            accepted, (seen, *_) = place.server.accept()
            accepted.close()
            return str(seen)

    def begin(self, attempt: Attempt) -> socket.socket:
        family = socket.AF_INET6 if self.ipv6 else socket.AF_INET
        client: socket.socket = self.places[attempt.origin].namespace.socket(family=family)
        client.setblocking(False)
        client.connect_ex((attempt.address, attempt.port))
        return client


def check_nobody(begun: list[tuple[Attempt, socket.socket]]) -> None:
    """That none of the connections comes about. All wait together: on one machine, what has not come by then
    is not coming."""
    poll = select.poll()
    for _, client in begun:
        poll.register(client, select.POLLOUT)
    end = time.monotonic() + PATIENCE
    while poll.poll(max(0, (end - time.monotonic()) * 1000)) and time.monotonic() < end:
        for attempt, client in begun:
            try:
                client.getpeername()
            except OSError:
                if client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    poll.unregister(client)
                    poll.register(client, 0)
                continue
            pytest.fail(f"{attempt} came about")
    for _, client in begun:
        client.close()


@contextlib.contextmanager
def world(host: Host, outside: Any, endpoints: dict[str, Endpoint]) -> Iterator[list[World]]:
    """The same containers, once for each version of IP."""
    worlds = [World(host, ipv6, {}) for ipv6 in (False, True)]
    with contextlib.ExitStack() as stack:
        namespaces = {name: host.container(endpoint) for name, endpoint in endpoints.items()}
        for there in worlds:
            for name, endpoint in endpoints.items():
                own = next(cidr for cidr in endpoint.addresses if (":" in cidr) is there.ipv6)
                server = stack.enter_context(host.listen(namespaces[name], ipv6=there.ipv6))
                there.places[name] = Place(namespaces[name], own.partition("/")[0], server)
            server = stack.enter_context(host.listen(outside, ipv6=there.ipv6))
            address = host.INTERNET6 if there.ipv6 else host.INTERNET
            there.places["outside"] = Place(outside, address, server)
        yield worlds


async def connect_all(bridges: Bridges) -> dict[str, Endpoint]:
    bridges.add("net", Plan(bridge="br-net", network="net", ranges=BOTH))
    bridges.add("other", Plan(bridge="br-other", network="other", ranges=BOTH))
    bridges.add("inside", Plan(bridge="br-inside", network="inside", ranges=BOTH, internal=True))
    for network in ("net", "other", "inside"):
        await bridges.make(network)
    return {name: await bridges.connect(IDS[name], network=network) for name, network in NETWORKS.items()}


async def publish(bridges: Bridges, endpoint: Endpoint) -> None:
    addresses = [cidr.partition("/")[0] for cidr in endpoint.addresses]
    wishes = [Wish(protocol="tcp", target=80, ports=range(8080, 8081))]
    wishes += [
        Wish(protocol="tcp", target=80, address=address, ports=range(8081, 8082))
        for address in ("127.0.0.1", "::1")
    ]
    await bridges.ports.publish(IDS["web"], wishes, addresses=addresses, bridge=endpoint.bridge)


def check_insiders(there: World) -> None:
    """What containers reach, whatever the host's policy."""
    own = there.own
    assert there.reach("near", "web") == there.address("near")
    assert there.reach("near", "web", own, 8080) is not None
    assert there.reach("far", "web", own, 8080) is not None
    assert there.reach("near", "outside") == there.reach("far", "outside") == own
    assert there.reach("in2", "in") == there.address("in2")


def forbidden(there: World, *, forwards: bool) -> list[Attempt]:
    """What nobody may reach, whatever the host's policy; and by it."""
    own = there.own
    pairs = [("far", "web"), ("near", "in"), ("in", "web"), ("in", "outside"), ("web", "far")]
    pairs += [("outside", target) for target in ("web", "far", "in")]
    found = [Attempt(origin, there.address(target)) for origin, target in pairs]
    found += [Attempt(origin, own, 8081) for origin in ("near", "far", "outside", "in")]
    found.append(Attempt("in", own, 8080))
    return found if forwards else [*found, Attempt("outside", own, 8080)]


async def check_host(there: World) -> None:
    loopback = "::1" if there.ipv6 else "127.0.0.1"
    for target in ("web", "far", "in"):
        assert there.from_host(target) is not None, target
    assert there.from_host("web", there.own, 8080) is not None
    for port in (8080, 8081):
        # By the daemon's own hands where it is [::1].
        assert await asyncio.to_thread(there.from_host, "web", loopback, port) is not None, port


async def check(worlds: list[World], *, forwards: bool) -> None:
    begun = [
        (attempt, there.begin(attempt)) for there in worlds for attempt in forbidden(there, forwards=forwards)
    ]
    check_nobody(begun)
    for there in worlds:
        check_insiders(there)
        await check_host(there)
        if forwards:
            assert there.reach("outside", "web", there.own, 8080) == there.address("outside")


@pytest.mark.parametrize(
    "policy",
    [
        no_policy,
        nft_drops,
        pytest.param(iptables_drops, marks=needs("iptables-nft")),
        pytest.param(legacy_drops, marks=needs("ip6tables-legacy")),
    ],
)
def test_the_table_of_the_documents(as_host: AsHost, policy: Callable[[Host], None]) -> None:
    def work(host: Host) -> None:
        outside = host.internet()
        policy(host)
        if policy in PROGRAMS:
            host.command(PROGRAMS[policy][True], "-P", "FORWARD", "DROP")

        async def life() -> None:
            async with instance(host) as bridges:
                endpoints = await connect_all(bridges)
                await publish(bridges, endpoints["web"])
                with world(host, outside, endpoints) as worlds:
                    await check(worlds, forwards=policy is no_policy)
                    ways = [bridges.forwarding(version) for version in (4, 6)]
                    assert all(way.enabled for way in ways)
                    assert [bool(way.drops) for way in ways] == [policy is not no_policy] * 2
                    # Ours are not counted.
                    assert not any(way.rules for way in ways)
                    if policy is not no_policy:
                        host_allows(host, policy)
                        await check(worlds, forwards=True)
                        assert all(bridges.forwarding(version).rules for version in (4, 6))
                await bridges.ports.withdraw(IDS["web"])
                for name in NETWORKS:
                    await bridges.release(IDS[name])
                for network in ("net", "other", "inside"):
                    await bridges.remove(network)

        asyncio.run(life())
        with nft.Firewall() as ruleset:
            assert not [name for _, name in ruleset.tables() if name.startswith(("sampan", "br-"))]
        assert host.links() == {"lo", "uplink"}

    as_host(work)


@pytest.mark.parametrize(
    "policy",
    [nft_drops, pytest.param(iptables_drops, marks=needs("iptables-nft"))],
)
def test_published_ports_may_bypass_the_host(as_host: AsHost, policy: Callable[[Host], None]) -> None:
    def work(host: Host) -> None:
        outside = host.internet()
        policy(host)
        if policy in PROGRAMS:
            host.command(PROGRAMS[policy][True], "-P", "FORWARD", "DROP")

        async def life() -> None:
            async with instance(host, bypass=True) as bridges:
                endpoint = await bridges.connect(IDS["web"])
                await publish(bridges, endpoint)
                namespace = host.container(endpoint)
                with host.listen(namespace) as server:
                    assert host.reaches(outside, server, host.ADDRESS, 8080) == host.INTERNET
                if policy is iptables_drops:
                    assert bridges.site is not None
                    subnet = bridges.site.subnet
                    shown = host.command("iptables-nft", "-S", "FORWARD").splitlines()
                    assert shown[1] == (
                        f"-A FORWARD -m conntrack --ctstate DNAT --ctreplsrc {subnet} -m comment "
                        f'--comment "{bridges.name}: published ports of {subnet}" -j ACCEPT'
                    )
                await bridges.ports.withdraw(IDS["web"])
                await bridges.release(IDS["web"])

        asyncio.run(life())
        with nft.Firewall() as ruleset:
            chains = [chain for chain in ruleset.chains() if chain.hook == nft.FORWARD]
            assert not any(ruleset.rules(chain.family, chain.table, chain.name) for chain in chains)

    as_host(work)
