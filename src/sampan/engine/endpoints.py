"""A container's places on networks: which it is to have, what each start gives it, and what is recorded.

Law: an interface has a number by its place: the container's main network first, the others by their names.
The way out is through the network of the highest priority that has one, by name where priorities are equal.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sampan.engine import files, links
from sampan.engine.model import Container, EndpointIPAMConfig, EndpointSettings, NetworkSettings
from sampan.engine.model.container import OWNER
from sampan.engine.networkplans import HOST_BINDING
from sampan.errors import Forbidden, NotFound
from sampan.network import resolv
from sampan.sandbox import resolver
from sampan.sandbox.messages import Endpoint

if TYPE_CHECKING:
    from sampan.engine.networks import Network
    from sampan.engine.ports import Bridges
    from sampan.engine.settings import Settings
    from sampan.network import Names
    from sampan.network.egress import Gate

BRIDGE = "bridge"
WITHOUT_INTERFACE = ("host", "none")
_ON_THE_LINK = ("169.254.", "fe80:")

FindNetwork = Callable[[str], "Network | None"]
"""A user-defined network by its name or id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One network of a container. ``key`` is how ``Bridges`` knows it; ``custom``: users made it."""

    name: str
    network_id: str
    key: str
    custom: bool
    settings: EndpointSettings
    endpoint: Endpoint | None = None
    host_binding: str = ""
    """The host's address on which its ports are published, where none is given."""


