"""Which ports of a container are published where: Docker's PortBindings, ``-P``, and what is recorded of
them.

Law: what a running container's record says of its ports is what leads to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from msgspec.structs import replace

from sampan.engine.endpoints import Place, leading, leased
from sampan.engine.model import Container, ContainerConfig, HostConfig, PortBinding
from sampan.errors import InvalidArgument, Unavailable
from sampan.network.published import Published, Wish, check_protocol

_LARGEST = 65535


class Ports(Protocol):
    """Implemented by ``network.published``."""

    async def publish(
        self, container_id: str, wishes: Sequence[Wish], *, addresses: Sequence[str], bridge: str
    ) -> list[Published]: ...

    async def withdraw(self, container_id: str) -> None: ...

    async def settle(self) -> None: ...


def wanted(config: ContainerConfig, host: HostConfig) -> list[Wish]:
    """What is to be published. InvalidArgument in Docker's words for what is no port."""
    wishes = []
    bindings = host.port_bindings or {}
    for port in sorted(bindings, key=_order):
        number, protocol = _parse(port)
        for binding in bindings[port] or (PortBinding(),):
            wishes.append(
                Wish(
                    protocol=protocol,
                    target=number,
                    address=binding.host_ip,
                    ports=_range(binding.host_port),
                )
            )
    if host.publish_all_ports:
        for port in sorted(set(config.exposed_ports or ()) - bindings.keys(), key=_order):
            number, protocol = _parse(port)
            wishes.append(Wish(protocol=protocol, target=number))
    return wishes


def check(config: ContainerConfig, host: HostConfig) -> None:
    """Raise for what cannot be published at all."""
    for wish in wanted(config, host):
        check_protocol(wish.protocol)


def _parse(port: str) -> tuple[int, str]:
    number, _, protocol = port.partition("/")
    if not (number.isascii() and number.isdigit()) or not 0 < int(number[:8]) <= _LARGEST:
        raise InvalidArgument(f'invalid port specification: "{number}"')
    protocol = protocol.lower() or "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise InvalidArgument(f"invalid proto: {protocol}")
    return int(number), protocol


def _order(port: str) -> tuple[int, str]:
    number, _, protocol = port.partition("/")
    return (int(number[:8]) if number.isascii() and number.isdigit() else 0, protocol)


def _range(text: str) -> range:
    """The host's ports of a binding: one, several to choose from, or none for any."""
    if text in ("", "0"):
        return range(0)
    low, dash, high = text.partition("-")
    for part in (low, high if dash else low):
        if not (part.isascii() and part.isdigit()) or int(part[:8]) > _LARGEST:
            raise InvalidArgument(f'invalid port specification: "{text}"')
    first, last = int(low), int(high if dash else low)
    if last < first:
        raise InvalidArgument(f'invalid port specification: "{text}"')
    return range(first, last + 1)


def shown(ports: Iterable[Published]) -> dict[str, tuple[PortBinding, ...]]:
    """As ``NetworkSettings.Ports`` has them."""
    found: dict[str, tuple[PortBinding, ...]] = {}
    for port in ports:
        key = f"{port.target}/{port.protocol}"
        binding = PortBinding(host_ip=port.host, host_port=str(port.port))
        found[key] = (*found.get(key, ()), binding)
    return found


class Publishing:
    """Publishes the ports of containers that start, and of those that were found running."""

    def __init__(self, ports: Ports | None) -> None:
        self._ports = ports

    async def publish(self, container: Container, places: Sequence[Place]) -> Container:
        """The container with its ports; Unavailable, in Docker's words, when one is taken."""
        host = container.host
        if self._ports is None or not (host.port_bindings or host.publish_all_ports):
            return container
        return await self._publish(container, places, wanted(container.config, host))

    async def resume(self, container: Container, places: Sequence[Place]) -> Container:
        """Publish again what a running container has."""
        recorded = container.network.ports
        had = [
            Wish(
                protocol=port.partition("/")[2],
                target=int(port.partition("/")[0]),
                address="" if binding.host_ip == "0.0.0.0" else binding.host_ip,
                ports=_range(binding.host_port),
            )
            for port, bindings in recorded.items()
            for binding in bindings or ()
            # Where it was published on all addresses, it will be on both versions' again.
            if binding.host_ip != "::"
        ]
        if self._ports is None:
            return container
        return await self._publish(container, places, had) if had else await self.publish(container, places)

    async def settle(self) -> None:
        """What leads to nobody is removed, after every running container was resumed."""
        if self._ports is not None:
            await self._ports.settle()

    async def withdraw(self, container_id: str) -> None:
        if self._ports is not None:
            await self._ports.withdraw(container_id)

    async def _publish(
        self, container: Container, places: Sequence[Place], wishes: Sequence[Wish]
    ) -> Container:
        assert self._ports is not None
        # What shares a link of the host is there under its own address; there is nothing to publish.
        places = [place for place in places if place.endpoint is None or place.endpoint.bridge]
        first, first6 = leading(places), leading(places, ipv6=True)
        place = first or first6
        if place is None or place.endpoint is None:  # no way in without a way out
            return container
        default = place.host_binding
        wishes = [wish if wish.address or not default else _at(wish, default) for wish in wishes]
        addresses = [*_addresses(first, ipv6=False), *_addresses(first6, ipv6=True)]
        try:
            made = await self._ports.publish(
                container.id, wishes, addresses=addresses, bridge=place.endpoint.bridge
            )
        except Unavailable as error:
            endpoint_id = container.network.networks[place.name].endpoint_id
            raise Unavailable(
                "failed to set up container networking: driver failed programming external connectivity on "
                f"endpoint {container.name} ({endpoint_id}): {error}"
            ) from error
        network = replace(container.network, ports={**container.network.ports, **shown(made)})
        return replace(container, network=network)


def _at(wish: Wish, address: str) -> Wish:
    return Wish(protocol=wish.protocol, target=wish.target, address=address, ports=wish.ports)


def _addresses(place: Place | None, *, ipv6: bool) -> list[str]:
    """The address of a version of IP at the place that leads out for it."""
    if place is None or place.endpoint is None:
        return []
    return [cidr.partition("/")[0] for cidr in leased(place.endpoint) if (":" in cidr) is ipv6]
