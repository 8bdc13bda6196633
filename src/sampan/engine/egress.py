"""Egress policies of containers: where each of them may connect to (``network/egresspolicy.py``).

The policy is an annotation, so that any client of the API can set it: ``docker run --annotation
io.sampan.egress=none`` says what ``sampan run --egress none`` says. A container that says nothing has the
policy of the first of its networks that has one, an option of the network by the same name.

Law: a container that has a policy never has an interface without it: it is held before each is plugged in,
and let go when they are gone.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument, Unavailable
from sampan.network import egresspolicy, resolv
from sampan.network.egress import Interface

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sampan.engine.endpoints import FindNetwork, Place
    from sampan.engine.events import Events
    from sampan.engine.model import Container, HostConfig
    from sampan.engine.store import ContainerStore
    from sampan.network.egress import EgressRules, Gate, Refusal
    from sampan.network.egresspolicy import Policy

NAME = "io.sampan.egress"
"""Of the annotation and of the network's option. Several policies of one text are separated by blanks."""

_NOT_OURS = "conflicting options: an egress policy and the network of the host or of another container"


def check(host: HostConfig) -> None:
    """Raise InvalidArgument for a policy that is none, or that could not be enforced."""
    policy = parsed(host.annotations)
    mode = host.network_mode
    if policy is not None and (mode == "host" or mode.startswith("container:")):
        raise InvalidArgument(_NOT_OURS)


def parsed(texts: Mapping[str, str] | None) -> Policy | None:
    """The policy among annotations or options."""
    return egresspolicy.parse((texts or {}).get(NAME, "").split())


class Egress:
    """Holds containers to their policies. ``rules`` None: of no container."""

    def __init__(
        self,
        rules: EgressRules | None,
        *,
        store: ContainerStore,
        events: Events,
        find_network: FindNetwork,
    ) -> None:
        self._rules = rules
        self._store = store
        self._events = events
        self._find = find_network
        if rules is not None:
            rules.on_refusal = self._refused

    async def hold(self, container: Container, places: Sequence[Place], *, fresh: bool = False) -> None:
        """Hold the container on all of these places, or to nothing if it has no policy (any more).

        ``fresh``: it is about to be started.
        """
        if self._rules is None:
            return
        policy = self._policy(container, places)
        if policy is None:
            await self._rules.release(container.id)
        else:
            await self._rules.hold(container.id, policy, _interfaces(places), fresh=fresh)

    async def resume(self, container: Container, places: Sequence[Place]) -> None:
        """Hold a container that lives on from an earlier daemon."""
        policy = self._policy(container, places)
        if self._rules is not None and policy is not None:
            await self._rules.resume(container.id, policy, _interfaces(places))

    async def release(self, container_id: str) -> None:
        """Let it go; its interfaces are removed first, whoever else may still be in its network namespace."""
        if self._rules is not None:
            await self._rules.release(container_id, unplug=True)

    async def settle(self) -> None:
        """What holds nobody is removed, after every living container was resumed."""
        if self._rules is not None:
            await self._rules.settle()

    def gate(self, container_id: str) -> Gate | None:
        """By what a container asks for names; None for one that may ask as it likes."""
        return self._rules.gate(container_id) if self._rules is not None else None

    def _policy(self, container: Container, places: Iterable[Place]) -> Policy | None:
        if (container.host.annotations or {}).get(NAME):
            policy = parsed(container.host.annotations)
        else:
            policy = next(filter(None, map(self._of_network, places)), None)
        return policy and _with_hosts(policy, container, places)

    def _of_network(self, place: Place) -> Policy | None:
        network = self._find(place.key) if place.custom else None
        return parsed(network.options) if network is not None else None

    def _refused(self, refusal: Refusal) -> None:
        if refusal.container_id not in self._store:
            return
        if refusal.name:
            attributes = {"destination": refusal.name, "protocol": "dns"}
        else:
            where = f"[{refusal.address}]" if ":" in refusal.address else refusal.address
            destination = f"{where}:{refusal.port}" if refusal.port else refusal.address
            attributes = {"destination": destination, "protocol": refusal.protocol}
        container = self._store.find(refusal.container_id).container
        self._events.container(container, "egress-refused", **attributes)


def _interfaces(places: Iterable[Place]) -> list[Interface]:
    """Raises Unavailable for an interface whose packets do not pass the host's rules."""
    found = []
    for place in places:
        endpoint = place.endpoint
        if endpoint is None:
            continue
        if endpoint.kind or not endpoint.bridge:
            raise Unavailable(f"an egress policy cannot be enforced on network {place.name}")
        found.append(Interface(port=endpoint.host_name, addresses=endpoint.addresses))
    return found


def _with_hosts(policy: Policy, container: Container, places: Iterable[Place]) -> Policy:
    """With the addresses that ``--add-host`` gives to names: those are never looked up."""
    gateway = next((place.endpoint.gateway for place in places if place.endpoint is not None), None)
    more: dict[tuple[egresspolicy.Network, int], None] = {}
    for entry in container.host.extra_hosts or ():
        try:
            address, name = resolv.extra_host(entry, gateway=gateway)
        except InvalidArgument:
            continue
        more.update({(ip_network(address), port): None for port in policy.ports_of(name.lower())})
    return replace(policy, networks=(*policy.networks, *more)) if more else policy