class Places:
    """Finds the networks of containers, and takes their addresses."""

    def __init__(
        self,
        *,
        bridges: Bridges,
        network_id: Callable[[str], str],
        find_network: FindNetwork,
        names: Names | None,
        settings: Settings,
        gate: Callable[[str], Gate | None] = lambda _: None,
    ) -> None:
        self._bridges = bridges
        self._network_id = network_id
        self._find = find_network
        self._names = names
        self._gate = gate
        self._settings = settings

    def of(self, container: Container) -> list[Place]:
        """In order; NotFound, in Docker's words, for a network that there is not."""
        asked = container.network.networks
        mode = container.host.network_mode
        names = sorted(asked, key=lambda name: (name != mode, name))
        return [self._place(name, asked[name]) for name in names]

    def _place(self, name: str, settings: EndpointSettings) -> Place:
        if name == BRIDGE or name in WITHOUT_INTERFACE:
            return Place(
                name=name, network_id=self._network_id(name), key=name, custom=False, settings=settings
            )
        network = self._find(name)
        if network is None:
            raise NotFound(f"failed to set up container networking: network {name} not found")
        if network.config_only:
            raise Forbidden("cannot create endpoint on configuration-only network")
        return Place(
            name=network.name,
            network_id=network.id,
            key=network.id,
            custom=True,
            settings=settings,
            host_binding=network.options.get(HOST_BINDING, ""),
        )

    async def take(self, container: Container) -> list[Place]:
        """The container's places, each with an interface where its network gives one."""
        found: list[Place] = []
        for place in self.of(container):
            self._check_owner(container, place)
            if place.name in WITHOUT_INTERFACE:
                found.append(place)
                continue
            number = sum(other.endpoint is not None for other in found)
            mac = container.config.mac_address if place.name == container.host.network_mode else ""
            found.append(await self.take_one(container.id, place, number=number, mac=mac))
        return found

    def _check_owner(self, container: Container, place: Place) -> None:
        """NotFound for a network that somebody else has made under the name, if the container is a group's:
        nobody looks when it is started again by itself."""
        owner = (container.config.labels or {}).get(OWNER)
        known = place.settings.network_id
        if owner is None or not place.custom or known in ("", place.network_id):
            return
        network = self._find(place.network_id)
        if network is None or network.labels.get(OWNER) != owner:
            raise NotFound(f"failed to set up container networking: network {place.name} not found")

    async def take_one(self, container_id: str, place: Place, *, number: int, mac: str = "") -> Place:
        """An interface of this number on one network."""
        ipam = place.settings.ipam_config
        mac = mac or requested_mac(place.settings)
        if place.key == BRIDGE and not number:
            endpoint = await self._bridges.connect(container_id, mac=mac or None)
        else:
            endpoint = await self._bridges.connect(
                container_id,
                network=place.key,
                name=f"eth{number}",
                mac=mac or None,
                addresses=_wanted(ipam) if ipam is not None and place.custom else (),
            )
        if ipam is not None and ipam.link_local_ips:
            more = map(_link_local, ipam.link_local_ips)
            endpoint = dataclasses.replace(endpoint, addresses=(*endpoint.addresses, *more))
        return dataclasses.replace(place, endpoint=endpoint)

    def admit(self, container: Container, places: Iterable[Place]) -> str:
        """Let the container be found by its names, and ask for others'; where it is to send its sockets.

        Empty when it is on no user-defined network and held to no egress policy.
        """
        names = self._names
        custom = [place for place in places if place.custom and place.endpoint is not None]
        if names is None:
            return ""
        if not (custom or self._gate(container.id)):
            if names.serves(container.id):
                # It goes on asking us, about none of the networks that it has left.
                self._let_ask(container, places)
            return ""
        for place in custom:
            self.announce(container, place)
        self._let_ask(container, places)
        return names.path

    def announce(self, container: Container, place: Place) -> None:
        """Let the container be found on one network."""
        endpoint = place.endpoint
        if self._names is not None and place.custom and endpoint is not None:
            addresses = [cidr.partition("/")[0] for cidr in leased(endpoint)]
            given = names_of(container, place.settings)
            self._names.join(place.network_id, place.name, container.id, addresses, given)

    def _let_ask(self, container: Container, places: Iterable[Place]) -> None:
        assert self._names is not None
        with_interface = [place for place in places if place.endpoint is not None]
        leads_out = any(place.endpoint and gateways(place.endpoint) for place in with_interface)
        servers = resolv.upstream(container.host.dns or self._settings.options.dns) if leads_out else ()
        custom = [place for place in with_interface if place.custom]
        aliases = {
            place.network_id: links.aliases(place.settings.links) for place in custom if place.settings.links
        }
        ids = [place.network_id for place in custom]
        self._names.admit(container.id, ids, servers, aliases, self._gate(container.id))

    async def follow(self, container: Container, pid: int) -> None:
        """Let a running container ask: one that has just come to its first user-defined network, or one whose
        last daemon is gone. OSError when its network namespace is."""
        places = self.found(container)
        asks = self.admit(container, places)
        if self._names is None or self._names.serves(container.id):
            return
        if not asks:
            if not (any(place.endpoint for place in places) and files.asks_for_names(container)):
                return
            self._let_ask(container, places)  # it has left the last network with names, and still asks us
        udp, tcp = await asyncio.to_thread(resolver.make, pid)
        self._names.adopt(container.id, udp, tcp)

    def part(self, container_id: str, place_id: str | None = None) -> None:
        """Let it be found no more, on one network or on all."""
        if self._names is not None:
            self._names.leave(container_id, place_id)

    def found(self, container: Container) -> list[Place]:
        """The places of a running container, with the interfaces that it was found to have."""
        places = []
        for place in self.of(container):
            endpoint = self._bridges.endpoints(place.key).get(container.id) if place.custom else None
            if place.key == BRIDGE:
                endpoint = self._bridges.endpoints().get(container.id)
            places.append(dataclasses.replace(place, endpoint=endpoint))
        return places


def requested_mac(asked: EndpointSettings) -> str:
    # What a former start was given is no request; an endpoint id marks it.
    return "" if asked.endpoint_id else asked.mac_address


def way_out(candidates: Iterable[tuple[str, int, str | None]]) -> str | None:
    """The name of the network that leads out, of (name, priority, gateway); None if none does."""
    leading = [(-priority, name) for name, priority, gateway in candidates if gateway]
    return min(leading)[1] if leading else None


def leading(places: Iterable[Place], *, ipv6: bool = False) -> Place | None:
    """The place that leads out for a version of IP."""
    found = [place for place in places if place.endpoint is not None]
    name = way_out(
        (place.name, place.settings.gw_priority, gateway_of(place.endpoint, ipv6=ipv6)) for place in found
    )
    return next((place for place in found if place.name == name), None)


