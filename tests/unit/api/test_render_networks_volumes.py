"""Networks and volumes in the shapes that dockerd answered with (recorded from 20.10)."""

from __future__ import annotations

from sampan.api.routes import networks, volumes
from sampan.engine.model.volumes import Volume
from sampan.engine.networkplans import Pool
from sampan.engine.networks import Member, Network

BRIDGE = Network(
    id="79" * 32,
    name="bridge",
    driver="bridge",
    created_ns=1_700_000_000_573_583_420,
    pools=(Pool(subnet="172.29.0.0/16", gateway="172.29.0.1"),),
    options={"com.docker.network.bridge.name": "sampan0"},
    members=(Member(container_id="1a" * 32, name="box", ipv4_address="172.29.0.2/16"),),
)


def test_a_network() -> None:
    assert networks.render(BRIDGE, (1, 41)) == {
        "Name": "bridge",
        "Id": "79" * 32,
        "Created": "2023-11-14T22:13:20.57358342Z",
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv6": False,
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": [{"Subnet": "172.29.0.0/16", "Gateway": "172.29.0.1"}],
        },
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {
            "1a" * 32: {
                "Name": "box",
                "EndpointID": "",
                "MacAddress": "",
                "IPv4Address": "172.29.0.2/16",
                "IPv6Address": "",
            }
        },
        "Options": {"com.docker.network.bridge.name": "sampan0"},
        "Labels": {},
    }


def test_newer_clients_are_told_of_ipv4() -> None:
    assert networks.render(BRIDGE, (1, 47))["EnableIPv4"] is True


def test_a_network_without_addresses() -> None:
    host = Network(id="0", name="host", driver="host", created_ns=1)
    assert networks.render(host, (1, 41))["IPAM"]["Config"] == []


def test_a_volume() -> None:
    volume = Volume(
        name="data", mountpoint="/v/data/_data", created_ns=1_700_000_000_999_999_999, labels=None
    )
    assert volumes.render(volume) == {
        "CreatedAt": "2023-11-14T22:13:20Z",
        "Driver": "local",
        "Labels": None,
        "Mountpoint": "/v/data/_data",
        "Name": "data",
        "Options": None,
        "Scope": "local",
    }
