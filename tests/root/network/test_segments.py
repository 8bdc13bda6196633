"""Networks of further interfaces of a host's link, where the kernel has them."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from tests.root.network.test_bridges import instance

from sampan.errors import Unavailable
from sampan.linux import rtnetlink
from sampan.linux.netlink import Netlink
from sampan.network import Plan, Range
from sampan.network.segment import vlan
from sampan.sandbox import interfaces
from sampan.sandbox.messages import Endpoint

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces"),
]

AsHost = Callable[[Callable[[Any], None]], None]
Host = Any

FIRST, SECOND = "1a" * 32, "2b" * 32
KINDS = [("macvlan", "bridge"), ("ipvlan", "l2 bridge"), ("ipvlan", "l3 bridge"), ("ipvlan", "l3s bridge")]


def has(kind: str, mode: str) -> bool:
    """Whether the kernel of this host has such interfaces; asked with the link of a namespace of its own."""
    with Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
        parent = rtnetlink.link_index("uplink")
        request = rtnetlink.child_request("trial", parent=parent, kind=kind, mode=mode)
        (outcome,) = netlink.attempt((request,))
        netlink.attempt((rtnetlink.delete_link_request(name="trial"),))
    return outcome is None


def own(endpoint: Endpoint, *, ipv6: bool) -> str:
    return next(cidr.partition("/")[0] for cidr in endpoint.addresses if (":" in cidr) is ipv6)


def lead_back(host: Host, endpoints: Iterable[Endpoint]) -> None:
    for endpoint in endpoints:
        host.command("ip", "route", "add", own(endpoint, ipv6=False), "via", host.ADDRESS)
        host.command("ip", "-6", "route", "add", own(endpoint, ipv6=True), "via", host.ADDRESS6)


@pytest.mark.parametrize(("kind", "mode"), KINDS)
def test_containers_beside_the_host(as_host: AsHost, kind: str, mode: str) -> None:
    def work(host: Host) -> None:
        outside = host.internet()
        ranges = (
            Range(subnet="198.51.100.0/24", gateway=host.INTERNET, reserved=(host.ADDRESS,)),
            Range(version=6, subnet="2001:db8:5::/64", gateway=host.INTERNET6, reserved=(host.ADDRESS6,)),
        )
        plan = Plan(bridge="uplink", network="side", driver=kind, mode=mode, ranges=ranges)

        async def life() -> None:
            async with instance(host) as bridges:
                bridges.add("side", plan)
                if not has(kind, mode):
                    with pytest.raises(Unavailable, match=f"the kernel has no {kind} interfaces"):
                        await bridges.make("side")
                    bridges.discard("side")
                    return
                await bridges.make("side")
                first, second = [await bridges.connect(one, network="side") for one in (FIRST, SECOND)]
                places = [host.container(endpoint) for endpoint in (first, second)]
                if mode.startswith("l3"):  # the parent routes: who is beyond it has to know
                    outside.run(functools.partial(lead_back, host, (first, second)))
                for ipv6 in (False, True):
                    address = host.INTERNET6 if ipv6 else host.INTERNET
                    with host.listen(outside, ipv6=ipv6) as server:
                        assert host.reaches(places[0], server, address) == own(first, ipv6=ipv6)
                    with host.listen(places[1], ipv6=ipv6) as server:
                        there = own(second, ipv6=ipv6)
                        assert host.reaches(places[0], server, there) == own(first, ipv6=ipv6)
                # The next daemon reads the leases where they are.
                async with instance(host, "next") as others:
                    others.add("side", plan)
                    await others.make("side")
                    await others.reconcile({FIRST: places[0].pid, SECOND: places[1].pid})
                    assert others.endpoints("side")[SECOND].addresses == second.addresses
                    for one in (FIRST, SECOND):
                        await others.release(one)
                places[0].run(functools.partial(interfaces.take_out, "eth0", places[0].pid))
                assert not interfaces.inside(places[0].pid)
                await bridges.release(FIRST)
                await bridges.release(SECOND)
                await bridges.remove("side")
                assert "uplink" in host.links()

        asyncio.run(life())

    as_host(work)


def test_a_network_without_a_parent_leads_nowhere(as_host: AsHost) -> None:
    def work(host: Host) -> None:
        host.internet()
        plan = Plan(bridge="dm-0123456789ab", network="in", driver="macvlan", mode="bridge", internal=True)

        async def life() -> None:
            async with instance(host) as bridges:
                bridges.add("in", plan)
                await bridges.make("in")
                first, second = [await bridges.connect(one, network="in") for one in (FIRST, SECOND)]
                assert first.gateway is None
                places = [host.container(endpoint) for endpoint in (first, second)]
                with host.listen(places[1]) as server:
                    assert host.reaches(places[0], server, own(second, ipv6=False)) is not None
                for one in (FIRST, SECOND):
                    await bridges.release(one)
                await bridges.remove("in")
                bridges.add("gone", Plan(bridge="nosuch.7", driver="macvlan", mode="bridge"))
                with pytest.raises(Unavailable, match=r"interface was not found on the host: nosuch\.7"):
                    await bridges.make("gone")
                bridges.discard("gone")
                assert not os.path.exists(f"{host.directory}/shared/nosuch.7.json")

        asyncio.run(life())
        assert host.links() == {"lo", "uplink"}

    as_host(work)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("eth0.10", ("eth0", 10)),
        ("bond.1.4094", ("bond.1", 4094)),
        ("eth0", None),
        ("eth0.0", None),
        ("eth0.4095", None),
        (".5", None),
        ("eth0.x", None),
    ],
)
def test_names_of_vlans(name: str, found: tuple[str, int] | None) -> None:
    assert vlan(name) == found
