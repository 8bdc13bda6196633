"""The bridges of one instance: the default one, and one for each bridge network that a user made.

Laws: those of ``Bridge``; besides
- The state database remembers the default bridge's subnet, so that it stays the same over reboots while it is
  free. What a user-defined network is, the engine remembers, and says so by ``add`` before ``start``.
- The firewall is watched: when somebody flushes or changes rules, ours are put back (``firewall.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from sampan.errors import Unavailable
from sampan.linux import nfnetlink
from sampan.linux.netlink import Netlink
from sampan.network import forwarding, host
from sampan.network.bridge import Bridge, Plan
from sampan.network.egress import EgressRules
from sampan.network.forwarding import Forwarding
from sampan.network.host import Site
from sampan.network.naming import bridge_name
from sampan.network.published import PublishedPorts
from sampan.network.segment import Segment
from sampan.network.shared import DEFAULT_DIRECTORY, SharedDirectory

if TYPE_CHECKING:
    from sampan.sandbox.messages import Endpoint
    from sampan.state import Database

logger = logging.getLogger(__name__)

DEFAULT = "bridge"
_FIREWALL_PAUSE = 0.5  # seconds over which changes of the firewall are gathered before ours are checked


class Bridges:
    """All methods are for the event loop's thread. A network is named by its key: "bridge", or its id."""

    def __init__(
        self,
        *,
        data_root: str,
        database: Database,
        plan: Plan | None = None,
        bypass: bool = False,
        shared: str = DEFAULT_DIRECTORY,
    ) -> None:
        """``plan`` of the default bridge; ``bypass``: published ports do, the host's forward rules."""
        self.name = bridge_name(data_root)
        self._bypass = bypass
        self._database = database
        self._shared = SharedDirectory(shared)
        self._default = Bridge(
            plan or Plan(bridge=self.name),
            shared=self._shared,
            bypass=bypass,
            remembered=lambda version: database.read(
                lambda connection: _read_subnet(connection, self._remembered_as(version))
            ),
            remember=self._remember,
        )
        self._bridges: dict[str, Bridge] = {DEFAULT: self._default}
        self.ports = PublishedPorts(self.name)
        self.egress = EgressRules(self.name, own=self._subnets)
        self._refused = ""
        self._monitor: Netlink | None = None
        self._check: asyncio.TimerHandle | None = None
        self._work: set[asyncio.Task[None]] = set()

    @property
    def plan(self) -> Plan:
        """What the default bridge is to be."""
        return self._default.plan

    @property
    def site(self) -> Site | None:
        """The default bridge; None while the host has none of ours."""
        return self._default.site

    @property
    def refusal(self) -> str:
        """Why this host cannot have the default bridge; empty if it has it."""
        return "" if self._default.site is not None else self._refused

    def _subnets(self) -> list[str]:
        """Those of this engine's networks."""
        sites = [bridge.site for bridge in self._bridges.values() if bridge.site is not None]
        return [subnet for site in sites for subnet in (site.subnet, site.subnet6) if subnet]

    @property
    def bypass(self) -> bool:
        """Whether published ports do not obey the host's forward rules."""
        return self._bypass

    def forwarding(self, version: int) -> Forwarding:
        """What the host's own firewall says of forwarded packets. Blocking; OSError."""
        names = [self.name, *(bridge.name for bridge in self._bridges.values())]
        names += self._shared.names()

        def ours(name: str) -> bool:
            return any(name == own or name.startswith((f"{own}: ", f"{own}-")) for own in names)

        return forwarding.look(version, ours=ours)

    def site_of(self, network: str) -> Site | None:
        return self._bridges[network].site

    def endpoints(self, network: str = DEFAULT) -> Mapping[str, Endpoint]:
        """Container id → its endpoint, for every lease on a network."""
        found = self._bridges.get(network)
        return found.endpoints() if found is not None else {}

    async def start(self) -> None:
        """Make or find the bridges. A host that cannot have one is logged, not raised: see ``connect``."""
        await self._remove_strays()
        for bridge in self._bridges.values():
            try:
                await bridge.make()
            except Unavailable as reason:
                logger.warning("%s", reason)
                if bridge is self._default:
                    self._refused = str(reason)
        if self._default.site is not None:
            self._start_watching()

    async def _remove_strays(self) -> None:
        """Remove the bridges that a crash left: of networks that are not there any more, or not yet."""
        known = {bridge.name for bridge in self._bridges.values()}
        for name in self._shared.owned(self.name):
            if name not in known:
                try:
                    await asyncio.to_thread(host.remove_ports, name, None)
                    await Bridge(Plan(bridge=name), shared=self._shared).purge()
                except (Unavailable, OSError) as reason:
                    logger.warning("%s", reason)

    def add(self, network: str, plan: Plan) -> None:
        """Know a user-defined network; it is made on the host at ``start`` or ``make``."""
        made = Bridge if plan.driver == DEFAULT else Segment
        self._bridges[network] = made(plan, shared=self._shared, owner=self.name, bypass=self._bypass)

    async def make(self, network: str, others: Iterable[str] = ()) -> Site:
        """Make the bridge of a network that was added; Unavailable if that cannot be."""
        site = await self._bridges[network].make(others)
        self._start_watching()
        return site

    async def remove(self, network: str) -> None:
        """Take the network from the host and forget it. Conflict while containers are connected."""
        bridge = self._bridges[network]
        await bridge.sweep()
        await bridge.purge()
        del self._bridges[network]

    def settle(self, network: str, plan: Plan) -> None:
        """What the network is to be from its next making on: on the subnet that it got."""
        self._bridges[network].plan = plan

    def discard(self, network: str) -> None:
        """Forget a network that did not come to be."""
        self._bridges.pop(network, None)

    async def connect(
        self,
        container_id: str,
        *,
        network: str = DEFAULT,
        name: str = "eth0",
        mac: str | None = None,
        addresses: Sequence[str] = (),
    ) -> Endpoint:
        """Lease an address; see ``Bridge.connect``."""
        # Its interfaces on other networks may not be there yet.
        avoid = [
            bridge.endpoints()[container_id].host_name
            for bridge in self._bridges.values()
            if container_id in bridge.endpoints()
        ]
        endpoint = await self._bridges[network].connect(
            container_id, name=name, mac=mac, addresses=addresses, avoid=avoid
        )
        if self._monitor is None:
            self._start_watching()
        return endpoint

    async def release(self, container_id: str, network: str | None = None) -> None:
        """Give the container's address back, on all networks unless one is named. Succeeds if it has none."""
        for bridge in self._chosen(network):
            await bridge.release(container_id)

    async def sweep(self, network: str | None = None, container_id: str | None = None) -> None:
        """Delete the interfaces of released leases, or of one container's, that still exist."""
        for bridge in self._chosen(network):
            await bridge.sweep(container_id)

    def _chosen(self, network: str | None) -> list[Bridge]:
        return list(self._bridges.values()) if network is None else [self._bridges[network]]

    async def reconcile(self, live: Mapping[str, int]) -> None:
        """Give the interfaces found at the start to the containers that live; remove all the others.

        ``live``: container id → pid of its first process.
        """
        for bridge in list(self._bridges.values()):
            await bridge.reconcile(live)

    async def close(self) -> None:
        """Stop watching; remove the bridges that nobody is on, and all that belongs to them."""
        await self._stop_watching()
        await self.ports.close()
        self.egress.close()
        for bridge in self._bridges.values():
            await bridge.close()

    async def purge(self) -> None:
        """Remove the default bridge, its rules and registration. Conflict while containers are connected."""
        await self._stop_watching()
        await self._default.purge()

    async def _remember(self, subnet: str) -> None:
        name = self._remembered_as(6 if ":" in subnet else 4)
        await self._database.write(lambda connection: _write_subnet(connection, name, subnet))

    def _remembered_as(self, version: int) -> str:
        return self.name if version == 4 else f"{self.name} IPv6"

    # ---- watching the firewall -----------------------------------------------------------------------------

    def _start_watching(self) -> None:
        if self._monitor is None:
            self._monitor = Netlink(nfnetlink.NETLINK_NETFILTER, groups=(nfnetlink.GROUP_NFTABLES,))
            asyncio.get_running_loop().add_reader(self._monitor.fileno(), self._heard)

    async def _stop_watching(self) -> None:
        if self._monitor is not None:
            asyncio.get_running_loop().remove_reader(self._monitor.fileno())
            self._monitor.close()
            self._monitor = None
        if self._check is not None:
            self._check.cancel()
            self._check = None
        if self._work:
            await asyncio.gather(*self._work)

    def _heard(self) -> None:
        assert self._monitor is not None
        # Lost messages (ENOBUFS) say as much as any: something changed.
        with contextlib.suppress(OSError):
            self._monitor.drain()
        if self._check is None:
            loop = asyncio.get_running_loop()
            self._check = loop.call_later(_FIREWALL_PAUSE, self._start_work, self.check_firewall)

    async def check_firewall(self) -> None:
        """Put back what is missing of our rules."""
        self._check = None
        for bridge in list(self._bridges.values()):
            await bridge.check_firewall()
        await self.ports.check()
        await self.egress.check()

    def _start_work(self, work: Callable[[], Coroutine[object, object, None]]) -> None:
        task = asyncio.get_running_loop().create_task(work())
        self._work.add(task)
        task.add_done_callback(self._work.discard)


def _read_subnet(connection: sqlite3.Connection, name: str) -> str | None:
    row = connection.execute("SELECT subnet FROM bridges WHERE name = ?", (name,)).fetchone()
    return str(row[0]) if row else None


def _write_subnet(connection: sqlite3.Connection, name: str, subnet: str) -> None:
    connection.execute("INSERT OR REPLACE INTO bridges (name, subnet) VALUES (?, ?)", (name, subnet))
