"""Who can reach which port of which running container, and why: ``system ports``.

Law: nothing is tried; what is told follows from what this engine set up and from what the host's own firewall
says (``network/forwarding.py``). Where rules of the host's decide, that is said, not guessed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.engine.endpoints import WITHOUT_INTERFACE
from sampan.engine.networkplans import BRIDGE, ICC, MASTERLESS, says_no

if TYPE_CHECKING:
    from sampan.engine.model import Container, EndpointSettings, PortBinding
    from sampan.engine.networks import Network, Networks
    from sampan.engine.store import ContainerStore
    from sampan.network import Bridges
    from sampan.network.forwarding import Forwarding

_LOOPBACK = ("127.", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reachable:
    """A port, one way to it, and who may take it. ``host`` is the host's address and port, empty for the
    container's own address; ``reached_by`` are kinds of who does, ``why`` the reason that there are not more.
    """

    container_id: str
    container: str
    network: str
    port: str
    host: str
    reached_by: tuple[str, ...]
    why: str


class Reach:
    def __init__(self, *, store: ContainerStore, networks: Networks, bridges: Bridges) -> None:
        self._store = store
        self._networks = networks
        self._bridges = bridges

    async def ports(self) -> list[Reachable]:
        """By name and port. OSError where the host's firewall cannot be read."""
        ways = {version: await asyncio.to_thread(self._bridges.forwarding, version) for version in (4, 6)}
        found: list[Reachable] = []
        for instance in self._store:
            container = instance.container
            if container.state.running and not container.temporary:
                found.extend(self._of(container, ways))
        return sorted(found, key=lambda one: (one.container, one.port, one.host, one.network))

    def _of(self, container: Container, ways: dict[int, Forwarding]) -> Iterable[Reachable]:
        host = container.host.network_mode
        if host == "host":
            for port in container.config.exposed_ports or ():
                yield _told(container, "host", port, "", ("whoever reaches the host",), "the host's network")
            return
        for port, bindings in container.network.ports.items():
            for name, settings in container.network.networks.items():
                if name not in WITHOUT_INTERFACE:
                    yield self._inside(container, port, name, settings)
            for binding in bindings or ():
                yield self._published(container, port, binding, ways)

    def _inside(self, container: Container, port: str, name: str, settings: EndpointSettings) -> Reachable:
        """By the container's own address."""
        network = self._networks.find(settings.network_id or name)
        if network.driver in MASTERLESS:
            return _told(
                container,
                name,
                port,
                "",
                (f"network of {network.options.get('parent') or name}",),
                f"driver {network.driver}: an address beside the host, which does not reach it",
            )
        if self._isolated(network):
            return _told(container, name, port, "", ("host",), "enable_icc is false")
        why = "internal network" if network.internal else "not published there"
        return _told(container, name, port, "", ("host", f"network {name}"), why)

    def _isolated(self, network: Network) -> bool:
        if network.name == BRIDGE:
            return self._bridges.plan.isolated
        return says_no(network.options.get(ICC))

    def _published(
        self, container: Container, port: str, binding: PortBinding, ways: dict[int, Forwarding]
    ) -> Reachable:
        address = binding.host_ip
        shown = f"[{address}]:{binding.host_port}" if ":" in address else f"{address}:{binding.host_port}"
        name = _way_in(container)
        if address.startswith(_LOOPBACK):
            return _told(container, name, port, shown, ("host",), "published on the host's loopback alone")
        near = ("host", "containers with a way out")
        way = ways[6 if ":" in address else 4]
        if not self._leads(container, ipv6=":" in address):
            everybody = (*near, "other hosts")
            why = f"the engine copies it: the container has no IPv{6 if ':' in address else 4}"
            return _told(container, name, port, shown, everybody, why)
        others, why = _forwarded(way, bypass=self._bridges.bypass)
        return _told(container, name, port, shown, (*near, *others), why)

    def _leads(self, container: Container, *, ipv6: bool) -> bool:
        """Whether the kernel leads there: the container has an address of the version."""
        return any(
            settings.global_ipv6_address if ipv6 else settings.ip_address
            for settings in container.network.networks.values()
        )


def _way_in(container: Container) -> str:
    """The network by which published ports are reached."""
    names = [
        name
        for name, settings in sorted(container.network.networks.items())
        if settings.gateway or settings.ipv6_gateway
    ]
    return names[0] if names else ""


def _forwarded(way: Forwarding, *, bypass: bool) -> tuple[tuple[str, ...], str]:
    """Whether other hosts get through, and by whose word."""
    if not way.enabled:
        return (), "the host does not forward"
    if bypass:
        return ("other hosts",), "published-ports is bypass: before the host's own rules"
    if way.drops:
        guards = "; ".join(f"{guard.name} drops, {_rules(guard.rules)}" for guard in way.drops)
        if not any(guard.rules for guard in way.drops):
            return (), f"the host's policy: {guards}"
        return ("other hosts that the host's rules let through",), f"the host's policy: {guards}"
    if way.rules:
        guards = "; ".join(f"{guard.name}, {_rules(guard.rules)}" for guard in way.rules)
        return ("other hosts that the host's rules do not refuse",), f"the host's rules: {guards}"
    return ("other hosts",), "the host forwards everything"


def _rules(number: int) -> str:
    return "no rules of its own" if not number else f"{number} rule{'s'[: number > 1]}"


def _told(
    container: Container, network: str, port: str, host: str, reached_by: tuple[str, ...], why: str
) -> Reachable:
    return Reachable(
        container_id=container.id,
        container=container.name,
        network=network,
        port=port,
        host=host,
        reached_by=reached_by,
        why=why,
    )
