"""A container's network interface, from both sides: one datagram to the kernel on each.

The host side (``plug``) is run by the keeper, as root in the host's namespaces. The inside (``configure``) is
run by the container's init in its new network namespace, before it gives its capabilities up: in a private
user namespace the network namespace belongs to that user namespace, and so does the right to configure it.

Laws:
- A program's first packet finds the way open. The kernel acts on a change of carrier in its own time: until
  then the far end drops what it sends and the bridge what arrives, and a program that is faster loses its
  first ARP request, with it a whole second. So ``plug`` brings the far end up first and then the near one,
  and each side waits until its end is operational.
- The host end of the pair carries the lease. Its alias says the container's addresses and mac, so that after
  any crash the kernel itself tells which address is in use, for as long as it is in use.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from typing import TYPE_CHECKING, TypeVar

from sampan.linux import rtnetlink
from sampan.linux.netlink import Netlink
from sampan.linux.process import setns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sampan.linux.netlink import Request
    from sampan.sandbox.messages import Endpoint

_ALIAS, _NO_MAC = "sampan", "-"
T = TypeVar("T")


def plug(endpoint: Endpoint, pid: int) -> None:
    """Create the veth pair, its far end in the network namespace of ``pid``, the near end on the bridge; up.

    For a process of one thread: it visits the other namespace. Leaves nothing on failure, and never touches
    a link that exists: the host name must be free (EEXIST). An interface of another kind is made in that
    namespace at once, and has no end on the host.
    """
    if endpoint.kind:
        _plug_child(endpoint, pid)
        return
    master = _index(endpoint.bridge)
    pair = rtnetlink.veth_request(
        endpoint.host_name,
        master=master,
        mtu=endpoint.mtu,
        peer_name=endpoint.name,
        peer_mac=endpoint.mac,
        peer_pid=pid,
        up=False,
    )
    with Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
        netlink.perform((pair,))
        try:
            _bring_up_inside(endpoint, pid)
            _bring_up_outside(endpoint, netlink)
        except OSError:
            netlink.attempt((rtnetlink.delete_link_request(name=endpoint.host_name),))
            raise


def _index(name: str) -> int:
    """The number of a link of the host. OSError (ENODEV) with its name if there is none."""
    index = rtnetlink.link_index(name)
    if not index:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), name)
    return index


def _plug_child(endpoint: Endpoint, pid: int) -> None:
    parent = _index(endpoint.parent)
    child = rtnetlink.child_request(
        endpoint.name,
        parent=parent,
        kind=endpoint.kind,
        mode=endpoint.mode,
        mac=endpoint.mac,
        mtu=endpoint.mtu,
        pid=pid,
    )
    with Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
        netlink.perform((child,))
    try:
        _bring_up_inside(endpoint, pid)
    except OSError:
        take_out(endpoint.name, pid)
        raise


def take_out(name: str, pid: int) -> None:
    """Delete an interface inside. Succeeds if it is gone, or the namespace is."""

    def work() -> None:
        with Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
            netlink.attempt((rtnetlink.delete_link_request(name=name),))

    with contextlib.suppress(OSError):
        within(pid, work)


def inside(pid: int) -> list[tuple[str, str, tuple[str, ...]]]:
    """Name, mac and addresses of the interfaces without an end on the host, as they were plugged in."""

    def work() -> list[tuple[str, str, tuple[str, ...]]]:
        with Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
            leases = [parse_alias(link.alias) for link in rtnetlink.links(netlink)]
            return [lease for lease in leases if lease is not None]

    return within(pid, work)


def _bring_up_inside(endpoint: Endpoint, pid: int) -> None:
    """The far end, up and without an address yet."""

    def work() -> None:
        if _with_ipv6(endpoint):
            # Others on the network are not to be believed when they claim to be routers.
            for setting, value in (("accept_ra", "0"), ("disable_ipv6", "0")):
                with open(
                    f"/proc/sys/net/ipv6/conf/{endpoint.name}/{setting}", "w", encoding="ascii"
                ) as file:
                    file.write(value)
        with Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
            quiet = (rtnetlink.set_link_request(name=endpoint.name, no_link_local=True),)
            lease = alias(endpoint) if endpoint.kind else ""
            up = rtnetlink.set_link_request(name=endpoint.name, up=True, alias=lease)
            netlink.perform((*(quiet if _HAS_IPV6 else ()), up))

    within(pid, work)


def _bring_up_outside(endpoint: Endpoint, netlink: Netlink) -> None:
    """The near end, up and passing packets."""
    name = endpoint.host_name
    lease = rtnetlink.set_link_request(name=name, alias=alias(endpoint), no_link_local=_HAS_IPV6)
    requests = [lease, rtnetlink.set_link_request(name=name, up=True)]
    if endpoint.isolated or endpoint.hairpin:
        index = rtnetlink.link_index(name)
        port = rtnetlink.port_request(index, isolated=endpoint.isolated, hairpin=endpoint.hairpin)
        requests.insert(0, port)
    _operate(netlink, name, requests)


def _operate(netlink: Netlink, name: str, requests: Sequence[Request]) -> None:
    """Carry out what brings a link up, and return when the kernel has acted on it."""
    look = rtnetlink.get_link_request(name)
    netlink.perform((*requests, look))
    # From Linux 6.8 on the look itself makes it so; before, the kernel needs a moment, seldom a long one.
    for _ in range(_LOOKS):
        if any(rtnetlink.parse_link(body).operational for _, body in netlink.answers):
            return
        time.sleep(_BETWEEN_LOOKS)
        netlink.perform((look,))


def unplug(host_name: str) -> None:
    """Delete the pair by its host end. Succeeds if it is already gone."""
    with Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
        (outcome,) = netlink.attempt((rtnetlink.delete_link_request(name=host_name),))
    if outcome is not None and outcome.errno != errno.ENODEV:
        raise outcome


def configure(endpoint: Endpoint, *, first: bool = True) -> None:
    """Give the interface, which ``plug`` brought up, its addresses and routes; ``first`` bring the loopback
    up.

    Returns when the interface sends what it is given.
    """
    index = rtnetlink.link_index(endpoint.name)
    requests = [rtnetlink.set_link_request(index=_LOOPBACK, up=True)] if first else []
    requests.extend(rtnetlink.address_request(index, cidr) for cidr in endpoint.addresses)
    if _with_ipv6(endpoint) and endpoint.mac:
        requests.append(rtnetlink.address_request(index, f"{link_local(endpoint.mac)}/64"))
    for gateway in (endpoint.gateway, endpoint.gateway6):
        if gateway:
            on_link = routes_by_itself(endpoint)
            requests.append(rtnetlink.default_route_request(gateway, index=index, on_link=on_link))
    with Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
        _operate(netlink, endpoint.name, requests)


def routes_by_itself(endpoint: Endpoint) -> bool:
    """Whether the parent routes what the interface sends, which so needs no gateway."""
    return endpoint.kind == "ipvlan" and endpoint.mode.startswith("l3")


def _with_ipv6(endpoint: Endpoint) -> bool:
    return any(":" in cidr for cidr in endpoint.addresses)


def link_local(mac: str) -> str:
    """The link-local address that an interface of this hardware address has (RFC 4291, appendix A)."""
    one, two, three, four, five, six = bytes.fromhex(mac.replace(":", "").replace("-", ""))
    packed = bytes((0xFE, 0x80, 0, 0, 0, 0, 0, 0, one ^ 2, two, three, 0xFF, 0xFE, four, five, six))
    return socket.inet_ntop(socket.AF_INET6, packed)


def join(endpoint: Endpoint, pid: int) -> None:
    """Connect the running container of ``pid`` by a further interface. In a thread of its own or alone in
    one.

    Leaves nothing on failure.
    """
    plug(endpoint, pid)
    try:
        within(pid, lambda: configure(endpoint, first=False))
    except OSError:
        if endpoint.kind:
            take_out(endpoint.name, pid)
        else:
            unplug(endpoint.host_name)
        raise


def route_through(
    gateway: str | None, name: str, pid: int, *, ipv6: bool = False, on_link: bool = False
) -> None:
    """Make ``gateway`` at the interface ``name`` the way out of the container of ``pid``, for one version of
    IP; None: there is none.
    """
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    everywhere = "::/0" if ipv6 else "0.0.0.0/0"

    def change() -> None:
        with Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
            former = [route for route in rtnetlink.routes(netlink, family) if route.destination == everywhere]
            netlink_requests = [
                rtnetlink.delete_default_route_request(route.index, family) for route in former
            ]
            if netlink_requests:
                netlink.attempt(netlink_requests)
            index = rtnetlink.link_index(name) if gateway else 0
            if gateway and index:
                route = rtnetlink.default_route_request(gateway, index=index, on_link=on_link)
                netlink.perform((route,))

    within(pid, change)


def within(pid: int, work: Callable[[], T]) -> T:
    """Do it in the network namespace of ``pid``, by the calling thread alone, which comes back."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(there, _CLONE_NEWNET)
        finally:
            os.close(there)
        try:
            return work()
        finally:
            setns(home, _CLONE_NEWNET)
    finally:
        os.close(home)


def loopback_up() -> None:
    with Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
        netlink.perform((rtnetlink.set_link_request(index=_LOOPBACK, up=True),))


def alias(endpoint: Endpoint) -> str:
    """The lease as the host end's alias: ``sampan NAME MAC CIDR…``."""
    return " ".join((_ALIAS, endpoint.name, endpoint.mac or _NO_MAC, *endpoint.addresses))


def parse_alias(value: str) -> tuple[str, str, tuple[str, ...]] | None:
    """Name, mac and addresses of a link that ``plug`` made; None for any other link."""
    words = value.split()
    if len(words) < 4 or words[0] != _ALIAS:
        return None
    return words[1], "" if words[2] == _NO_MAC else words[2], tuple(words[3:])


_CLONE_NEWNET = 0x40000000
_LOOKS, _BETWEEN_LOOKS = 100, 0.0005  # a twentieth of a second in all, after which a container starts anyway
# The first link of every network namespace, by construction.
_LOOPBACK = 1
# Imported before the namespaces are entered; /proc may be another one there.
_HAS_IPV6 = socket.has_ipv6 and os.path.isdir("/proc/sys/net/ipv6")
