"""The daemon's settings of its default network, as a plan of its bridge. Keys and words are dockerd's."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Interface, IPv4Network, IPv6Network, ip_network
from typing import Any

from sampan.errors import InvalidArgument
from sampan.network import Plan, Range

OBEY, BYPASS = "obey", "bypass"


def plan(settings: Mapping[str, Any], bridge: str) -> Plan:
    """InvalidArgument for what makes no sense."""
    ranges = [_ipv4(settings["bip"], settings["fixed-cidr"])]
    if settings["ipv6"]:
        ranges.append(Range(version=6, subnet=_subnet6(settings["fixed-cidr-v6"])))
    elif settings["fixed-cidr-v6"]:
        raise InvalidArgument("fixed-cidr-v6 needs ipv6")
    mtu = settings["mtu"]
    if mtu and not 68 <= mtu <= 65535:
        raise InvalidArgument(f"invalid mtu: {mtu}")
    return Plan(
        bridge=bridge,
        ranges=tuple(ranges),
        mtu=mtu,
        isolated=not settings["icc"],
        masquerade=settings["ip-masq"],
        masquerade6=settings["ip-masq"],
    )


def _ipv4(bip: str, fixed: str) -> Range:
    if not bip:
        if fixed:
            raise InvalidArgument("fixed-cidr needs bip: the bridge's own address, in the subnet around it")
        return Range()
    try:
        own = IPv4Interface(bip)
        pool = IPv4Network(fixed) if fixed else own.network
    except ValueError as error:
        raise InvalidArgument(f"invalid bip or fixed-cidr: {error}") from None
    if own.network.prefixlen > 30 or not pool.subnet_of(own.network):
        raise InvalidArgument(f"invalid bip or fixed-cidr: {fixed or bip} leaves no room in {own.network}")
    return Range(subnet=str(own.network), gateway=str(own.ip), pool=fixed)


def _subnet6(text: str) -> str:
    if not text:
        return ""
    try:
        subnet = ip_network(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid fixed-cidr-v6: {error}") from None
    if not isinstance(subnet, IPv6Network) or subnet.prefixlen > 126:
        raise InvalidArgument(f"invalid fixed-cidr-v6: {text} is no IPv6 subnet with room")
    return str(subnet)
