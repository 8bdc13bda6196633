"""Connecting containers to networks and disconnecting them, running or not.

Law: what a container has on a network is plugged in before it is recorded, and recorded as gone before it is
unplugged; either happens under the container's lock, so that a start or an end meets all of it or nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sampan.engine import files, links
from sampan.engine.endpoints import (
    BRIDGE,
    WITHOUT_INTERFACE,
    Place,
    Places,
    gateway_of,
    settings_of,
    way_out,
)
from sampan.engine.exits import network_event
from sampan.engine.model import Container, EndpointSettings, NetworkSettings
from sampan.errors import Conflict, Forbidden, InvalidArgument, NotFound, Unavailable
from sampan.sandbox import interfaces

if TYPE_CHECKING:
    from sampan.engine.egress import Egress
    from sampan.engine.events import Events
    from sampan.engine.networks import Network, Networks
    from sampan.engine.ports import Bridges
    from sampan.engine.settings import Settings
    from sampan.engine.store import ContainerStore, Instance
    from sampan.sandbox.messages import Endpoint

_NOT_HOST = "container cannot be disconnected from host network or connected to host network"
_PRIVATE = (
    "container cannot be connected to multiple networks with one of the networks in private (none) mode"
)
_SHARED = (
    "container sharing network namespace with another container or host cannot be connected to any other "
    "network"
)


class Connections:
    """The use cases ``network connect`` and ``network disconnect``."""

    def __init__(
        self,
        *,
        store: ContainerStore,
        networks: Networks,
        bridges: Bridges,
        places: Places,
        egress: Egress,
        events: Events,
        settings: Settings,
    ) -> None:
        self._store = store
        self._networks = networks
        self._bridges = bridges
        self._places = places
        self._egress = egress
        self._events = events
        self._settings = settings

    async def connect(self, ref: str, container_ref: str, asked: EndpointSettings) -> None:
        """Let the container be on one more network, with the aliases and the address asked for."""
        instance = self._store.find(container_ref)
        network = self._networks.find(ref)
        async with instance.lock:
            container = instance.container
            if instance.removed:
                raise NotFound(f"No such container: {container_ref}")
            _check_connection(container, network, asked)
            place = Place(
                name=network.name,
                network_id=network.id,
                key=network.key,
                custom=network.custom,
                settings=asked,
            )
            if instance.task is None:
                self._record(instance, network.name, replace(asked, network_id=network.id))
                await self._store.lasting(instance)
                return
            if network.name in container.network.networks:
                raise Forbidden(
                    f"endpoint with name {container.name} already exists in network {network.name}"
                )
            await self._plug(instance, place)
        self._events.publish(network_event(instance.container, network.name, "connect"))

    async def _plug(self, instance: Instance, place: Place) -> None:
        task = instance.task
        assert task is not None
        number = _free_number(self._places.found(instance.container))
        place = await self._places.take_one(instance.id, place, number=number)
        endpoint = place.endpoint
        assert endpoint is not None
        way = replace(instance.container, network=_with(instance.container, place))
        await self._hold(instance, place)
        try:
            await asyncio.to_thread(interfaces.join, _closed(endpoint), task.pid)
            for ipv6 in (False, True):
                if _leading(way, ipv6=ipv6) == place.name:
                    await asyncio.to_thread(_route, endpoint, task.pid, ipv6=ipv6)
        except OSError as error:
            await self._bridges.release(instance.id, place.key)
            await self._bridges.sweep(place.key, instance.id)
            raise Unavailable(f"container {instance.id} cannot be connected: {error.strerror}") from error
        if instance.task is not task:
            await self._bridges.release(instance.id, place.key)
            raise Conflict(f"container {instance.id} is not running")
        self._record(instance, place.name, settings_of(instance.container, place))
        files.add_address(instance.container, endpoint.addresses)
        if place.custom:
            await self._let_ask(instance, task.pid)
        await self._store.lasting(instance)

    async def _hold(self, instance: Instance, place: Place) -> None:
        """Hold it to its egress policy there too, before it is there."""
        try:
            await self._egress.hold(instance.container, [*self._places.found(instance.container), place])
        except Unavailable:
            await self._bridges.release(instance.id, place.key)
            raise

    async def _let_ask(self, instance: Instance, pid: int) -> None:
        """It asks us for names from its first user-defined network on."""
        try:
            await self._places.follow(instance.container, pid)
        except OSError:  # it has ended
            return
        files.ask_for_names(instance.container, self._settings)

    async def disconnect(self, ref: str, container_ref: str, *, force: bool = False) -> None:
        """Take the container from a network."""
        instance = self._store.find(container_ref)
        try:
            network = self._networks.find(ref)
        except NotFound:
            # A network that is gone may still be asked for by a container that does not run.
            if instance.task is not None or ref not in instance.container.network.networks:
                raise
            self._forget(instance, ref)
            return
        async with instance.lock:
            container = instance.container
            if network.name == "host" and container.host.network_mode == "host":
                raise InvalidArgument(_NOT_HOST)
            name = next(
                (key for key in container.network.networks if key in (network.name, network.id)), None
            )
            if name is None:
                raise Forbidden(f"container {container.id} is not connected to network {network.name}")
            task = instance.task
            if task is None or network.name in WITHOUT_INTERFACE:
                self._forget(instance, name)
                await self._store.lasting(instance)
                return
            event = network_event(container, name, "disconnect")
            former = {ipv6: _leading(container, ipv6=ipv6) for ipv6 in (False, True)}
            endpoint = self._bridges.endpoints(network.key).get(container.id)
            settings = container.network.networks[name]
            for address in filter(None, (settings.ip_address, settings.global_ipv6_address)):
                files.remove_address(container, address)
            self._forget(instance, name)
            self._places.part(container.id, network.id)
            await self._bridges.release(container.id, network.key)
            await self._bridges.sweep(network.key, container.id)
            if endpoint is not None and endpoint.kind:
                await asyncio.to_thread(interfaces.take_out, endpoint.name, task.pid)
            await self._egress.hold(instance.container, self._places.found(instance.container))
            for ipv6, leading in former.items():
                if endpoint is not None and leading == name:
                    await self._lead_on(instance, task.pid, ipv6=ipv6)
            self._places.admit(instance.container, self._places.found(instance.container))
            await self._store.lasting(instance)
        self._events.publish(event)

    async def _lead_on(self, instance: Instance, pid: int, *, ipv6: bool) -> None:
        """Another network leads out now, if there is one."""
        leading = _leading(instance.container, ipv6=ipv6)
        for place in self._places.found(instance.container):
            if place.name == leading and place.endpoint is not None:
                try:
                    await asyncio.to_thread(_route, place.endpoint, pid, ipv6=ipv6)
                except OSError:  # it has ended
                    return

    def _record(self, instance: Instance, name: str, settings: EndpointSettings) -> None:
        container = instance.container
        networks = {**container.network.networks, name: settings}
        self._store.update(
            instance, replace(container, network=replace(container.network, networks=networks))
        )

    def _forget(self, instance: Instance, name: str) -> None:
        container = instance.container
        networks = {key: value for key, value in container.network.networks.items() if key != name}
        self._store.update(
            instance, replace(container, network=replace(container.network, networks=networks))
        )


def _check_connection(container: Container, network: Network, asked: EndpointSettings) -> None:
    """Raise InvalidArgument, in Docker's words, for what does not go together."""
    mode = container.host.network_mode
    if network.name == "host" or mode == "host":
        raise InvalidArgument(_NOT_HOST)
    if mode.startswith("container:"):
        raise InvalidArgument(_SHARED)
    others = [name for name in container.network.networks if name != network.name]
    if others and (network.name == "none" or "none" in others):
        raise InvalidArgument(_PRIVATE)
    check_settings(network.name, asked)


