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
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from sampan.errors import Conflict, Forbidden, InvalidArgument, Unavailable
from sampan.linux import rtnetlink
from sampan.linux.netlink import Netlink
from sampan.network import host
from sampan.network.addresses import Addresses, Range, mac_of
from sampan.network.firewall import BridgeFirewall, Policy
from sampan.network.host import Site
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

    With another ``driver`` and its ``mode``, ``bridge`` is the link of the host that containers share
    (``segment.py``); what is said of the firewall does not count then.

    ``ranges``: one for each version of IP that it has. ``mtu`` 0: that of the way out. ``internal``: nothing
    leaves, nothing comes in. ``isolated``: containers do not reach each other. ``masquerade`` and
    ``masquerade6``: they are seen under the host's address.
    """

    bridge: str
    network: str = "bridge"
    driver: str = "bridge"
    mode: str = ""
    ranges: tuple[Range, ...] = (Range(),)
    mtu: int = 0
    internal: bool = False
    isolated: bool = False
    masquerade: bool = True
    masquerade6: bool = True

    def addresses(self, subnet: str) -> Addresses:
        """The addresses of one of its subnets."""
        version = 6 if ":" in subnet else 4
        found = next((one for one in self.ranges if one.version == version), Range(version=version))
        return found.addresses(subnet)

    def policy(self, site: Site) -> Policy:
        return Policy(
            bridge=self.bridge,
            subnet=site.subnet,
            subnet6=site.subnet6,
            internal=self.internal,
            masquerade=self.masquerade,
            masquerade6=self.masquerade6,
        )


class Bridge:
    """All methods are for the event loop's thread.

    ``owner`` is the name of the instance's default bridge, its own if empty. ``remembered`` is the subnet
    that a plan without one had before for a version of IP, ``remember`` is told which one it got.
    ``bypass``: see ``BridgeFirewall``.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        shared: SharedDirectory,
        owner: str = "",
        bypass: bool = False,
        remembered: Callable[[int], str | None] = lambda _: None,
        remember: Callable[[str], Coroutine[object, object, None]] | None = None,
    ) -> None:
        self.plan = plan
        self.name = plan.bridge
        self._shared = shared
        self._owner = owner or plan.bridge
        self._remembered = remembered
        self._remember = remember
        self._firewall = BridgeFirewall(self.name, bypass=bypass)
        self._site: Site | None = None
        self._addresses: dict[int, Addresses] = {}  # by version of IP
        self._leases: dict[str, Endpoint] = {}
        self._unclaimed: dict[str, Endpoint] = {}
        self._raising = asyncio.Lock()
        self._stale: set[str] = set()
        self._sweeping: set[str] = set()
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
        addresses: Sequence[str] = (),
        avoid: Iterable[str] = (),
    ) -> Endpoint:
        """Lease addresses to the container and describe its interface; a former lease of it is released.

        ``addresses`` are those that it wants, at most one of each version. ``avoid`` are names that its host
        end must not have.

        Raises Unavailable when the host cannot have a bridge or nothing is free; Forbidden or
        InvalidArgument, as Docker does, when an address is taken or of another network.
        """
        if self._site is not None and not rtnetlink.link_index(self.name):
            logger.warning("network bridge %s was deleted; it is made again", self.name)
            self._site = None
        if self._site is None:
            await self.make()
        site = self._site
        assert site is not None
        self._forget(container_id)
        host_name = self._free_host_name(container_id, avoid)
        leased = self._lease_each(addresses)
        mac = mac or mac_of(leased[0].partition("/")[0])
        self._leases[container_id] = endpoint = self._endpoint(site, host_name, name, mac, leased)
        return endpoint

    def _endpoint(
        self, site: Site, host_name: str, name: str, mac: str, addresses: tuple[str, ...]
    ) -> Endpoint:
        routed = not self.plan.internal
        return Endpoint(
            bridge=site.bridge,
            host_name=host_name,
            name=name,
            mac=mac,
            addresses=addresses,
            gateway=(site.gateway or None) if routed else None,
            gateway6=(site.gateway6 or None) if routed else None,
            mtu=site.mtu,
            isolated=self.plan.isolated,
        )

    def _lease_each(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """An address of each version that the network has, in CIDR notation."""
        for address in wanted:
            if not any(address in addresses for addresses in self._addresses.values()):
                raise InvalidArgument(
                    f"invalid config for network {self.plan.network}: invalid endpoint settings:\n"
                    f"no configured subnet contains IP address {address}"
                )
        leased: list[str] = []
        try:
            for addresses in self._addresses.values():
                own = next((address for address in wanted if address in addresses), "")
                leased.append(f"{self._lease(addresses, own)}/{addresses.subnet.prefixlen}")
        except BaseException:
            self._give_back(leased)
            raise
        return tuple(leased)

    def _lease(self, addresses: Addresses, wanted: str) -> str:
        if not wanted:
            found = addresses.lease()
            if found is None:
                raise Unavailable(
                    f"no available IPv{addresses.subnet.version} addresses on this network's address pools: "
                    f"{self.plan.network}"
                )
            return found
        if not addresses.claim(wanted):
            raise Forbidden("Address already in use")
        return str(ip_address(wanted))

    async def release(self, container_id: str) -> None:
        """Give the container's address back. Succeeds if it has none.

        Its interface goes with its network namespace; what is still there a while later is deleted.
        """
        self._forget(container_id)

    async def reconcile(self, live: Mapping[str, int]) -> None:
        """Give the interfaces found at the start to the containers that live; remove all the others.

        ``live``: container id → pid of its first process.
        """
        if self._unclaimed:
            for container_id in live:
                held = [name for name in self._unclaimed if is_host_end_of(name, container_id)]
                if held and container_id not in self._leases:
                    self._leases[container_id] = self._unclaimed.pop(held[-1])
            for endpoint in self._unclaimed.values():
                self._drop(endpoint)
            self._unclaimed.clear()
        await self.sweep()

    async def sweep(self, container_id: str | None = None) -> None:
        """Delete the interfaces of released leases, or of one container's, that still exist.

        Those of containers that have ended go by themselves: deleting them too would hold the kernel's lock
        of all interfaces once for each.
        """
        if container_id is not None:
            names = {name for name in self._stale if is_host_end_of(name, container_id)}
        else:
            names = self._stale
            if self._sweep is not None:
                self._sweep.cancel()
                self._sweep = None
        self._stale = self._stale - names
        if names:
            self._sweeping |= names
            try:
                await asyncio.to_thread(host.remove_ports, self.name, names)
            except OSError as error:
                logger.warning("interfaces %s cannot be deleted: %s", ", ".join(sorted(names)), error)
            finally:
                self._sweeping -= names

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
            self._site = None
            self._addresses = {}
            if self._sweep is not None:
                self._sweep.cancel()
                self._sweep = None
            await asyncio.to_thread(self._remove_all)

    async def check_firewall(self) -> None:
        """Put back what is missing of our rules."""
        if self._site is None:
            return
        try:
            if await asyncio.to_thread(self._firewall.ensure, self.plan.policy(self._site)):
                logger.info("firewall rules of network bridge %s were put back", self.name)
        except OSError as error:
            logger.warning("firewall rules of network bridge %s are missing: %s", self.name, error)

    # ---- raising the bridge --------------------------------------------------------------------------------

    async def make(self, others: Iterable[str] = ()) -> Site:
        """Make or find the bridge. ``others`` are further subnets that it must not overlap."""
        async with self._raising:
            if self._site is not None:
                return self._site
            site, found = await asyncio.to_thread(self._raise_blocking, tuple(others))
            for subnet in (site.subnet, site.subnet6):
                version = 6 if ":" in subnet else 4
                if subnet and self._remember is not None and subnet != self._remembered(version):
                    await self._remember(subnet)
            self._addresses = {
                version: self.plan.addresses(subnet)
                for version, subnet in ((4, site.subnet), (6, site.subnet6))
                if subnet
            }
            self._site = site
            self._adopt(found)
            return site

    def _raise_blocking(self, more: Iterable[str]) -> tuple[Site, list[Endpoint]]:
        plan = self.plan
        try:
            with self._shared.lock(), Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
                # Before it is made: what a crash leaves is found again by its registration.
                if rtnetlink.link_index(self.name) == 0:
                    self._shared.register(self.name, "", owner=self._owner)
                registered = self._shared.subnets(but=self.name).values()
                made, site = host.ensure_bridge(
                    netlink,
                    self.name,
                    ranges=plan.ranges,
                    mtu=plan.mtu,
                    remembered=self._remembered,
                    others=(*more, *(subnet for subnets in registered for subnet in subnets)),
                    seed=self._owner,
                )
                try:
                    self._settle(netlink, site)
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
        return site, found

    def _settle(self, netlink: Netlink, site: Site) -> None:
        """What the host has to know of a bridge that stands."""
        if site.subnet:
            self._shared.enable_forwarding()
        if site.subnet6:
            self._shared.enable_forwarding6(host.hearing(netlink))
        self._firewall.ensure(self.plan.policy(site))
        self._shared.register(self.name, site.subnet, subnet6=site.subnet6, owner=self._owner)

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
        for endpoint in (*found, *self._leases.values()):
            for cidr in endpoint.addresses:
                for addresses in self._addresses.values():
                    addresses.claim(cidr.partition("/")[0])
            if endpoint.host_name not in {lease.host_name for lease in self._leases.values()}:
                self._unclaimed[endpoint.host_name] = endpoint

    def _free_host_name(self, container_id: str, avoid: Iterable[str]) -> str:
        """Raises Unavailable when the bridge is full, or too many former interfaces are still there."""
        if len(self._leases) + len(self._unclaimed) >= MOST_PORTS:
            raise Unavailable(
                f"network {self.plan.network} is full: a bridge has room for {MOST_PORTS} containers"
            )
        for name in host_end_names(container_id):
            if name in self._unclaimed or name in self._sweeping or name in avoid:
                continue
            if not rtnetlink.link_index(name):
                # Its former interface is gone; the new one is not to be swept in its place.
                self._stale.discard(name)
                return name
        raise Unavailable("the interfaces of this container's former runs are still being removed")

    def _forget(self, container_id: str) -> None:
        endpoint = self._leases.pop(container_id, None)
        if endpoint is not None:
            self._drop(endpoint)

    def _drop(self, endpoint: Endpoint) -> None:
        self._give_back(endpoint.addresses)
        self._stale.add(endpoint.host_name)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(_SWEEP_AFTER, self._start_sweep)

    def _give_back(self, cidrs: Iterable[str]) -> None:
        for cidr in cidrs:
            for addresses in self._addresses.values():
                addresses.release(cidr.partition("/")[0])

    def _start_sweep(self) -> None:
        task = asyncio.get_running_loop().create_task(self.sweep())
        self._work.add(task)
        task.add_done_callback(self._work.discard)
