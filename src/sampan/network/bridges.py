"""The instance's default bridge, and who holds which address on it.

Laws:
- The kernel is the record of leases: the host end of each container's veth pair carries address and mac in
  its alias (``sandbox/interfaces.py``). A new daemon reads them back; nothing is written at a start.
- The state database remembers only the subnet, so that it stays the same over reboots while it is free.
- A host that cannot have the bridge (no nf_tables, no permission) makes ``connect`` raise Unavailable with
  the reason; every other network mode goes on working. Each ``connect`` tries again.
- With nobody on the bridge, ``close`` takes away all that the instance put on the host; with containers
  running everything stays for the next daemon.
- The firewall is watched: when somebody flushes or changes rules, ours are put back (``firewall.py``).

Kernel calls that may wait for locks run in a thread; the event loop itself makes only cheap look-ups.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from sampan.errors import Conflict, Unavailable
from sampan.linux import nfnetlink, rtnetlink
from sampan.linux.netlink import Netlink
from sampan.network import host
from sampan.network.addresses import Addresses, mac_of
from sampan.network.firewall import BridgeFirewall, Policy
from sampan.network.naming import bridge_name, host_end_names, is_host_end_of
from sampan.network.shared import DEFAULT_DIRECTORY, SharedDirectory
from sampan.sandbox.messages import Endpoint

if TYPE_CHECKING:
    from sampan.state import Database

logger = logging.getLogger(__name__)

MOST_PORTS = 1023
"""The kernel's limit of ports on one bridge."""

