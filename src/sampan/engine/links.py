"""Links of old: ``--link CONTAINER:ALIAS``, by which one container knows another on the default bridge.

The container that asks is the parent, the other its child. A link gives the parent a line in its hosts file
and variables that tell of the child's exposed ports and environment; the child is also found, and listed, by
the name ``/PARENT/ALIAS``. On user-defined networks a link is an alias for the parent's questions alone
(``Places``).

Laws: a record holds ``ID:ALIAS``, so that a link outlives the child's next name; every look at it from
outside (``shown``, ``names``) spells names as they are now; a child must run, on the default bridge, when the
parent starts; where it starts again, the parent's file follows its address.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sampan.engine import files
from sampan.engine.networkplans import BRIDGE, DRIVERS
from sampan.errors import Conflict, InvalidArgument, NotFound

if TYPE_CHECKING:
    from sampan.engine.model import Container, HostConfig
    from sampan.engine.store import ContainerStore

_NOT_PASSED_ON = ("HOME", "PATH")
_LEAST_RANGE = 3
"""Ports in a row that are told as a range as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Linked:
    """What a parent gets: lines of its hosts file as (address, names), and variables."""

    hosts: tuple[tuple[str, str], ...] = ()
    env: tuple[str, ...] = ()


def parse(text: str) -> tuple[str, str]:
    """Name and alias of ``name[:alias]``; of ``/name:/parent/alias`` too. InvalidArgument otherwise."""
    if not text:
        raise InvalidArgument("empty string specified for links")
    parts = text.split(":")
    if len(parts) > 2:
        raise InvalidArgument(f"bad format for links: {text}")
    if len(parts) == 1:
        return text, text.rpartition("/")[2]
    name, alias = parts
    return name, alias.rpartition("/")[2]


def aliases(texts: Iterable[str]) -> dict[str, str]:
    """Alias → name of the links on a user-defined network, where the other need not be there."""
    return {alias: name for name, alias in map(parse, texts)}


def variables(path: str, alias: str, address: str, child: Container) -> dict[str, str]:
    """What a parent is told of its child, which it knows by ``path`` (``/PARENT/ALIAS``)."""
    prefix = alias.upper().replace("-", "_")
    ports = sorted(map(_port, child.config.exposed_ports or ()), key=lambda port: (port[0], port[1] != "tcp"))
    found: dict[str, str] = {}
    if ports:
        found[f"{prefix}_PORT"] = _at(address, *ports[0])
    for first, last in _ranges(ports):
        stem = f"{prefix}_PORT_{first[0]}_{first[1].upper()}"
        end = f"{prefix}_PORT_{first[0]}_{last[1].upper()}"
        found |= {
            f"{stem}_START": _at(address, *first),
            f"{stem}_ADDR": address,
            f"{stem}_PROTO": first[1],
            f"{stem}_PORT_START": str(first[0]),
            f"{end}_END": _at(address, *last),
            f"{end}_PORT_END": str(last[0]),
        }
    for number, protocol in ports:
        stem = f"{prefix}_PORT_{number}_{protocol.upper()}"
        found |= {
            stem: _at(address, number, protocol),
            f"{stem}_ADDR": address,
            f"{stem}_PORT": str(number),
            f"{stem}_PROTO": protocol,
        }
    found[f"{prefix}_NAME"] = path
    for variable in child.config.env or ():
        name, sign, value = variable.partition("=")
        if sign and name not in _NOT_PASSED_ON:
            found[f"{prefix}_ENV_{name}"] = value
    return found


def _port(text: str) -> tuple[int, str]:
    number, _, protocol = text.partition("/")
    return int(number) if number.isascii() and number.isdigit() else 0, protocol.lower() or "tcp"


def _at(address: str, number: int, protocol: str) -> str:
    return f"{protocol}://{address}:{number}"


def _ranges(ports: list[tuple[int, str]]) -> Iterable[tuple[tuple[int, str], tuple[int, str]]]:
    """First and last of the ports that follow each other."""
    start = 0
    for place in range(1, len(ports) + 1):
        if place == len(ports) or ports[place][0] > ports[place - 1][0] + 1:
            if place - start >= _LEAST_RANGE:
                yield ports[start], ports[place - 1]
            start = place


