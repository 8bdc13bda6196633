"""A container's network interface, from both sides: one datagram to the kernel on each.

The host side (``plug``) is run by the keeper, as root in the host's namespaces. The inside (``configure``) is
run by the container's init in its new network namespace, before it gives its capabilities up: in a private
user namespace the network namespace belongs to that user namespace, and so does the right to configure it.

Law: the host end of the pair carries the lease. Its alias says the container's addresses and mac, so that
after any crash the kernel itself tells which address is in use, for as long as it is in use.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

from sampan.linux import rtnetlink
from sampan.linux.netlink import Netlink

if TYPE_CHECKING:
    from sampan.sandbox.messages import Endpoint

_ALIAS = "sampan"


def plug(endpoint: Endpoint, pid: int) -> None:
    """Create the veth pair with its far end in the network namespace of ``pid``, and join the bridge, up.

    Leaves nothing on failure. Never touches a link that exists: the host name must be free (EEXIST).
    """
    master = rtnetlink.link_index(endpoint.bridge)
    if not master:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), endpoint.bridge)
    with Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
        outcomes = netlink.attempt(
            (
                rtnetlink.veth_request(
                    endpoint.host_name,
                    master=master,
                    mtu=endpoint.mtu,
                    peer_name=endpoint.name,
                    peer_mac=endpoint.mac,
                    peer_pid=pid,
                    up=False,
                ),
                rtnetlink.set_link_request(
                    name=endpoint.host_name, alias=alias(endpoint), no_link_local=_HAS_IPV6
                ),
                rtnetlink.set_link_request(name=endpoint.host_name, up=True),
            )
        )
        if outcomes[0] is not None:
            raise outcomes[0]
        failed = outcomes[1] or outcomes[2]
        if failed is not None:
            netlink.attempt((rtnetlink.delete_link_request(name=endpoint.host_name),))
            raise failed


def unplug(host_name: str) -> None:
    """Delete the pair by its host end. Succeeds if it is already gone."""
    with Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
        (outcome,) = netlink.attempt((rtnetlink.delete_link_request(name=host_name),))
    if outcome is not None and outcome.errno != errno.ENODEV:
        raise outcome


def configure(endpoint: Endpoint) -> None:
    """Bring the loopback and the interface up with its addresses and default routes."""
    index = rtnetlink.link_index(endpoint.name)
    requests = [rtnetlink.set_link_request(index=_LOOPBACK, up=True)]
    if _HAS_IPV6:
        requests.append(rtnetlink.set_link_request(index=index, no_link_local=True))
    requests.extend(rtnetlink.address_request(index, cidr) for cidr in endpoint.addresses)
    requests.append(rtnetlink.set_link_request(index=index, up=True))
    for gateway in (endpoint.gateway, endpoint.gateway6):
        if gateway:
            requests.append(rtnetlink.default_route_request(gateway, index=index))
    with Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
        netlink.perform(requests)


def loopback_up() -> None:
    with Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
        netlink.perform((rtnetlink.set_link_request(index=_LOOPBACK, up=True),))


def alias(endpoint: Endpoint) -> str:
    """The lease as the host end's alias: ``sampan NAME MAC CIDR…``."""
    return " ".join((_ALIAS, endpoint.name, endpoint.mac, *endpoint.addresses))


def parse_alias(value: str) -> tuple[str, str, tuple[str, ...]] | None:
    """Name, mac and addresses of a link that ``plug`` made; None for any other link."""
    words = value.split()
    if len(words) < 4 or words[0] != _ALIAS:
        return None
    return words[1], words[2], tuple(words[3:])


# The first link of every network namespace, by construction.
_LOOPBACK = 1
# Imported before the namespaces are entered; /proc may be another one there.
_HAS_IPV6 = socket.has_ipv6 and os.path.isdir("/proc/sys/net/ipv6")