_SWEEP_AFTER = 10.0  # seconds that the kernel gets to take a dead container's interface down by itself
_FIREWALL_PAUSE = 0.5  # seconds over which changes of the firewall are gathered before ours are checked


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The bridge as it stands: ``subnet`` in CIDR notation, ``mtu`` in bytes."""

    bridge: str
    subnet: str
    gateway: str
    mtu: int


class Bridges:
    """One instance's default bridge. All methods are for the event loop's thread."""

    def __init__(self, *, data_root: str, database: Database, shared: str = DEFAULT_DIRECTORY) -> None:
        self.name = bridge_name(data_root)
        self._database = database
        self._shared = SharedDirectory(shared)
        self._firewall = BridgeFirewall(self.name)
        self._site: Site | None = None
        self._addresses: Addresses | None = None
        self._leases: dict[str, Endpoint] = {}
        self._unclaimed: dict[str, Endpoint] = {}
        self._raising = asyncio.Lock()
        self._stale: set[str] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._monitor: Netlink | None = None
        self._check: asyncio.TimerHandle | None = None
        self._work: set[asyncio.Task[None]] = set()

    @property
    def site(self) -> Site | None:
        """The bridge; None while the host has none of ours."""
        return self._site

    def endpoints(self) -> Mapping[str, Endpoint]:
        """Container id → its endpoint, for every lease."""
        return self._leases

    async def start(self) -> None:
        """Make or find the bridge. A host that cannot have it is logged, not raised: see ``connect``."""
        try:
            await self._raise()
        except Unavailable as reason:
            logger.warning("%s", reason)

    async def connect(self, container_id: str, *, mac: str | None = None) -> Endpoint:
        """Lease an address to the container and describe its interface; a former lease of it is released.

        Raises Unavailable when the host cannot have a bridge or nothing is free.
        """
        if self._site is not None and not rtnetlink.link_index(self.name):
            logger.warning("network bridge %s was deleted; it is made again", self.name)
            self._site = None
        if self._site is None:
            await self._raise()
        site, addresses = self._site, self._addresses
        assert site is not None
        assert addresses is not None
        self._forget(container_id)
        if len(addresses) >= MOST_PORTS:
            raise Unavailable(f"network bridge is full: a bridge has room for {MOST_PORTS} containers")
        host_name = self._free_host_name(container_id)
        address = addresses.lease()
        if address is None:
            raise Unavailable("no available IPv4 addresses on this network's address pools: bridge")
        endpoint = Endpoint(
            bridge=site.bridge,
            host_name=host_name,
            name="eth0",
            mac=mac or mac_of(address),
            addresses=(f"{address}/{addresses.subnet.prefixlen}",),
            gateway=site.gateway,
            mtu=site.mtu,
        )
        self._leases[container_id] = endpoint
        return endpoint

    async def release(self, container_id: str) -> None:
        """Give the container's address back. Succeeds if it has none.

        Its interface goes with its network namespace; what is still there a while later is deleted.
        """
        self._forget(container_id)

    async def reconcile(self, live_ids: Iterable[str]) -> None:
        """Give the interfaces found at the start to the containers that live; remove all the others."""
        for container_id in live_ids:
            held = [name for name in self._unclaimed if is_host_end_of(name, container_id)]
            if held and container_id not in self._leases:
                self._leases[container_id] = self._unclaimed.pop(held[-1])
        for endpoint in self._unclaimed.values():
            self._drop(endpoint)
        self._unclaimed.clear()
        await self.sweep()

    async def sweep(self) -> None:
        """Delete the interfaces of released leases that still exist."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        names, self._stale = self._stale, set()
        if names:
            try:
                await asyncio.to_thread(host.remove_ports, self.name, names)
            except OSError as error:
                logger.warning("interfaces %s cannot be deleted: %s", ", ".join(sorted(names)), error)

    async def close(self) -> None:
        """Stop watching; with nobody on the bridge, remove it and all that belongs to it."""
        await self._stop_watching()
        await self.sweep()
        if self._site is not None and not self._leases and not self._unclaimed:
            try:
                await self.purge()
            except Unavailable as reason:
                logger.warning("%s", reason)

    async def purge(self) -> None:
        """Remove bridge, rules and registration from the host. Conflict while containers are connected."""
        if self._leases or self._unclaimed:
            raise Conflict("network bridge has active endpoints")
        await self._stop_watching()
        async with self._raising:
            self._site = self._addresses = None
            await asyncio.to_thread(self._remove_all)

    # ---- raising the bridge --------------------------------------------------------------------------------

    async def _raise(self) -> None:
        async with self._raising:
            if self._site is not None:
                return
            remembered = self._database.read(lambda connection: _read_subnet(connection, self.name))
            site, found = await asyncio.to_thread(self._raise_blocking, remembered)
            if site.subnet != remembered:
                await self._database.write(
                    lambda connection: _write_subnet(connection, self.name, site.subnet)
                )
            self._addresses = Addresses(IPv4Network(site.subnet))
            self._site = site
            self._adopt(found)
            self._start_watching()

    def _raise_blocking(self, remembered: str | None) -> tuple[Site, list[Endpoint]]:
        try:
            with self._shared.lock(), Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
                others = self._shared.subnets(but=self.name).values()
                made, site = host.ensure_bridge(netlink, self.name, remembered=remembered, others=others)
                try:
                    self._shared.enable_forwarding()
                    self._firewall.ensure(Policy(bridge=self.name, subnet=site[0]))
                    self._shared.register(self.name, site[0])
                except OSError:
                    if made:
                        host.remove_bridge(netlink, self.name)
                        with contextlib.suppress(OSError):
                            self._firewall.remove()
                        self._shared.restore_forwarding(others_need_it=host.forwards_for_others(netlink))
                    raise
                found = host.plugged_endpoints(netlink, self.name)
        except OSError as error:
            reason = error.strerror or str(error)
            raise Unavailable(f"network bridge is not available on this host: {reason}") from error
        subnet, gateway, mtu = site
        return Site(bridge=self.name, subnet=subnet, gateway=gateway, mtu=mtu), found

    def _remove_all(self) -> None:
        try:
            with self._shared.lock(), Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
                host.remove_bridge(netlink, self.name)
                self._shared.forget(self.name)
                self._firewall.remove()
                self._shared.restore_forwarding(others_need_it=host.forwards_for_others(netlink))
        except OSError as error:
            raise Unavailable(f"network bridge cannot be removed: {error}") from error

    # ---- leases --------------------------------------------------------------------------------------------

    def _adopt(self, found: Iterable[Endpoint]) -> None:
        assert self._addresses is not None
        for endpoint in (*found, *self._leases.values()):
            for cidr in endpoint.addresses:
                self._addresses.claim(cidr.partition("/")[0])
            if endpoint.host_name not in {lease.host_name for lease in self._leases.values()}:
                self._unclaimed[endpoint.host_name] = endpoint

    def _free_host_name(self, container_id: str) -> str:
        for name in host_end_names(container_id):
            if name not in self._unclaimed and not rtnetlink.link_index(name):
                return name
        raise Unavailable("the interfaces of this container's former runs are still being removed")

    def _forget(self, container_id: str) -> None:
        endpoint = self._leases.pop(container_id, None)
        if endpoint is not None:
            self._drop(endpoint)

    def _drop(self, endpoint: Endpoint) -> None:
        if self._addresses is not None:
            for cidr in endpoint.addresses:
                self._addresses.release(cidr.partition("/")[0])
        self._stale.add(endpoint.host_name)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(_SWEEP_AFTER, self._start_work, self.sweep)

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
        if self._site is None:
            return
        policy = Policy(bridge=self.name, subnet=self._site.subnet)
        try:
            if await asyncio.to_thread(self._firewall.ensure, policy):
                logger.info("firewall rules of network bridge %s were put back", self.name)
        except OSError as error:
            logger.warning("firewall rules of network bridge %s are missing: %s", self.name, error)

    def _start_work(self, work: Callable[[], Coroutine[object, object, None]]) -> None:
        task = asyncio.get_running_loop().create_task(work())
        self._work.add(task)
        task.add_done_callback(self._work.discard)


def _read_subnet(connection: sqlite3.Connection, name: str) -> str | None:
    row = connection.execute("SELECT subnet FROM bridges WHERE name = ?", (name,)).fetchone()
    return str(row[0]) if row else None


def _write_subnet(connection: sqlite3.Connection, name: str, subnet: str) -> None:
    connection.execute("INSERT OR REPLACE INTO bridges (name, subnet) VALUES (?, ?)", (name, subnet))