def gateway_of(endpoint: Endpoint | None, *, ipv6: bool) -> str | None:
    if endpoint is None:
        return None
    return endpoint.gateway6 if ipv6 else endpoint.gateway


def gateways(endpoint: Endpoint) -> list[str]:
    return [gateway for gateway in (endpoint.gateway, endpoint.gateway6) if gateway]


def leased(endpoint: Endpoint) -> list[str]:
    """The addresses that its network gave it, at most one of each version, in CIDR notation."""
    found: dict[bool, str] = {}
    for cidr in endpoint.addresses:
        if not cidr.startswith(_ON_THE_LINK):
            found.setdefault(":" in cidr, cidr)
    return [found[ipv6] for ipv6 in (False, True) if ipv6 in found]


def interfaces_of(places: Iterable[Place], *, publishes: bool = False) -> list[Endpoint]:
    """What is to be plugged in: only one leads out, and back in if ports are published."""
    with_interface = [(place, place.endpoint) for place in places if place.endpoint is not None]
    if len(with_interface) == 1 and not publishes:
        return [with_interface[0][1]]
    first = leading(place for place, _ in with_interface)
    first6 = leading((place for place, _ in with_interface), ipv6=True)
    return [
        dataclasses.replace(
            endpoint,
            gateway=endpoint.gateway if place is first else None,
            gateway6=endpoint.gateway6 if place is first6 else None,
            hairpin=publishes and (place is first or place is first6),
        )
        for place, endpoint in with_interface
    ]


def connected(container: Container, places: Iterable[Place]) -> Container:
    """The container with what a start gives it; see ``disconnected``."""
    if container.config.network_disabled:
        return container
    networks = {place.name: settings_of(container, place) for place in places}
    ports = container.network.ports
    if any(settings.endpoint_id for settings in networks.values()):
        ports = {**dict.fromkeys(sorted(container.config.exposed_ports or ())), **ports}
    network = NetworkSettings(sandbox_id=container.id, networks=networks, ports=ports)
    return replace(container, network=network)


def settings_of(container: Container, place: Place) -> EndpointSettings:
    """What is recorded of a place."""
    settings = replace(place.settings, network_id=place.network_id)
    endpoint = place.endpoint
    if endpoint is None:
        return settings
    own = {":" in cidr: cidr for cidr in leased(endpoint)}
    address, _, prefix = own.get(False, "").partition("/")
    address6, _, prefix6 = own.get(True, "").partition("/")
    return replace(
        settings,
        mac_address=endpoint.mac,
        gateway=endpoint.gateway or "",
        ip_address=address,
        ip_prefix_len=int(prefix or 0),
        ipv6_gateway=endpoint.gateway6 or "",
        global_ipv6_address=address6,
        global_ipv6_prefix_len=int(prefix6 or 0),
        endpoint_id=_endpoint_id(container.id, place),
        dns_names=names_of(container, settings) if place.custom else None,
    )


def names_of(container: Container, settings: EndpointSettings) -> tuple[str, ...]:
    """The names that a container has on a user-defined network."""
    return tuple(dict.fromkeys((container.name, *(settings.aliases or ()), container.id[:12])))


def _endpoint_id(container_id: str, place: Place) -> str:
    if not place.custom:
        return container_id[::-1]
    return hashlib.sha256(f"{container_id} {place.network_id}".encode()).hexdigest()


def disconnected(container: Container) -> Container:
    """The container without what a start had given it on networks."""
    networks = {name: bare(settings) for name, settings in container.network.networks.items()}
    return replace(container, network=NetworkSettings(networks=networks))


def bare(settings: EndpointSettings) -> EndpointSettings:
    """What was asked for."""
    return replace(
        settings,
        mac_address="" if settings.endpoint_id else settings.mac_address,
        gateway="",
        ip_address="",
        ip_prefix_len=0,
        ipv6_gateway="",
        global_ipv6_address="",
        global_ipv6_prefix_len=0,
        endpoint_id="",
    )


def _wanted(ipam: EndpointIPAMConfig) -> list[str]:
    return [address for address in (ipam.ipv4_address, ipam.ipv6_address) if address]


def _link_local(address: str) -> str:
    """A further address of the interface; its network is the whole of the link's."""
    return f"{address}/{64 if ':' in address else 16}"
