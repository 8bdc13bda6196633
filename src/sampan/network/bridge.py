"""One bridge of this host, and who holds which address on it.

Laws:
- The kernel is the record of leases: the host end of each container's veth pair carries address and mac in
  its alias (``sandbox/interfaces.py``). A new daemon reads them back; nothing is written at a start.
- A host that cannot have the bridge (no nf_tables, no permission) makes ``connect`` raise Unavailable with
  the reason; every other network mode goes on working. Each ``connect`` tries again.
- With nobody on the bridge, ``close`` takes away all that it put on the host; with containers running
  everything stays for the next daemon.

Kernel calls that may wait for locks run in a thread; the event loop itself makes only cheap look-ups.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from sampan.errors import Conflict, Forbidden, InvalidArgument, Unavailable
from sampan.linux import rtnetlink
from sampan.linux.netlink import Netlink
from sampan.network import host
from sampan.network.addresses import Addresses, mac_of
from sampan.network.firewall import BridgeFirewall, Policy
from sampan.network.naming import host_end_names, is_host_end_of
from sampan.network.shared import SharedDirectory
from sampan.sandbox.messages import Endpoint

logger = logging.getLogger(__name__)

MOST_PORTS = 1023
"""The kernel's limit of ports on one bridge."""

_SWEEP_AFTER = 10.0  # seconds that the kernel gets to take a dead container's interface down by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a bridge is to be. ``network`` is the name that users know it by.

    ``subnet`` in CIDR notation, empty: a free one is chosen; ``gateway`` empty: the first address of
    ``pool``, the part from which addresses are taken (empty: all of it). ``reserved`` are given to nobody.
    ``mtu`` 0: that of the way out. ``internal``: nothing leaves, nothing comes in. ``isolated``: containers
    do not reach each other. ``masquerade``: they are seen under the host's address.
    """

    bridge: str
    network: str = "bridge"
    subnet: str = ""
    gateway: str = ""
    pool: str = ""
    reserved: tuple[str, ...] = ()
    mtu: int = 0
    internal: bool = False
    isolated: bool = False
    masquerade: bool = True

    def addresses(self, subnet: str) -> Addresses:
        return Addresses(
            IPv4Network(subnet),
            gateway=self.gateway,
            pool=IPv4Network(self.pool) if self.pool else None,
            reserved=self.reserved,
        )

    def policy(self, subnet: str) -> Policy:
        return Policy(bridge=self.bridge, subnet=subnet, internal=self.internal, masquerade=self.masquerade)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The bridge as it stands: ``subnet`` in CIDR notation, ``mtu`` in bytes."""

    bridge: str
    subnet: str
    gateway: str
    mtu: int


