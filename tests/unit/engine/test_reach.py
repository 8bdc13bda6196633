"""Who is said to reach a port, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.fakes.engine import World

from sampan.engine.model import (
    Container,
    ContainerConfig,
    ContainerState,
    EndpointSettings,
    HostConfig,
    NetworkSettings,
    PortBinding,
    Status,
)
from sampan.engine.networks import Network
from sampan.engine.reach import Reach, Reachable
from sampan.errors import NotFound
from sampan.network import Plan
from sampan.network.forwarding import Forwarding, Guard

OPEN = Forwarding(enabled=True)
NETWORKS = {
    "bridge": Network(id="1", name="bridge", driver="bridge", created_ns=0),
    "in": Network(id="2", name="in", driver="bridge", created_ns=0, internal=True),
    "apart": Network(
        id="3",
        name="apart",
        driver="bridge",
        created_ns=0,
        options={"com.docker.network.bridge.enable_icc": "false"},
    ),
    "beside": Network(id="4", name="beside", driver="macvlan", created_ns=0, options={"parent": "eth0"}),
}


class FakeNetworks:
    def find(self, ref: str) -> Network:
        for network in NETWORKS.values():
            if ref in (network.name, network.id):
                return network
        raise NotFound(ref)


@dataclass
class FakeBridges:
    ways: dict[int, Forwarding]
    bypass: bool = False
    plan: Plan = field(default_factory=lambda: Plan(bridge="sampan0"))

    def forwarding(self, version: int) -> Forwarding:
        return self.ways[version]


def container(*networks: str, ports: dict[str, Any], mode: str = "bridge") -> Container:
    settings = {
        name: EndpointSettings(ip_address="10.0.0.2", gateway="" if name == "in" else "10.0.0.1")
        for name in networks
    }
    return Container(
        id="c" * 64,
        name="box",
        created=0,
        path="true",
        args=(),
        image_id="",
        config=ContainerConfig(exposed_ports={port: {} for port in ports}),
        host=HostConfig(network_mode=mode),
        state=ContainerState(status=Status.RUNNING),
        network=NetworkSettings(networks=settings, ports=ports),
    )


async def told(
    world: World, box: Container, ipv4: Forwarding = OPEN, *, bypass: bool = False
) -> list[Reachable]:
    world.store.reserve(box.name, box.id)
    await world.store.add(box, durable=False)
    bridges = FakeBridges({4: ipv4, 6: OPEN}, bypass=bypass)
    return await Reach(store=world.store, networks=FakeNetworks(), bridges=bridges).ports()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("network", "reached_by", "why"),
    [
        ("bridge", ("host", "network bridge"), "not published there"),
        ("in", ("host", "network in"), "internal network"),
        ("apart", ("host",), "enable_icc is false"),
        (
            "beside",
            ("network of eth0",),
            "driver macvlan: an address beside the host, which does not reach it",
        ),
    ],
)
async def test_exposed_ports(world: World, network: str, reached_by: tuple[str, ...], why: str) -> None:
    (found,) = await told(world, container(network, ports={"80/tcp": None}))
    assert (found.reached_by, found.why, found.host) == (reached_by, why, "")


DROPS = Guard(name="ip filter FORWARD", drops=True, rules=0)


@pytest.mark.parametrize(
    ("way", "bypass", "others", "why"),
    [
        (OPEN, False, ("other hosts",), "the host forwards everything"),
        (Forwarding(enabled=False), False, (), "the host does not forward"),
        (
            Forwarding(enabled=True, guards=(DROPS,)),
            False,
            (),
            "the host's policy: ip filter FORWARD drops, no rules of its own",
        ),
        (
            Forwarding(enabled=True, guards=(Guard(name="inet fw routed", drops=True, rules=2),)),
            False,
            ("other hosts that the host's rules let through",),
            "the host's policy: inet fw routed drops, 2 rules",
        ),
        (
            Forwarding(enabled=True, guards=(Guard(name="inet fw routed", drops=False, rules=1),)),
            False,
            ("other hosts that the host's rules do not refuse",),
            "the host's rules: inet fw routed, 1 rule",
        ),
        (
            Forwarding(enabled=True, guards=(DROPS,)),
            True,
            ("other hosts",),
            "published-ports is bypass: before the host's own rules",
        ),
    ],
)
async def test_published_ports(
    world: World, way: Forwarding, bypass: bool, others: tuple[str, ...], why: str
) -> None:
    bindings = (PortBinding(host_ip="0.0.0.0", host_port="8080"), PortBinding(host_ip="::", host_port="8080"))
    box = container("bridge", ports={"80/tcp": bindings})
    _, ipv4, ipv6 = await told(world, box, way, bypass=bypass)
    near = ("host", "containers with a way out")
    assert (ipv4.host, ipv4.reached_by, ipv4.why) == ("0.0.0.0:8080", (*near, *others), why)
    assert (ipv6.host, ipv6.reached_by) == ("[::]:8080", (*near, "other hosts"))
    assert ipv6.why == "the engine copies it: the container has no IPv6"


async def test_the_hosts_own(world: World) -> None:
    box = container("bridge", ports={"80/tcp": (PortBinding(host_ip="127.0.0.1", host_port="81"),)})
    _, found = await told(world, box)
    assert (found.reached_by, found.why) == (("host",), "published on the host's loopback alone")


async def test_the_hosts_network(world: World) -> None:
    (found,) = await told(world, container("host", ports={"80/tcp": None}, mode="host"))
    assert (found.network, found.reached_by) == ("host", ("whoever reaches the host",))
