"""What a user sees of networks: the three that always exist, and those that users make.

Laws: a network's id is made once and kept, so that what clients remembered stays true; a network is recorded
after its bridge stands and forgotten before its bridge goes, so that a crash leaves a bridge that the next
daemon removes, or a record of which it makes the bridge again; who is on a network is read from the running
containers themselves.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_network
from typing import TYPE_CHECKING

import msgspec

from sampan.engine import networkplans
from sampan.engine.lookups import created_before
from sampan.engine.model import Container, Event, EventType, Filters
from sampan.engine.networkplans import BRIDGE, DRIVERS, HOST, NONE, Definition, NetworkRequest, Pool
from sampan.errors import Conflict, Forbidden, InvalidArgument, NotFound
from sampan.linux import rtnetlink
from sampan.state.database import unreadable

if TYPE_CHECKING:
    from sampan.network import Bridges, Plan
    from sampan.state import Database

__all__ = ["BRIDGE", "HOST", "NONE", "Member", "Network", "NetworkRequest", "Networks"]

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
    """A network. ``pools`` are its subnets; none where the driver has none, or none for now."""

    id: str
    name: str
    driver: str
    created_ns: int
    ipv4: bool = True
    ipv6: bool = False
    pools: tuple[Pool, ...] = ()
    ipam_options: dict[str, str] | None = None
    config_only: bool = False
    config_from: str = ""
    internal: bool = False
    attachable: bool = False
    options: dict[str, str] = msgspec.field(default_factory=dict)
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    members: tuple[Member, ...] = ()

    @property
    def key(self) -> str:
        """How ``Bridges`` knows it."""
        return BRIDGE if self.name == BRIDGE else self.id

    @property
    def custom(self) -> bool:
        return self.name not in DRIVERS


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
        self._custom: dict[str, Definition] = {}  # by name
        self._changing = asyncio.Lock()

    async def start(self) -> None:
        """Load the networks' identities, made on the first start. Before any other call, and before the
        bridges are."""
        known = self._database.read(_read_all)
        missing = {name: (secrets.token_hex(32), time.time_ns()) for name in DRIVERS if name not in known}
        if missing:
            await self._database.write(lambda connection: _insert_all(connection, missing))
        self._identities = {**known, **missing}
        self._custom = {found.name: found for found in self._database.read(_read_custom)}
        for found in self._custom.values():
            if not found.config_only:
                self._bridges.add(found.id, found.plan())

    def id_of(self, name: str) -> str:
        """The id of a network by its full name; empty if there is none."""
        if name in self._custom:
            return self._custom[name].id
        return self._identities.get(name, ("", 0))[0]

    def custom(self, ref: str) -> Network | None:
        """A user-defined network, by name or id; None if there is none."""
        found = self._custom.get(ref) or next((one for one in self._custom.values() if one.id == ref), None)
        return self._shown(found) if found is not None else None

    def list(self, filters: Filters | None = None) -> Sequence[Network]:
        """Those that every filter lets through, without their members."""
        filters = filters or Filters()
        filters.accept(_LIST_FILTERS)
        for kind in filters.get("type"):
            if kind not in ("custom", "builtin"):
                raise InvalidArgument(f"invalid filter: 'type'='{kind}'")
        dangling = filters.flag("dangling")
        names = sorted((*DRIVERS, *self._custom))
        found = [self._network(name) for name in names]
        return [
            network
            for network in found
            if _passes(network, filters)
            # Networks that always exist are never dangling.
            and (dangling is None or dangling is (network.custom and not self._in_use(network)))
        ]

    def get(self, ref: str) -> Network:
        """By name, id or unique id prefix, with its members. NotFound in Docker's words."""
        name = self._resolve(ref)
        return msgspec.structs.replace(self._network(name), members=tuple(self._members(name)))

    def find(self, ref: str) -> Network:
        """``get`` without the members."""
        return self._network(self._resolve(ref))

    async def create(self, request: NetworkRequest) -> Network:
        """Make a network. Conflict when its name is taken, Forbidden when its subnet is."""
        source = self._custom.get(request.config_from.network) if request.config_from is not None else None
        request = networkplans.derived(request, source)
        networkplans.check(request)
        async with self._changing:
            if request.name in self._custom:
                raise Conflict(f"network with name {request.name} already exists")
            definition = _definition(request)
            if definition.config_only:
                await self._database.write(lambda connection: _insert_custom(connection, definition))
                self._custom[definition.name] = definition
                return self._shown(definition)
            self._check_bridge(definition)
            self._check_pool(definition)
            self._bridges.add(definition.id, definition.plan())
            try:
                site = await self._bridges.make(
                    definition.id, [subnet for one in self._custom.values() for subnet in _subnets(one)]
                )
                # From now on it has these subnets for good.
                definition = msgspec.structs.replace(definition, subnet=site.subnet, subnet6=site.subnet6)
                made = definition
                await self._database.write(lambda connection: _insert_custom(connection, made))
            except BaseException:
                if self._bridges.site_of(definition.id) is not None:
                    await self._bridges.remove(definition.id)
                self._bridges.discard(definition.id)
                raise
            self._bridges.settle(definition.id, definition.plan())
            self._custom[definition.name] = definition
        network = self._shown(definition)
        self._tell("create", network)
        return network

    async def remove(self, ref: str) -> None:
        """Forbidden while a running container is on it, and for what always exists."""
        name = self._resolve(ref)
        if name not in self._custom:
            raise Forbidden(f"{name} is a pre-defined network and cannot be removed")
        async with self._changing:
            network = self._network(self._resolve(ref))
            if any(other.config_from == network.name for other in self._custom.values()):
                raise Forbidden(
                    f'error while removing network: configuration network "{network.name}" is in use'
                )
            if self._bridges.endpoints(network.key):
                raise Forbidden(
                    f"error while removing network: network {network.name} id {network.id} "
                    "has active endpoints"
                )
            await self._database.write(lambda connection: _delete_custom(connection, network.id))
            del self._custom[network.name]
            if not network.config_only:
                await self._bridges.remove(network.key)
        self._tell("destroy", network)

    async def prune(self, filters: Filters | None = None) -> Sequence[str]:
        """Remove the user-defined networks that no container is on, running or not; their names."""
        filters = filters or Filters()
        filters.accept(_PRUNE_FILTERS)
        before = created_before(filters, time.time_ns())
        removed = []
        for definition in sorted(self._custom.values(), key=lambda one: one.created_ns):
            network = self._shown(definition)
            if (
                network.config_only
                or self._in_use(network)
                or (before is not None and network.created_ns >= before)
                or not filters.matches_labels(network.labels)
                or ("label!" in filters and filters.matches_labels(network.labels, "label!"))
            ):
                continue
            try:
                await self.remove(network.id)
            except (Forbidden, NotFound):  # somebody was faster
                continue
            removed.append(network.name)
        self._publish(
            Event(type=EventType.NETWORK, action="prune", actor_id="", attributes={"reclaimed": "0"})
        )
        return tuple(removed)

    def _check_bridge(self, definition: Definition) -> None:
        """Raise Forbidden where another network, or somebody else, has a bridge of this name."""
        bridge = definition.bridge
        for other in self._custom.values():
            if other.bridge != bridge:
                continue
            if definition.driver != BRIDGE:
                raise Forbidden(f"network {other.id} is already using parent interface {bridge}")
            raise Forbidden(
                f"cannot create network {definition.id} ({bridge}): conflicts with network {other.id} "
                f"({bridge}): networks have same bridge name"
            )
        if definition.driver == BRIDGE and rtnetlink.link_index(bridge):
            raise Forbidden(f"cannot create network {definition.id} ({bridge}): an interface has this name")

    def _check_pool(self, definition: Definition) -> None:
        site = self._bridges.site
        taken = [subnet for other in self._custom.values() for subnet in _subnets(other)]
        taken += [subnet for subnet in (site.subnet, site.subnet6) if subnet] if site else []
        others = [ip_network(other) for other in taken]
        wanted = [ip_network(subnet) for subnet in _subnets(definition)]
        if any(one.version == other.version and one.overlaps(other) for one in wanted for other in others):
            raise Forbidden("invalid pool request: Pool overlaps with other one on this address space")

    def _resolve(self, ref: str) -> str:
        if ref in self._identities or ref in self._custom:
            return ref
        identities = [(name, identity) for name, (identity, _) in self._identities.items()]
        identities += [(name, definition.id) for name, definition in self._custom.items()]
        found = [name for name, identity in identities if ref and identity.startswith(ref)]
        if len(found) > 1:
            raise InvalidArgument(
                f"network {ref} is ambiguous ({len(found)} matches found based on ID prefix)"
            )
        if not found:
            raise NotFound(f"network {ref} not found")
        return found[0]

    def _network(self, name: str) -> Network:
        if name in self._custom:
            return self._shown(self._custom[name])
        identity, created = self._identities[name]
        site = self._bridges.site if name == BRIDGE else None
        pools = [(site.subnet, site.gateway), (site.subnet6, site.gateway6)] if site else []
        return Network(
            id=identity,
            name=name,
            driver=DRIVERS[name],
            created_ns=created,
            ipv6=bool(site and site.subnet6),
            pools=tuple(Pool(subnet=subnet, gateway=gateway) for subnet, gateway in pools if subnet),
            options=_bridge_options(self._bridges.plan, site.mtu if site else 1500) if name == BRIDGE else {},
        )

    def _shown(self, definition: Definition) -> Network:
        return Network(
            id=definition.id,
            name=definition.name,
            driver="null" if definition.config_only else definition.driver,
            created_ns=definition.created_ns,
            config_only=definition.config_only,
            config_from=definition.config_from,
            ipv4=definition.ipv4,
            ipv6=definition.ipv6,
            pools=definition.pools(),
            ipam_options=definition.ipam_options,
            internal=definition.internal,
            attachable=definition.attachable,
            options=definition.options,
            labels=definition.labels,
        )

    def _in_use(self, network: Network) -> bool:
        """Whether a container, running or not, is on it."""
        return any(
            {network.name, network.id} & container.network.networks.keys() for container in self._containers()
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

    def _tell(self, action: str, network: Network) -> None:
        attributes = {"name": network.name, "type": network.driver}
        self._publish(
            Event(type=EventType.NETWORK, action=action, actor_id=network.id, attributes=attributes)
        )


def _definition(request: NetworkRequest) -> Definition:
    ipam = request.ipam or networkplans.Ipam()
    asked = {":" in pool.subnet: pool for pool in ipam.config or ()}
    pool, pool6 = asked.get(False, Pool()), asked.get(True, Pool())
    ipv4, ipv6 = request.enable_ipv4 is not False, bool(request.enable_ipv6)
    return Definition(
        id=secrets.token_hex(32),
        name=request.name,
        created_ns=time.time_ns(),
        ipv4=ipv4,
        ipv6=ipv6,
        config_only=request.config_only,
        config_from=request.config_from.network if request.config_from is not None else "",
        subnet=pool.subnet if ipv4 and not request.config_only else "",
        pool=pool,
        subnet6=pool6.subnet if ipv6 and not request.config_only else "",
        pool6=pool6,
        driver=request.driver or BRIDGE,
        internal=request.internal,
        attachable=request.attachable,
        options=request.options or {},
        ipam_options=ipam.options,
        labels=request.labels or {},
    )


def _subnets(definition: Definition) -> list[str]:
    return [subnet for subnet in (definition.subnet, definition.subnet6) if subnet]


def _bridge_options(plan: Plan, mtu: int) -> dict[str, str]:
    prefix = "com.docker.network."
    return {
        f"{prefix}bridge.default_bridge": "true",
        f"{prefix}bridge.enable_icc": "false" if plan.isolated else "true",
        f"{prefix}bridge.enable_ip_masquerade": "true" if plan.masquerade else "false",
        f"{prefix}bridge.host_binding_ipv4": "0.0.0.0",
        f"{prefix}bridge.name": plan.bridge,
        f"{prefix}driver.mtu": str(mtu),
    }


def _passes(network: Network, filters: Filters) -> bool:
    wanted = {
        "driver": network.driver,
        "scope": "local",
        "type": "custom" if network.custom else "builtin",
    }
    return (
        all(value in filters.get(key) or not filters.get(key) for key, value in wanted.items())
        and _matches(network.name, filters.get("name"))
        and _matches(network.id, filters.get("id"))
        and filters.matches_labels(network.labels or None)
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


def _read_all(connection: sqlite3.Connection) -> dict[str, tuple[str, int]]:
    rows = connection.execute("SELECT name, id, created_ns FROM networks")
    return {name: (identity, created) for name, identity, created in rows}


def _insert_all(connection: sqlite3.Connection, networks: dict[str, tuple[str, int]]) -> None:
    connection.executemany(
        "INSERT INTO networks (name, id, created_ns) VALUES (?, ?, ?)",
        [(name, identity, created) for name, (identity, created) in networks.items()],
    )


def _read_custom(connection: sqlite3.Connection) -> list[Definition]:
    found = []
    for name, document in connection.execute("SELECT name, document FROM user_networks"):
        try:
            found.append(msgspec.msgpack.decode(document, type=Definition))
        except (msgspec.DecodeError, ValueError) as error:
            path = connection.execute("PRAGMA database_list").fetchone()[2]
            raise unreadable(path, f"network {name}", error) from error
    return found


def _insert_custom(connection: sqlite3.Connection, definition: Definition) -> None:
    connection.execute(
        "INSERT INTO user_networks (id, name, bridge, document) VALUES (?, ?, ?, ?)",
        (definition.id, definition.name, definition.bridge, msgspec.msgpack.encode(definition)),
    )


def _delete_custom(connection: sqlite3.Connection, network_id: str) -> None:
    connection.execute("DELETE FROM user_networks WHERE id = ?", (network_id,))
