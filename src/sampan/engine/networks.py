"""What a user sees of networks: the three that always exist. User-defined ones come with a later issue.

Law: a network's id is made once and kept, so that what clients remembered stays true; who is on a network is
read from the running containers themselves.
"""

from __future__ import annotations

import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from sampan import errors
from sampan.engine.lookups import created_before
from sampan.engine.model import Container, Event, EventType, Filters
from sampan.errors import Forbidden, InvalidArgument, NotFound

if TYPE_CHECKING:
    from sampan.network import Bridges
    from sampan.state import Database

BRIDGE, HOST, NONE = "bridge", "host", "none"
_DRIVERS = {BRIDGE: "bridge", HOST: "host", NONE: "null"}
_LIST_FILTERS = frozenset(("dangling", "driver", "id", "label", "name", "scope", "type"))
_PRUNE_FILTERS = frozenset(("label", "label!", "until"))


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A running container on a network. Addresses are in CIDR notation, empty without one."""

    container_id: str
    name: str
    endpoint_id: str = ""
    mac_address: str = ""
    ipv4_address: str = ""
    ipv6_address: str = ""


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """A network. ``subnet`` and ``gateway`` are empty where the driver has none, or none for now."""

    id: str
    name: str
    driver: str
    created_ns: int
    subnet: str = ""
    gateway: str = ""
    options: dict[str, str] = msgspec.field(default_factory=dict)
    members: tuple[Member, ...] = ()


class Networks:
    """``containers`` yields every container there is, whatever its state; ``publish`` takes an event."""

    def __init__(
        self,
        *,
        bridges: Bridges,
        database: Database,
        containers: Callable[[], Iterable[Container]],
        publish: Callable[[Event], object],
    ) -> None:
        self._publish = publish
        self._bridges = bridges
        self._database = database
        self._containers = containers
        self._identities: dict[str, tuple[str, int]] = {}

    async def start(self) -> None:
        """Load the networks' identities, made on the first start. Before any other call."""
        known = self._database.read(_read_all)
        missing = {name: (secrets.token_hex(32), time.time_ns()) for name in _DRIVERS if name not in known}
        if missing:
            await self._database.write(lambda connection: _insert_all(connection, missing))
        self._identities = {**known, **missing}

    def id_of(self, name: str) -> str:
        """The id of a network by its full name; empty if there is none."""
        return self._identities.get(name, ("", 0))[0]

    def list(self, filters: Filters | None = None) -> Sequence[Network]:
        """Those that every filter lets through, without their members."""
        filters = filters or Filters()
        filters.accept(_LIST_FILTERS)
        for kind in filters.get("type"):
            if kind not in ("custom", "builtin"):
                raise InvalidArgument(f"invalid filter: 'type'='{kind}'")
        # Networks that always exist are never dangling, nor custom.
        if filters.flag("dangling") or filters.get("type") == ("custom",):
            return []
        found = [self._network(name) for name in sorted(_DRIVERS)]
        return [network for network in found if _passes(network, filters)]

    def get(self, ref: str) -> Network:
        """By name, id or unique id prefix, with its members. NotFound in Docker's words."""
        name = self._resolve(ref)
        return msgspec.structs.replace(self._network(name), members=tuple(self._members(name)))

    async def create(self, name: str) -> Network:
        if name in _DRIVERS:
            raise Forbidden(f"operation is not permitted on predefined {name} network")
        if not name:
            raise InvalidArgument("invalid network name: name is empty")
        raise _not_offered("creating networks")

    async def remove(self, ref: str) -> None:
        raise Forbidden(f"{self._resolve(ref)} is a pre-defined network and cannot be removed")

    async def connect(self, ref: str) -> None:
        self._resolve(ref)
        raise _not_offered("connecting a container to a further network")

    async def disconnect(self, ref: str) -> None:
        self._resolve(ref)
        raise _not_offered("disconnecting a container from a network")

    async def prune(self, filters: Filters | None = None) -> Sequence[str]:
        """The names of the networks removed: none, while all networks are predefined."""
        filters = filters or Filters()
        filters.accept(_PRUNE_FILTERS)
        created_before(filters, time.time_ns())
        self._publish(
            Event(type=EventType.NETWORK, action="prune", actor_id="", attributes={"reclaimed": "0"})
        )
        return ()

    def _resolve(self, ref: str) -> str:
        if ref in self._identities:
            return ref
        found = [name for name, (identity, _) in self._identities.items() if ref and identity.startswith(ref)]
        if len(found) > 1:
            raise InvalidArgument(
                f"network {ref} is ambiguous ({len(found)} matches found based on ID prefix)"
            )
        if not found:
            raise NotFound(f"network {ref} not found")
        return found[0]

    def _network(self, name: str) -> Network:
        identity, created = self._identities[name]
        site = self._bridges.site if name == BRIDGE else None
        return Network(
            id=identity,
            name=name,
            driver=_DRIVERS[name],
            created_ns=created,
            subnet=site.subnet if site else "",
            gateway=site.gateway if site else "",
            options=_bridge_options(self._bridges.name, site.mtu if site else 1500) if name == BRIDGE else {},
        )

    def _members(self, name: str) -> Iterable[Member]:
        for container in self._containers():
            settings = container.network.networks.get(name)
            if settings is None or not container.state.running:
                continue
            yield Member(
                container_id=container.id,
                name=container.name,
                endpoint_id=settings.endpoint_id,
                mac_address=settings.mac_address,
                ipv4_address=_cidr(settings.ip_address, settings.ip_prefix_len),
                ipv6_address=_cidr(settings.global_ipv6_address, settings.global_ipv6_prefix_len),
            )


def _bridge_options(bridge: str, mtu: int) -> dict[str, str]:
    prefix = "com.docker.network."
    return {
        f"{prefix}bridge.default_bridge": "true",
        f"{prefix}bridge.enable_icc": "true",
        f"{prefix}bridge.enable_ip_masquerade": "true",
        f"{prefix}bridge.host_binding_ipv4": "0.0.0.0",
        f"{prefix}bridge.name": bridge,
        f"{prefix}driver.mtu": str(mtu),
    }


def _passes(network: Network, filters: Filters) -> bool:
    wanted = {"driver": network.driver, "scope": "local"}
    return (
        all(value in filters.get(key) or not filters.get(key) for key, value in wanted.items())
        and _matches(network.name, filters.get("name"))
        and _matches(network.id, filters.get("id"))
        and filters.matches_labels(None)
    )


def _matches(value: str, patterns: Sequence[str]) -> bool:
    """Docker's rule for names and ids: a regular expression that matches any part."""
    for pattern in patterns:
        try:
            if re.search(pattern, value):
                return True
        except re.error:
            if pattern in value:
                return True
    return not patterns


def _cidr(address: str, prefix: int) -> str:
    return f"{address}/{prefix}" if address else ""


def _not_offered(what: str) -> errors.NotImplemented:
    return errors.NotImplemented(f"{what} is not offered by this engine yet")


def _read_all(connection: sqlite3.Connection) -> dict[str, tuple[str, int]]:
    rows = connection.execute("SELECT name, id, created_ns FROM networks")
    return {name: (identity, created) for name, identity, created in rows}


def _insert_all(connection: sqlite3.Connection, networks: dict[str, tuple[str, int]]) -> None:
    connection.executemany(
        "INSERT INTO networks (name, id, created_ns) VALUES (?, ?, ?)",
        [(name, identity, created) for name, (identity, created) in networks.items()],
    )