class Bridge:
    """All methods are for the event loop's thread.

    ``owner`` is the name of the instance's default bridge, its own if empty. ``remembered`` is the subnet
    that a plan without one had before, ``remember`` is told which one it got.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        shared: SharedDirectory,
        owner: str = "",
        remembered: Callable[[], str | None] = lambda: None,
        remember: Callable[[str], Coroutine[object, object, None]] | None = None,
    ) -> None:
        self.plan = plan
        self.name = plan.bridge
        self._shared = shared
        self._owner = owner or plan.bridge
        self._remembered = remembered
        self._remember = remember
        self._firewall = BridgeFirewall(self.name)
        self._site: Site | None = None
        self._addresses: Addresses | None = None
        self._leases: dict[str, Endpoint] = {}
        self._unclaimed: dict[str, Endpoint] = {}
        self._raising = asyncio.Lock()
        self._stale: set[str] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._work: set[asyncio.Task[None]] = set()

    @property
    def site(self) -> Site | None:
        """The bridge; None while the host has none of ours."""
        return self._site

    @property
    def in_use(self) -> bool:
        return bool(self._leases or self._unclaimed)

    def endpoints(self) -> Mapping[str, Endpoint]:
        """Container id → its endpoint, for every lease."""
        return self._leases

    async def connect(
        self,
        container_id: str,
        *,
        name: str = "eth0",
        mac: str | None = None,
        address: str = "",
        avoid: Iterable[str] = (),
    ) -> Endpoint:
        """Lease an address to the container and describe its interface; a former lease of it is released.

        ``avoid`` are names that its host end must not have.

        Raises Unavailable when the host cannot have a bridge or nothing is free; Forbidden or
        InvalidArgument, as Docker does, when ``address`` is taken or of another network.
        """
        if self._site is not None and not rtnetlink.link_index(self.name):
            logger.warning("network bridge %s was deleted; it is made again", self.name)
            self._site = None
        if self._site is None:
            await self.make()
        site, addresses = self._site, self._addresses
        assert site is not None
        assert addresses is not None
        self._forget(container_id)
        if len(addresses) >= MOST_PORTS:
            raise Unavailable(
                f"network {self.plan.network} is full: a bridge has room for {MOST_PORTS} containers"
            )
        host_name = self._free_host_name(container_id, avoid)
        address = self._lease(addresses, address)
        endpoint = Endpoint(
            bridge=site.bridge,
            host_name=host_name,
            name=name,
            mac=mac or mac_of(address),
            addresses=(f"{address}/{addresses.subnet.prefixlen}",),
            gateway=None if self.plan.internal else site.gateway,
            mtu=site.mtu,
            isolated=self.plan.isolated,
        )
        self._leases[container_id] = endpoint
        return endpoint

    def _lease(self, addresses: Addresses, wanted: str) -> str:
        if not wanted:
            found = addresses.lease()
            if found is None:
                raise Unavailable(
                    f"no available IPv4 addresses on this network's address pools: {self.plan.network}"
                )
            return found
        if IPv4Address(wanted) not in addresses.subnet:
            raise InvalidArgument(
                f"invalid config for network {self.plan.network}: invalid endpoint settings:\n"
                f"no configured subnet contains IP address {wanted}"
            )
        if not addresses.claim(wanted):
            raise Forbidden("Address already in use")
        return wanted

    async def release(self, container_id: str) -> None:
        """Give the container's address back. Succeeds if it has none.

        Its interface goes with its network namespace; what is still there a while later is deleted.
        """
        self._forget(container_id)

    async def reconcile(self, live_ids: Iterable[str]) -> None:
        """Give the interfaces found at the start to the containers that live; remove all the others."""
        if self._unclaimed:
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
        """With nobody on the bridge, remove it and all that belongs to it."""
        if self._work:
            await asyncio.gather(*self._work)
        await self.sweep()
        if self._site is not None and not self.in_use:
            try:
                await self.purge()
            except Unavailable as reason:
                logger.warning("%s", reason)

    async def purge(self) -> None:
        """Remove bridge, rules and registration from the host. Conflict while containers are connected."""
        if self.in_use:
            raise Conflict(f"network {self.plan.network} has active endpoints")
        async with self._raising:
            self._site = self._addresses = None
            if self._sweep is not None:
                self._sweep.cancel()
                self._sweep = None
            await asyncio.to_thread(self._remove_all)

    async def check_firewall(self) -> None:
        """Put back what is missing of our rules."""
        if self._site is None:
            return
        try:
            if await asyncio.to_thread(self._firewall.ensure, self.plan.policy(self._site.subnet)):
                logger.info("firewall rules of network bridge %s were put back", self.name)
        except OSError as error:
            logger.warning("firewall rules of network bridge %s are missing: %s", self.name, error)

    # ---- raising the bridge --------------------------------------------------------------------------------

    async def make(self, others: Iterable[str] = ()) -> Site:
        """Make or find the bridge. ``others`` are further subnets that it must not overlap."""
        async with self._raising:
            if self._site is not None:
                return self._site
            remembered = self._remembered()
            site, found = await asyncio.to_thread(self._raise_blocking, remembered, tuple(others))
            if site.subnet != remembered and self._remember is not None:
                await self._remember(site.subnet)
            self._addresses = self.plan.addresses(site.subnet)
            self._site = site
            self._adopt(found)
            return site

    def _raise_blocking(self, remembered: str | None, more: Iterable[str]) -> tuple[Site, list[Endpoint]]:
        plan = self.plan
        try:
            with self._shared.lock(), Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
                # Before it is made: what a crash leaves is found again by its registration.
                if rtnetlink.link_index(self.name) == 0:
                    self._shared.register(self.name, "", owner=self._owner)
                others = (*more, *self._shared.subnets(but=self.name).values())
                made, site = host.ensure_bridge(
                    netlink,
                    self.name,
                    fixed=plan.subnet,
                    gateway_of=lambda subnet: plan.addresses(subnet).gateway,
                    mtu=plan.mtu,
                    remembered=remembered,
                    others=others,
                )
                try:
                    self._shared.enable_forwarding()
                    self._firewall.ensure(plan.policy(site[0]))
                    self._shared.register(self.name, site[0], owner=self._owner)
                except OSError:
                    if made:
                        host.remove_bridge(netlink, self.name)
                        with contextlib.suppress(OSError):
                            self._firewall.remove()
                        self._shared.forget(self.name)
                        self._shared.restore_forwarding(others_need_it=host.forwards_for_others(netlink))
                    raise
                found = host.plugged_endpoints(netlink, self.name, routed=not plan.internal)
        except OSError as error:
            reason = error.strerror or str(error)
            raise Unavailable(f"network {plan.network} is not available on this host: {reason}") from error
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
            raise Unavailable(f"network {self.plan.network} cannot be removed: {error}") from error

    # ---- leases --------------------------------------------------------------------------------------------

    def _adopt(self, found: Iterable[Endpoint]) -> None:
        assert self._addresses is not None
        for endpoint in (*found, *self._leases.values()):
            for cidr in endpoint.addresses:
                self._addresses.claim(cidr.partition("/")[0])
            if endpoint.host_name not in {lease.host_name for lease in self._leases.values()}:
                self._unclaimed[endpoint.host_name] = endpoint

    def _free_host_name(self, container_id: str, avoid: Iterable[str]) -> str:
        for name in host_end_names(container_id):
            if name not in self._unclaimed and name not in avoid and not rtnetlink.link_index(name):
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
            self._sweep = asyncio.get_running_loop().call_later(_SWEEP_AFTER, self._start_sweep)

    def _start_sweep(self) -> None:
        task = asyncio.get_running_loop().create_task(self.sweep())
        self._work.add(task)
        task.add_done_callback(self._work.discard)
