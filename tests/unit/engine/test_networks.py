"""The predefined networks as a user sees them."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from sampan import errors
from sampan.engine.model import (
    Container,
    ContainerConfig,
    ContainerState,
    EndpointSettings,
    Filters,
    HostConfig,
    NetworkSettings,
    Status,
)
from sampan.engine.networkplans import Definition, Ipam, NetworkRequest, Pool, check
from sampan.engine.networks import Networks
from sampan.network import Bridges
from sampan.state import Database

RUNNING = Container(
    id="1a" * 32,
    name="box",
    created=0,
    path="true",
    args=(),
    image_id="sha256:0",
    config=ContainerConfig(),
    host=HostConfig(),
    state=ContainerState(status=Status.RUNNING),
    network=NetworkSettings(
        networks={
            "bridge": EndpointSettings(
                endpoint_id="e", mac_address="02:42:ac:1d:00:02", ip_address="172.29.0.2", ip_prefix_len=16
            )
        }
    ),
)
EXITED = msgspec.structs.replace(RUNNING, id="2b" * 32, state=ContainerState(status=Status.EXITED))


@pytest.fixture
def networks(tmp_path: Path) -> Callable[[], Networks]:
    def start() -> Networks:
        database = Database.open(os.fspath(tmp_path / "state.db"))
        # Never started: a host where the bridge is not available.
        bridges = Bridges(data_root=os.fspath(tmp_path), database=database, shared=os.fspath(tmp_path / "s"))
        made = Networks(
            bridges=bridges, database=database, containers=lambda: (RUNNING, EXITED), publish=lambda _: None
        )
        asyncio.run(made.start())
        database.close()
        return made

    return start


def names(networks: Networks, **filters: str) -> list[str]:
    wanted = Filters({key: (value,) for key, value in filters.items()})
    return [network.name for network in networks.list(wanted)]


def test_ids_are_made_once(networks: Callable[[], Networks]) -> None:
    first, second = networks(), networks()
    for name in ("bridge", "host", "none"):
        assert first.get(name) == second.get(name)
        assert len(first.id_of(name)) == 64
    assert first.id_of("other") == ""


def test_listing(networks: Callable[[], Networks]) -> None:
    found = networks()
    assert [(network.name, network.driver) for network in found.list()] == [
        ("bridge", "bridge"),
        ("host", "host"),
        ("none", "null"),
    ]
    assert names(found, driver="null") == ["none"]
    assert names(found, name="o") == ["host", "none"]
    assert names(found, id=found.id_of("host")[:20]) == ["host"]
    assert names(found, scope="swarm") == names(found, type="custom") == names(found, dangling="1") == []
    assert names(found, type="builtin") == names(found, dangling="0") == ["bridge", "host", "none"]
    assert names(found, label="a") == []
    with pytest.raises(errors.InvalidArgument, match=r"invalid filter: 'type'='x'"):
        names(found, type="x")


def test_inspect_shows_who_is_there(networks: Callable[[], Networks]) -> None:
    found = networks()
    bridge = found.get("bridge")
    assert found.get(bridge.id) == found.get(bridge.id[:12]) == bridge
    (member,) = bridge.members
    assert (member.container_id, member.name, member.ipv4_address) == (RUNNING.id, "box", "172.29.0.2/16")
    assert found.get("host").members == ()
    assert bridge.options["com.docker.network.bridge.default_bridge"] == "true"
    for unknown in ("nope", ""):
        with pytest.raises(errors.NotFound, match=f"^network {unknown} not found$"):
            found.get(unknown)


def test_changes_are_refused(networks: Callable[[], Networks]) -> None:
    found = networks()
    with pytest.raises(errors.Forbidden, match=r"^bridge is a pre-defined network and cannot be removed$"):
        asyncio.run(found.remove("bridge"))
    with pytest.raises(errors.NotFound):
        asyncio.run(found.remove("nope"))
    with pytest.raises(errors.Forbidden, match="operation is not permitted on predefined host network"):
        asyncio.run(found.create(NetworkRequest(name="host")))
    assert asyncio.run(found.prune()) == ()


def pool(subnet: str, **more: str) -> Ipam:
    return Ipam(config=(Pool(subnet=subnet, **more),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "kind", "words"),
    [
        (NetworkRequest(), errors.InvalidArgument, "invalid network name: name is empty"),
        (NetworkRequest(name="a", driver="host"), errors.Forbidden, 'only one instance of "host"'),
        (NetworkRequest(name="a", driver="nope"), errors.NotFound, 'plugin "nope" not found'),
        (NetworkRequest(name="a", enable_ipv4=False), errors.InvalidArgument, "IPv4 or IPv6 must be enabled"),
        (NetworkRequest(name="a", driver="overlay"), errors.Unavailable, "not a swarm manager"),
        (NetworkRequest(name="a", ipam=Ipam(driver="x")), errors.NotFound, 'plugin "x" not found'),
        (
            NetworkRequest(name="a", ipam=pool("10.9.0.0")),
            errors.InvalidArgument,
            "invalid subnet 10.9.0.0: invalid CIDR block notation",
        ),
        (
            NetworkRequest(name="a", ipam=pool("10.9.0.5/24")),
            errors.InvalidArgument,
            "invalid subnet 10.9.0.5/24: it should be 10.9.0.0/24",
        ),
        (
            NetworkRequest(name="a", ipam=pool("10.9.0.0/24", gateway="10.8.0.1")),
            errors.InvalidArgument,
            "invalid gateway 10.8.0.1: parent subnet 10.9.0.0/24 doesn't contain this address",
        ),
        (
            NetworkRequest(name="a", ipam=pool("10.9.0.0/24", ip_range="10.9.0.0/16")),
            errors.InvalidArgument,
            "CIDR block is bigger than its parent subnet",
        ),
        (
            NetworkRequest(name="a", options={"com.docker.network.driver.mtu": "x"}),
            errors.InvalidArgument,
            'strconv.Atoi: parsing "x": invalid syntax',
        ),
        (
            NetworkRequest(name="a", options={"com.docker.network.bridge.name": "a/b"}),
            errors.InvalidArgument,
            "invalid interface name: a/b",
        ),
    ],
)
def test_requests_that_make_no_sense(
    request_: NetworkRequest, kind: type[errors.Failure], words: str
) -> None:
    with pytest.raises(kind, match=re.escape(words)):
        check(request_)


def test_a_record_is_a_plan() -> None:
    made = Definition(
        id="ab" * 32,
        name="mine",
        created_ns=1,
        subnet="10.9.0.0/24",
        pool=Pool(subnet="10.9.0.0/24", ip_range="10.9.0.128/25", auxiliary={"r": "10.9.0.129"}),
        internal=True,
        options={
            "com.docker.network.bridge.enable_icc": "false",
            "com.docker.network.bridge.enable_ip_masquerade": "false",
            "com.docker.network.driver.mtu": "1400",
        },
    )
    plan = made.plan()
    assert plan.bridge == "br-abababababab"
    assert (plan.internal, plan.isolated, plan.masquerade, plan.mtu) == (True, True, False, 1400)
    addresses = plan.addresses(made.subnet)
    assert addresses.gateway == "10.9.0.128"
    assert addresses.lease() == "10.9.0.130"
    assert addresses.claim("10.9.0.7")