def check_settings(name: str, asked: EndpointSettings) -> None:
    """Raise for what only user-defined networks have."""
    links.aliases(asked.links or ())
    if name not in (BRIDGE, *WITHOUT_INTERFACE):
        return
    ipam = asked.ipam_config
    if ipam is not None and (ipam.ipv4_address or ipam.ipv6_address):
        raise InvalidArgument("user specified IP address is supported on user defined networks only")
    if asked.aliases:
        raise InvalidArgument(
            "network-scoped alias is supported only for containers in user defined networks"
        )


def _with(container: Container, place: Place) -> NetworkSettings:
    networks = {**container.network.networks, place.name: settings_of(container, place)}
    return replace(container.network, networks=networks)


def _leading(container: Container, *, ipv6: bool) -> str | None:
    return way_out(
        (name, settings.gw_priority, settings.ipv6_gateway if ipv6 else settings.gateway)
        for name, settings in container.network.networks.items()
    )


def _route(endpoint: Endpoint, pid: int, *, ipv6: bool) -> None:
    gateway = gateway_of(endpoint, ipv6=ipv6)
    on_link = interfaces.routes_by_itself(endpoint)
    interfaces.route_through(gateway, endpoint.name, pid, ipv6=ipv6, on_link=on_link)


def _closed(endpoint: Endpoint) -> Endpoint:
    return dataclasses.replace(endpoint, gateway=None, gateway6=None)


def _free_number(places: list[Place]) -> int:
    taken = {place.endpoint.name for place in places if place.endpoint is not None}
    return next(number for number in range(len(taken) + 1) if f"eth{number}" not in taken)
