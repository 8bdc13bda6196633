"""Which policy a container is held to, on which interfaces, and what is told of refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest

from sampan.engine.egress import Egress, check, parsed
from sampan.engine.endpoints import Place
from sampan.engine.model import EndpointSettings, HostConfig
from sampan.errors import InvalidArgument, Unavailable
from sampan.network.egress import Interface, Refusal
from sampan.network.egresspolicy import Policy
from sampan.sandbox.messages import Endpoint

PORT = Endpoint(bridge="br", host_name="sv1", addresses=("10.0.0.2/24", "fd00::2/64"), gateway="10.0.0.1")


class Rules:
    """Remembers who is held to what."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[Policy, Sequence[Interface]]] = {}
        self.on_refusal: Any = None

    async def hold(
        self, container_id: str, policy: Policy, plugs: Sequence[Interface], *, fresh: bool = False
    ) -> None:
        self.held[container_id] = (policy, plugs)

    async def release(self, container_id: str, *, unplug: bool = False) -> None:
        self.held.pop(container_id, None)


class Told:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, str]]] = []

    def container(self, _: object, action: str, **attributes: str) -> None:
        self.events.append((action, attributes))


class Store(dict[str, Any]):
    def find(self, key: str) -> Any:
        return SimpleNamespace(container=self[key])


def place(name: str = "net", endpoint: Endpoint = PORT) -> Place:
    return Place(
        name=name, network_id=name, key=name, custom=True, settings=EndpointSettings(), endpoint=endpoint
    )


def engine(**options: str) -> tuple[Egress, Rules, Told, Any]:
    """An engine with one container and the network ``net``, which has these options."""
    rules, told = Rules(), Told()
    box = SimpleNamespace(id="box", host=HostConfig())
    network: Any = SimpleNamespace(options={f"io.sampan.{key}": text for key, text in options.items()})
    made = Egress(
        rules,  # type: ignore[arg-type]
        store=Store(box=box),  # type: ignore[arg-type]
        events=told,  # type: ignore[arg-type]
        find_network=lambda key: network if key == "net" else None,
    )
    return made, rules, told, box


def hold(made: Egress, box: Any, *places: Place, **host: Any) -> None:
    box.host = HostConfig(**host)
    asyncio.run(made.hold(box, places))


def test_its_own_policy_or_that_of_its_first_network() -> None:
    made, rules, _, box = engine(egress="none")
    hold(made, box, place("other"), place())
    assert rules.held["box"][0] == Policy()
    assert rules.held["box"][1] == [Interface(port="sv1", addresses=PORT.addresses)] * 2
    hold(made, box, place(), annotations={"io.sampan.egress": "allow=a.example:1 allow=b.example"})
    assert rules.held["box"][0] == Policy(names=(("a.example", 1), ("b.example", 0)))
    hold(made, box, place(), annotations={"io.sampan.egress": "any"})
    assert rules.held == {}
    hold(made, box, place("other"))
    assert rules.held == {}


def test_hosts_that_were_added_are_addresses() -> None:
    made, rules, _, box = engine()
    policy = {"io.sampan.egress": "allow=db.example:5432,host.docker.internal:80"}
    extra = ("db.example:192.0.2.7", "host.docker.internal:host-gateway", "x.example:192.0.2.8")
    hold(made, box, place(), annotations=policy, extra_hosts=extra)
    assert rules.held["box"][0].networks == (
        (ip_network("192.0.2.7"), 5432),
        (ip_network("10.0.0.1"), 80),
    )


def test_what_passes_the_host_by_cannot_be_held() -> None:
    made, rules, _, box = engine(egress="none")
    beside = Endpoint(bridge="", host_name="", kind="macvlan", mode="bridge", parent="up")
    with pytest.raises(Unavailable, match="cannot be enforced on network net"):
        hold(made, box, place(endpoint=beside))
    assert rules.held == {}
    for mode in ("host", "container:x"):
        with pytest.raises(InvalidArgument, match="conflicting options: an egress policy"):
            check(HostConfig(network_mode=mode, annotations={"io.sampan.egress": "none"}))
        check(HostConfig(network_mode=mode, annotations={"io.sampan.egress": "any"}))
    assert parsed(None) is None


def test_refusals_are_events() -> None:
    _, rules, told, _ = engine()
    rules.on_refusal(Refusal(container_id="box", protocol="tcp", address="192.0.2.1", port=80))
    rules.on_refusal(Refusal(container_id="box", protocol="udp", address="2001:db8::1", port=53))
    rules.on_refusal(Refusal(container_id="box", protocol="icmp", address="192.0.2.1"))
    rules.on_refusal(Refusal(container_id="box", name="a.example"))
    rules.on_refusal(Refusal(container_id="gone", name="a.example"))
    assert told.events == [
        ("egress-refused", {"destination": "192.0.2.1:80", "protocol": "tcp"}),
        ("egress-refused", {"destination": "[2001:db8::1]:53", "protocol": "udp"}),
        ("egress-refused", {"destination": "192.0.2.1", "protocol": "icmp"}),
        ("egress-refused", {"destination": "a.example", "protocol": "dns"}),
    ]
