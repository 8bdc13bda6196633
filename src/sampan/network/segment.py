"""A network whose containers have further interfaces of one of the host's links: macvlan, ipvlan.

They are on the network that the link is on, beside the host, which neither routes nor filters for them and,
by the kernel's own rule, cannot reach them by this link.

Laws: those of ``Bridge`` but for the host's firewall; besides
- An interface exists in its container's network namespace alone, and goes with it. It carries its lease as
  its alias there, where a new daemon reads it.
- A link that was made for a network (a VLAN of another link; one that leads nowhere, for a network without a
  parent) carries ``sampan parent`` as its alias, and goes with the network.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterable, Mapping

from sampan.errors import Unavailable
from sampan.linux import rtnetlink
from sampan.linux.netlink import Netlink, Request
from sampan.network import host
from sampan.network.bridge import Bridge
from sampan.network.host import OWN_PARENT, Site
from sampan.sandbox import interfaces
from sampan.sandbox.messages import Endpoint

DEAD_END = "dm-"
"""How the names of links that lead nowhere begin."""
_TRIAL = "sampan-trial"
_OTHER_END = "p"
_LOST = (errno.EOPNOTSUPP, errno.ENOENT)


def vlan(parent: str) -> tuple[str, int] | None:
    """Link and number of a VLAN's name, ``eth0.10``; None for any other name."""
    link, dot, digits = parent.rpartition(".")
    if not dot or not link or not (digits.isascii() and digits.isdigit()) or not 0 < int(digits[:5]) < 4095:
        return None
    return link, int(digits)


class Segment(Bridge):
    """``plan.bridge`` is the link; see ``Bridge``."""

    def _endpoint(
        self, site: Site, host_name: str, name: str, mac: str, addresses: tuple[str, ...]
    ) -> Endpoint:
        routed = not self.plan.internal
        return Endpoint(
            bridge="",
            host_name="",
            name=name,
            mac="" if self.plan.driver == "ipvlan" else mac,
            addresses=addresses,
            gateway=(site.gateway or None) if routed else None,
            gateway6=(site.gateway6 or None) if routed else None,
            mtu=self.plan.mtu,
            parent=site.bridge,
            kind=self.plan.driver,
            mode=self.plan.mode,
        )

    def _free_host_name(self, container_id: str, avoid: Iterable[str]) -> str:
        return ""

    def _drop(self, endpoint: Endpoint) -> None:
        self._give_back(endpoint.addresses)

    async def check_firewall(self) -> None:
        """There are no rules."""

    async def reconcile(self, live: Mapping[str, int]) -> None:
        """Read the leases of the containers that live from their own interfaces."""
        site = self._site
        for container_id, pid in live.items() if site is not None else ():
            try:
                leases = await asyncio.to_thread(interfaces.inside, pid)
            except OSError:  # it has ended
                continue
            for name, mac, cidrs in leases:
                own = [cidr for cidr in cidrs if self._is_own(cidr)]
                if own and site is not None and container_id not in self._leases:
                    endpoint = self._endpoint(site, "", name, mac, cidrs)
                    self._leases[container_id] = endpoint
                    self._adopt(())

    def _is_own(self, cidr: str) -> bool:
        address, _, _ = cidr.partition("/")
        return any(address in addresses for addresses in self._addresses.values())

    def _raise_blocking(self, more: Iterable[str]) -> tuple[Site, list[Endpoint]]:
        plan = self.plan
        try:
            with self._shared.lock(), Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
                made = not rtnetlink.link_index(self.name)
                if made:
                    # Before it is made: what a crash leaves is found again by its registration.
                    self._shared.register(self.name, "", owner=self._owner)
                try:
                    if made:
                        self._make_parent(netlink)
                    self._try(netlink)
                    chosen = host.choose(
                        netlink, plan.ranges, others=more, remembered=self._remembered, seed=self._owner
                    )
                except OSError:
                    if made:
                        self._unmake(netlink)
                    raise
        except OSError as error:
            reason = error.strerror or str(error)
            raise Unavailable(f"network {plan.network} is not available on this host: {reason}") from error
        return host.site(self.name, plan.mtu, chosen), []

    def _make_parent(self, netlink: Netlink) -> None:
        """A VLAN of another link, or one that leads nowhere."""
        place = vlan(self.name)
        if self.name.startswith(DEAD_END):
            self._make_dead_end(netlink)
        else:
            index = rtnetlink.link_index(place[0]) if place is not None else 0
            if place is None or not index:
                raise OSError(errno.ENODEV, f"-o parent interface was not found on the host: {self.name}")
            request = rtnetlink.child_request(self.name, parent=index, kind="vlan", mode=str(place[1]))
            _perform(netlink, request, lacking="VLANs (8021q)")
        netlink.perform((rtnetlink.set_link_request(name=self.name, alias=OWN_PARENT, up=True),))

    def _make_dead_end(self, netlink: Netlink) -> None:
        """A dummy where the kernel has them; else one end of a pair whose other end nobody uses."""
        (outcome,) = netlink.attempt((rtnetlink.dummy_request(self.name),))
        if outcome is None:
            return
        if outcome.errno not in _LOST:
            raise outcome
        other = f"{self.name[:14]}{_OTHER_END}"
        pair = rtnetlink.veth_request(
            self.name, master=0, mtu=0, peer_name=other, peer_mac="", peer_pid=os.getpid(), up=False
        )
        netlink.perform((pair, rtnetlink.set_link_request(name=other, up=True)))

    def _try(self, netlink: Netlink) -> None:
        """Whether the link takes such children at all; OSError that names what is lacking."""
        index = rtnetlink.link_index(self.name)
        request = rtnetlink.child_request(_TRIAL, parent=index, kind=self.plan.driver, mode=self.plan.mode)
        netlink.attempt((rtnetlink.delete_link_request(name=_TRIAL),))  # of one who died here
        _perform(netlink, request, lacking=f"{self.plan.driver} interfaces")
        netlink.perform((rtnetlink.delete_link_request(name=_TRIAL),))

    def _remove_all(self) -> None:
        try:
            with self._shared.lock(), Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
                self._unmake(netlink)
        except OSError as error:
            raise Unavailable(f"network {self.plan.network} cannot be removed: {error}") from error

    def _unmake(self, netlink: Netlink) -> None:
        host.remove_bridge(netlink, self.name)
        self._shared.forget(self.name)


def _perform(netlink: Netlink, request: Request, *, lacking: str) -> None:
    try:
        netlink.perform((request,))
    except OSError as error:
        if error.errno in _LOST:
            raise OSError(error.errno, f"the kernel has no {lacking}") from error
        raise
