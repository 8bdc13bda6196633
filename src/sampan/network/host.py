"""What a bridge needs of the host's links, addresses and routes. Blocking calls; OSError on failure."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from ipaddress import IPv4Interface, IPv4Network

from sampan.linux import rtnetlink
from sampan.linux.netlink import Netlink
from sampan.network.addresses import choose_subnet
from sampan.network.naming import HOST_PREFIX, bridge_mac
from sampan.network.resolv import host_nameservers
from sampan.sandbox.interfaces import parse_alias
from sampan.sandbox.messages import Endpoint

_ETHERNET_MTU = 1500
_NO_MASTER = 0
_FORWARDED_KINDS = frozenset(("bridge", "veth", "tun", "wireguard", "vxlan", "macvlan", "ipvlan"))


def ensure_bridge(
    netlink: Netlink,
    name: str,
    *,
    remembered: str | None,
    others: Iterable[str],
    gateway_of: Callable[[str], str],
    fixed: str = "",
    mtu: int = 0,
) -> tuple[bool, tuple[str, str, int]]:
    """Find or make the bridge: whether it was made now, and its (subnet, gateway, mtu).

    A bridge that stands keeps its subnet. A new one gets the ``fixed`` one if there is one, else the
    remembered one if that is still free. ``gateway_of`` says which address of a subnet is the bridge's own.
    ``mtu`` 0: that of the way out.
    Leaves nothing on failure; EADDRNOTAVAIL when every pool is taken.
    """
    links = {link.name: link for link in rtnetlink.links(netlink)}
    standing = links.get(name)
    if standing is not None:
        if standing.kind != "bridge":
            raise OSError(errno.EEXIST, f"{os.strerror(errno.EEXIST)}: interface {name} is no bridge")
        for address in rtnetlink.addresses(netlink):
            if address.index == standing.index:
                if not standing.up:
                    netlink.perform((rtnetlink.set_link_request(index=standing.index, up=True),))
                subnet = _subnet(address.local, address.prefix)
                return False, (subnet, address.local, standing.mtu)
        # Half made by a daemon that died: it has no ports yet.
        remove_bridge(netlink, name)
    taken = [*others, *_in_use(netlink)]
    chosen = IPv4Network(fixed) if fixed else choose_subnet(taken, preferred=remembered)
    if chosen is None:
        raise OSError(errno.EADDRNOTAVAIL, "all predefined address pools have been fully subnetted")
    gateway = gateway_of(str(chosen))
    mtu = mtu or _mtu(netlink, {link.index: link.mtu for link in links.values()})
    netlink.perform((rtnetlink.bridge_request(name, mac=bridge_mac(name), mtu=mtu),))
    try:
        index = rtnetlink.link_index(name)
        netlink.perform(
            (
                rtnetlink.set_link_request(index=index, no_link_local=os.path.isdir("/proc/sys/net/ipv6")),
                rtnetlink.address_request(index, f"{gateway}/{chosen.prefixlen}"),
                rtnetlink.set_link_request(index=index, up=True),
            )
        )
    except OSError:
        remove_bridge(netlink, name)
        raise
    return True, (str(chosen), gateway, mtu)


def remove_bridge(netlink: Netlink, name: str) -> None:
    """Succeeds if it is gone, or is no bridge and so none of ours."""
    _delete(
        netlink, (link for link in rtnetlink.links(netlink) if link.name == name and link.kind == "bridge")
    )


def remove_ports(bridge: str, names: Iterable[str] | None) -> None:
    """Delete the host ends of these names (None: all), if they are on this bridge; succeeds if they are
    gone.
    """
    with Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
        index = rtnetlink.link_index(bridge)
        _delete(
            netlink,
            (
                link
                for link in rtnetlink.links(netlink)
                if index
                and link.master == index
                and (link.name.startswith(HOST_PREFIX) if names is None else link.name in names)
            ),
        )


def _delete(netlink: Netlink, links: Iterable[rtnetlink.Link]) -> None:
    for link in links:
        (outcome,) = netlink.attempt((rtnetlink.delete_link_request(index=link.index),))
        if outcome is not None and outcome.errno != errno.ENODEV:
            raise outcome


def plugged_endpoints(netlink: Netlink, bridge: str, *, routed: bool = True) -> list[Endpoint]:
    """The endpoints of the containers on the bridge, oldest first, read back from their interfaces."""
    index = rtnetlink.link_index(bridge)
    own = [address.local for address in rtnetlink.addresses(netlink) if address.index == index]
    gateway = own[0] if own and routed else ""
    found = []
    for link in sorted(rtnetlink.links(netlink), key=lambda link: link.index):
        lease = parse_alias(link.alias)
        if link.master != index or index == _NO_MASTER or not link.name.startswith(HOST_PREFIX):
            continue
        # One without a lease was plugged in but half: it holds no address, and is swept as nobody's.
        name, mac, addresses = lease or ("eth0", "", ())
        found.append(
            Endpoint(
                bridge=bridge,
                host_name=link.name,
                name=name,
                mac=mac,
                addresses=addresses,
                gateway=gateway or None,
                mtu=link.mtu,
            )
        )
    return found


def forwards_for_others(netlink: Netlink) -> bool:
    """Whether the host has links, not of ours, that are there to be forwarded for."""
    return any(
        link.kind in _FORWARDED_KINDS and not link.name.startswith(HOST_PREFIX)
        for link in rtnetlink.links(netlink)
    )


def _in_use(netlink: Netlink) -> list[str]:
    """Every network that the host routes, has an address in, or asks for names."""
    routes = [route.destination for route in rtnetlink.routes(netlink)]
    addresses = [f"{address.local}/{address.prefix}" for address in rtnetlink.addresses(netlink)]
    return [*routes, *addresses, *(f"{server}/32" for server in host_nameservers() if ":" not in server)]


def _mtu(netlink: Netlink, mtu_of: dict[int, int]) -> int:
    """That of the default route's link if it is smaller than Ethernet's: larger packets would not pass."""
    ways_out = [route.index for route in rtnetlink.routes(netlink) if route.destination == "0.0.0.0/0"]
    return min([_ETHERNET_MTU, *(mtu_of[index] for index in ways_out if mtu_of.get(index))])


def _subnet(address: str, prefix: int) -> str:
    return str(IPv4Interface(f"{address}/{prefix}").network)