class Links:
    """Over the containers of one store."""

    def __init__(self, store: ContainerStore) -> None:
        self._store = store
        self._known: set[str] | None = None  # ids of those that have links; None until it is asked for

    def resolved(self, host: HostConfig) -> HostConfig:
        """The configuration with each child named by its id; InvalidArgument for one that there is not.

        On a user-defined network only the endpoint's own links count, as in Docker.
        """
        if not host.links:
            return host
        pairs = [parse(text) for text in host.links]
        if host.network_mode not in ("", "default", *DRIVERS):
            return replace(host, links=None)
        found: dict[str, str] = {}
        for name, alias in pairs:
            if not name:
                raise InvalidArgument('could not get container for : invalid name or ID supplied: ""')
            try:
                child = self._store.find(name).container
            except NotFound as error:
                raise InvalidArgument(f"could not get container for {name}: {error}") from error
            found.setdefault(alias or child.name, child.id)
        return replace(host, links=tuple(f"{child}:{alias}" for alias, child in sorted(found.items())))

    def note(self, container: Container) -> None:
        """Know of a container that was recorded."""
        if container.host.links and self._known is not None:
            self._known.add(container.id)

    def shown(self, container: Container) -> Container:
        """The container with its links as Docker tells them: ``/child:/parent/alias``."""
        if not container.host.links:
            return container
        told = tuple(f"/{self._name(child)}:/{container.name}/{alias}" for child, alias in _pairs(container))
        return replace(container, host=replace(container.host, links=told))

    def names(self) -> dict[str, list[str]]:
        """The names that links give to containers, by the id of the child."""
        found: dict[str, list[str]] = {}
        for parent in self._linking():
            for child, alias in _pairs(parent):
                found.setdefault(child, []).append(f"/{parent.name}/{alias}")
        return found

    def of(self, container: Container) -> Linked:
        """What a container that starts gets by its links. Conflict for a child that does not run."""
        if not container.host.links or BRIDGE not in container.network.networks:
            return Linked()
        hosts: list[tuple[str, str]] = []
        env: dict[str, str] = {}
        for child_id, alias in _pairs(container):
            path = f"/{container.name}/{alias}"
            child = self._store.find(child_id).container if child_id in self._store else None
            if child is None or not child.state.running:
                name = self._name(child_id)
                raise Conflict(f"Cannot link to a non running container: /{name} AS {path}")
            settings = child.network.networks.get(BRIDGE)
            if settings is None or not settings.ip_address:
                raise Conflict(f"Cannot link to /{child.name}, as it does not belong to the default network")
            known = dict.fromkeys((alias, child.config.hostname, child.name))
            hosts.append((settings.ip_address, " ".join(known)))
            env |= variables(path, alias, settings.ip_address, child)
        return Linked(hosts=tuple(hosts), env=tuple(f"{name}={value}" for name, value in env.items()))

    def readdress(self, child: Container) -> None:
        """Tell the running parents of a container that starts where it is now."""
        for parent in self._linking():
            settings = child.network.networks.get(BRIDGE)
            if settings is None or not settings.ip_address or not parent.state.running:
                continue
            for found, alias in _pairs(parent):
                if found == child.id:
                    files.readdress(parent, alias, settings.ip_address)

    def remove(self, ref: str) -> None:
        """Forget the link ``/PARENT/ALIAS``, and its line in a running parent's file."""
        parent_name, _, alias = ref.strip("/").partition("/")
        if not alias:
            self._store.find(ref)
            raise Conflict("Conflict, cannot remove the default link name of the container")
        try:
            parent = self._store.find(parent_name)
        except NotFound:
            raise NotFound(f"No such container: {ref}") from None
        container = parent.container
        left = tuple(f"{child}:{other}" for child, other in _pairs(container) if other != alias)
        if len(left) == len(container.host.links or ()):
            raise NotFound(f"No such container: {ref}")
        self._store.update(parent, replace(container, host=replace(container.host, links=left or None)))
        if container.state.running:
            files.unlink_host(container, alias)

    def _name(self, container_id: str) -> str:
        """The name of a container; of one that is gone, what its link still says of it."""
        if container_id not in self._store:
            return container_id[:12]
        return self._store.find(container_id).container.name

    def _linking(self) -> Iterable[Container]:
        """Those that have links."""
        if self._known is None:
            self._known = {instance.id for instance in self._store if instance.container.host.links}
        for container_id in tuple(self._known):
            if container_id in self._store:
                yield self._store.find(container_id).container
            else:
                self._known.discard(container_id)


def _pairs(container: Container) -> list[tuple[str, str]]:
    """(id of the child, alias) of each link."""
    return [
        (child, alias) for child, _, alias in (text.partition(":") for text in container.host.links or ())
    ]
