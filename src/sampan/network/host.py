"""What a bridge needs of the host's links, addresses and routes. Blocking calls; OSError on failure."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface

from sampan.linux import rtnetlink
from sampan.linux.netlink import Netlink
from sampan.network.addresses import Range
from sampan.network.naming import HOST_PREFIX, bridge_mac
from sampan.network.resolv import host_nameservers
from sampan.sandbox.interfaces import parse_alias
from sampan.sandbox.messages import Endpoint

_ETHERNET_MTU = 1500
_NO_MASTER = 0
_DISABLED = "/proc/sys/net/ipv6/conf/all/disable_ipv6"
OWN_PARENT = "sampan parent"
"""The alias of a link that was made for a network of further interfaces (``segment.py``)."""
_ON_THE_LINK = "fe80::1"
"""The link-local address of every bridge with IPv6, as dockerd's."""
_FORWARDED_KINDS = frozenset(("bridge", "veth", "tun", "wireguard", "vxlan", "macvlan", "ipvlan"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The bridge as it stands: subnets in CIDR notation, empty for what it has not; ``mtu`` in bytes."""

    bridge: str
    mtu: int
    subnet: str = ""
    gateway: str = ""
    subnet6: str = ""
    gateway6: str = ""


def has_ipv6() -> bool:
    """Whether the kernel has IPv6, and it is not turned off."""
    try:
        with open(_DISABLED, encoding="ascii") as file:
            return file.read().strip() == "0"
    except OSError:
        return False


def ensure_bridge(
    netlink: Netlink,
    name: str,
    *,
    ranges: Sequence[Range],
    remembered: Callable[[int], str | None],
    others: Iterable[str],
    seed: str = "",
    mtu: int = 0,
) -> tuple[bool, Site]:
    """Find or make the bridge, with what ``ranges`` say; whether it was made now.

    A bridge that stands keeps its subnets. A new one gets the fixed one if there is one, else the one that is
    ``remembered`` for its version of IP, if that is still free. ``mtu`` 0: that of the way out.
    Leaves nothing on failure; EADDRNOTAVAIL when every pool is taken, EAFNOSUPPORT without IPv6.
    """
    if any(one.version == 6 for one in ranges) and not has_ipv6():
        raise OSError(errno.EAFNOSUPPORT, "IPv6 is turned off, or not in the kernel")
    links = {link.name: link for link in rtnetlink.links(netlink)}
    standing = links.get(name)
    found: dict[int, tuple[str, str]] = {}
    if standing is not None:
        if standing.kind != "bridge":
            raise OSError(errno.EEXIST, f"{os.strerror(errno.EEXIST)}: interface {name} is no bridge")
        found = _held(netlink, standing.index)
        if not found:
            # Half made by a daemon that died: it has no ports yet.
            remove_bridge(netlink, name)
            standing = None
    lacking = [wanted for wanted in ranges if wanted.version not in found]
    chosen = {**found, **choose(netlink, lacking, others=others, remembered=remembered, seed=seed)}
    if standing is None:
        mtu = mtu or _mtu(netlink, {link.index: link.mtu for link in links.values()})
        netlink.perform((rtnetlink.bridge_request(name, mac=bridge_mac(name), mtu=mtu),))
    else:
        mtu = standing.mtu
    try:
        new = [place for version, place in chosen.items() if version not in found]
        _address(netlink, name, new, made=standing is None)
    except OSError:
        if standing is None:
            remove_bridge(netlink, name)
        raise
    return standing is None, site(name, mtu, chosen)


def choose(
    netlink: Netlink,
    ranges: Sequence[Range],
    *,
    others: Iterable[str],
    remembered: Callable[[int], str | None],
    seed: str,
) -> dict[int, tuple[str, str]]:
    """Version of IP → (subnet, gateway) for each range; EADDRNOTAVAIL when every pool is taken."""
    taken = [*others, *_in_use(netlink)]
    chosen = {}
    for wanted in ranges:
        subnet = wanted.choose(taken, preferred=remembered(wanted.version), seed=seed)
        if not subnet:
            raise OSError(errno.EADDRNOTAVAIL, "all predefined address pools have been fully subnetted")
        chosen[wanted.version] = (subnet, wanted.addresses(subnet).gateway)
    return chosen


def site(name: str, mtu: int, chosen: Mapping[int, tuple[str, str]]) -> Site:
    subnet, gateway = chosen.get(4, ("", ""))
    subnet6, gateway6 = chosen.get(6, ("", ""))
    return Site(bridge=name, mtu=mtu, subnet=subnet, gateway=gateway, subnet6=subnet6, gateway6=gateway6)


def _held(netlink: Netlink, index: int) -> dict[int, tuple[str, str]]:
    """Version of IP → (subnet, address) of a link, link-local ones passed over."""
    found: dict[int, tuple[str, str]] = {}
    for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        for address in rtnetlink.addresses(netlink, family):
            if address.index == index and not ip_address(address.local).is_link_local:
                found.setdefault(version, (_subnet(address.local, address.prefix), address.local))
    return found


def _address(netlink: Netlink, name: str, places: Sequence[tuple[str, str]], *, made: bool) -> None:
    """Give a bridge its addresses, and let it be up."""
    index = rtnetlink.link_index(name)
    requests = []
    if made:
        requests.append(
            rtnetlink.set_link_request(index=index, no_link_local=os.path.isdir("/proc/sys/net/ipv6"))
        )
        # Whatever is on the bridge may claim to be a router; the host is not to believe it.
        _set(f"/proc/sys/net/ipv6/conf/{name}/accept_ra", "0")
    for subnet, gateway in places:
        if ":" in subnet:
            _set(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "0")
            # Without an address of its own on the link the host asks nobody on it who has an address.
            requests.append(rtnetlink.address_request(index, f"{_ON_THE_LINK}/64"))
        requests.append(rtnetlink.address_request(index, f"{gateway}/{subnet.partition('/')[2]}"))
    requests.append(rtnetlink.set_link_request(index=index, up=True))
    netlink.perform(requests)


def _set(path: str, value: str) -> None:
    with contextlib.suppress(FileNotFoundError), open(path, "w", encoding="ascii") as file:
        file.write(value)


def remove_bridge(netlink: Netlink, name: str) -> None:
    """Delete a bridge, or a link that was made for a network. Succeeds if it is gone, or none of ours."""
    _delete(
        netlink,
        (
            link
            for link in rtnetlink.links(netlink)
            if link.name == name and (link.kind == "bridge" or link.alias == OWN_PARENT)
        ),
    )


def remove_ports(bridge: str, names: Iterable[str] | None) -> None:
    """Delete the host ends of these names (None: all), if they are on this bridge; succeeds if they are
    gone.
    """
    with Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
        index = rtnetlink.link_index(bridge)
        links = _named(netlink, names) if names is not None else _host_ends(netlink)
        _delete(netlink, (link for link in links if index and link.master == index))


def _host_ends(netlink: Netlink) -> list[rtnetlink.Link]:
    return [link for link in rtnetlink.links(netlink) if link.name.startswith(HOST_PREFIX)]


def _named(netlink: Netlink, names: Iterable[str]) -> Iterator[rtnetlink.Link]:
    """Those that are there. Each is asked for by itself: a list of all grows with the host's containers."""
    for name in names:
        if rtnetlink.link_index(name):
            netlink.attempt((rtnetlink.get_link_request(name),))
            yield from [rtnetlink.parse_link(body) for _, body in netlink.answers]


def _delete(netlink: Netlink, links: Iterable[rtnetlink.Link]) -> None:
    for link in links:
        (outcome,) = netlink.attempt((rtnetlink.delete_link_request(index=link.index),))
        if outcome is not None and outcome.errno != errno.ENODEV:
            raise outcome


def plugged_endpoints(netlink: Netlink, bridge: str, *, routed: bool = True) -> list[Endpoint]:
    """The endpoints of the containers on the bridge, oldest first, read back from their interfaces."""
    index = rtnetlink.link_index(bridge)
    own = _held(netlink, index) if routed and index else {}
    _, gateway = own.get(4, ("", ""))
    _, gateway6 = own.get(6, ("", ""))
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
                gateway6=gateway6 or None,
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


def hearing(netlink: Netlink) -> list[str]:
    """The links by which IPv6 leaves the host by default."""
    names = {link.index: link.name for link in rtnetlink.links(netlink)}
    ways_out = [
        route.index for route in rtnetlink.routes(netlink, socket.AF_INET6) if route.destination == "::/0"
    ]
    return [names[index] for index in dict.fromkeys(ways_out) if index in names]


def _in_use(netlink: Netlink) -> list[str]:
    """Every network that the host routes, has an address in, or asks for names."""
    found = [server.partition("%")[0] for server in host_nameservers()]
    for family in (socket.AF_INET, socket.AF_INET6):
        found += [route.destination for route in rtnetlink.routes(netlink, family)]
        found += [f"{address.local}/{address.prefix}" for address in rtnetlink.addresses(netlink, family)]
    return found


def _mtu(netlink: Netlink, mtu_of: dict[int, int]) -> int:
    """That of the default route's link if it is smaller than Ethernet's: larger packets would not pass."""
    ways_out = [route.index for route in rtnetlink.routes(netlink) if route.destination == "0.0.0.0/0"]
    return min([_ETHERNET_MTU, *(mtu_of[index] for index in ways_out if mtu_of.get(index))])


def _subnet(address: str, prefix: int) -> str:
    return str(ip_interface(f"{address}/{prefix}").network)
