"""Links, addresses and routes (rtnetlink(7)): requests as values, listings as values, no programs run.

Every ``*_request`` builds one request for ``Netlink.perform``; several belong in one call, which is one
system call. Small imports only: the keeper and the container's init use this.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from sampan.linux.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Netlink,
    Request,
    attribute,
    nested,
    string,
    table,
    text,
    u32,
)

NETLINK_ROUTE = 0

_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _GETADDR = 20, 22
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_SETLINK = 19

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_LINKINFO, _IFLA_NET_NS_PID, _IFLA_IFALIAS, _IFLA_AF_SPEC = 18, 19, 20, 26
_IFLA_PROTINFO, _BRPORT_MODE, _BRPORT_ISOLATED = 12, 4, 33
_IFLA_OPERSTATE, _IF_OPER_UP = 16, b"\6"
_IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES = 31, 32
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_VETH_INFO_PEER = 1
_MACVLAN_MODE, _IPVLAN_MODE, _IPVLAN_FLAGS, _VLAN_ID = 1, 1, 2, 1
MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}
_IFLA_INET6_ADDR_GEN_MODE = 8
_IN6_ADDR_GEN_MODE_NONE = b"\1"
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_IFA_F_NODAD = 0x02
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_RTPROT_BOOT, _RT_TABLE_MAIN, _RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK, _RTN_UNICAST = 3, 254, 0, 253, 1

IFF_UP = 1
_AF_BRIDGE = 7

# Each queue of a link costs entries in sysfs; without a queueing discipline veth does not use more than one.
_ONE_QUEUE = u32(_IFLA_NUM_TX_QUEUES, 1) + u32(_IFLA_NUM_RX_QUEUES, 1)

_ifinfomsg = struct.Struct("=BxHiII")
_ifaddrmsg = struct.Struct("=BBBBI")
_rtmsg = struct.Struct("=BBBBBBBBI")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A network interface. ``master`` is the index of its bridge or 0; ``kind`` is empty for hardware.

    ``operational``: up on both sides and known to be so by the kernel, its bridge included.
    """

    index: int
    name: str
    kind: str
    master: int
    up: bool
    mac: str
    mtu: int
    alias: str
    operational: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An address of an interface: ``local`` in text, ``prefix`` in bits."""

    index: int
    local: str
    prefix: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A unicast route of any table; ``destination`` in CIDR notation, ``index`` 0 if it has no interface."""

    destination: str
    index: int
    gateway: str | None


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _link(kind: int, flags: int, head: bytes, *parts: bytes) -> Request:
    return kind, flags, b"".join((head, *parts))


def _ifinfo(*, index: int = 0, up: bool = False) -> bytes:
    state = IFF_UP if up else 0
    return _ifinfomsg.pack(socket.AF_UNSPEC, 0, index, state, state)


def bridge_request(name: str, *, mac: str, mtu: int = 0) -> Request:
    """Create a bridge, down. A fixed address keeps it from changing with its ports (Docker does the same)."""
    return _link(
        _NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        _ifinfo(),
        text(_IFLA_IFNAME, name),
        attribute(_IFLA_ADDRESS, mac_bytes(mac)),
        u32(_IFLA_MTU, mtu) if mtu else b"",
        nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "bridge")),
    )


def veth_request(
    name: str, *, master: int, mtu: int, peer_name: str, peer_mac: str, peer_pid: int, up: bool
) -> Request:
    """Create a veth pair: this end a port of ``master``, the other in the namespace of ``peer_pid``."""
    size = u32(_IFLA_MTU, mtu) if mtu else b""
    peer = b"".join(
        (
            _ifinfo(),
            text(_IFLA_IFNAME, peer_name),
            attribute(_IFLA_ADDRESS, mac_bytes(peer_mac)) if peer_mac else b"",
            size,
            _ONE_QUEUE,
            u32(_IFLA_NET_NS_PID, peer_pid),
        )
    )
    return _link(
        _NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        _ifinfo(up=up),
        text(_IFLA_IFNAME, name),
        size,
        _ONE_QUEUE,
        u32(_IFLA_MASTER, master) if master else b"",
        nested(
            _IFLA_LINKINFO,
            text(_IFLA_INFO_KIND, "veth"),
            nested(_IFLA_INFO_DATA, nested(_VETH_INFO_PEER, peer)),
        ),
    )


def child_request(
    name: str, *, parent: int, kind: str, mode: str, mac: str = "", mtu: int = 0, pid: int = 0
) -> Request:
    """Create a further interface of a link, in the namespace of ``pid`` if there is one.

    ``kind`` is "macvlan", "ipvlan" or "vlan"; ``mode`` one of its modes, an ipvlan's with its flag behind a
    space, or the number of a VLAN. An ipvlan has its parent's hardware address. EOPNOTSUPP: the kernel has no
    such driver; EBUSY: the parent has children of another kind or mode.
    """
    if kind == "macvlan":
        data = u32(_MACVLAN_MODE, MACVLAN_MODES[mode])
    elif kind == "vlan":
        data = attribute(_VLAN_ID, struct.pack("=H", int(mode)))
    else:
        layer, _, flag = mode.partition(" ")
        data = attribute(_IPVLAN_MODE, struct.pack("=H", IPVLAN_MODES[layer]))
        data += attribute(_IPVLAN_FLAGS, struct.pack("=H", IPVLAN_FLAGS[flag or "bridge"]))
    return _link(
        _NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        _ifinfo(),
        text(_IFLA_IFNAME, name),
        u32(_IFLA_LINK, parent),
        attribute(_IFLA_ADDRESS, mac_bytes(mac)) if mac and kind != "ipvlan" else b"",
        u32(_IFLA_MTU, mtu) if mtu else b"",
        u32(_IFLA_NET_NS_PID, pid) if pid else b"",
        nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, kind), nested(_IFLA_INFO_DATA, data)),
    )


def dummy_request(name: str) -> Request:
    """Create a link that leads nowhere. EOPNOTSUPP: the kernel has no such driver."""
    info = nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "dummy"))
    return _link(_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, _ifinfo(), text(_IFLA_IFNAME, name), info)


def set_link_request(
    *, index: int = 0, name: str = "", up: bool = False, alias: str = "", no_link_local: bool = False
) -> Request:
    """Change a link, by index or else by name.

    ``no_link_local`` (not together with ``up``: the kernel brings a link up before it looks at this) keeps
    IPv6 from giving it an address of its own, and so from detecting duplicates and soliciting routers.
    """
    af_spec = nested(
        _IFLA_AF_SPEC,
        nested(socket.AF_INET6, attribute(_IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE)),
    )
    return _link(
        _NEWLINK,
        0,
        _ifinfo(index=index, up=up),
        text(_IFLA_IFNAME, name) if name else b"",
        text(_IFLA_IFALIAS, alias) if alias else b"",
        af_spec if no_link_local else b"",
    )


def port_request(index: int, *, isolated: bool = False, hairpin: bool = False) -> Request:
    """``isolated``: let a port of a bridge reach no other port that is isolated too, only the bridge itself.
    ``hairpin``: let it be given what came from it."""
    head = _ifinfomsg.pack(_AF_BRIDGE, 0, index, 0, 0)
    wanted = ((_BRPORT_MODE, hairpin), (_BRPORT_ISOLATED, isolated))
    parts = [attribute(kind, b"\1") for kind, asked in wanted if asked]
    return _link(_SETLINK, 0, head, nested(_IFLA_PROTINFO, *parts))


def delete_link_request(*, index: int = 0, name: str = "") -> Request:
    return _link(_DELLINK, 0, _ifinfo(index=index), text(_IFLA_IFNAME, name) if name else b"")


def get_link_request(name: str) -> Request:
    """Ask for one link. Since Linux 6.8 this first makes the kernel act on a change of the link's carrier."""
    return _link(_GETLINK, 0, _ifinfo(), text(_IFLA_IFNAME, name))


def _packed(address: str) -> tuple[int, bytes]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.inet_pton(family, address)


def address_request(index: int, cidr: str) -> Request:
    """Give a link an address; IPv6 without duplicate detection, for addresses that we hand out ourselves."""
    host, _, bits = cidr.partition("/")
    family, packed = _packed(host)
    prefix = int(bits)
    parts = [attribute(_IFA_LOCAL, packed), attribute(_IFA_ADDRESS, packed)]
    if family == socket.AF_INET6:
        parts.append(u32(_IFA_FLAGS, _IFA_F_NODAD))
    elif prefix < 31:
        broadcast = int.from_bytes(packed, "big") | ((1 << (32 - prefix)) - 1)
        parts.append(attribute(_IFA_BROADCAST, broadcast.to_bytes(4, "big")))
    return _NEWADDR, NLM_F_CREATE | NLM_F_EXCL, _ifaddrmsg.pack(family, prefix, 0, 0, index) + b"".join(parts)


def default_route_request(gateway: str, *, index: int, on_link: bool = False) -> Request:
    """``on_link``: everything is taken to be on the link itself; the gateway tells the family alone."""
    family, packed = _packed(gateway)
    scope = _RT_SCOPE_LINK if on_link and family == socket.AF_INET else _RT_SCOPE_UNIVERSE
    head = _rtmsg.pack(
        family, 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, scope, _RTN_UNICAST, 0
    )  # family, prefix bits to and from, tos, table, protocol, scope, type, flags
    way = b"" if on_link else attribute(_RTA_GATEWAY, packed)
    return _NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, head + way + u32(_RTA_OIF, index)


def delete_default_route_request(index: int, family: int = socket.AF_INET) -> Request:
    """The default route of a family through a link; ESRCH if there is none."""
    head = _rtmsg.pack(family, 0, 0, 0, _RT_TABLE_MAIN, 0, _RT_SCOPE_UNIVERSE, 0, 0)
    return _DELROUTE, 0, head + u32(_RTA_OIF, index)


def links(netlink: Netlink) -> list[Link]:
    return [parse_link(body) for kind, body in netlink.dump((_GETLINK, 0, _ifinfo())) if kind == _NEWLINK]


def parse_link(body: bytes) -> Link:
    """The link in the body of an RTM_NEWLINK message."""
    _, _, index, flags, _ = _ifinfomsg.unpack_from(body)
    found = table(body[_ifinfomsg.size :])
    info = table(found.get(_IFLA_LINKINFO, b""))
    return Link(
        index=index,
        name=string(found.get(_IFLA_IFNAME, b"")),
        kind=string(info.get(_IFLA_INFO_KIND, b"")),
        master=_number(found.get(_IFLA_MASTER)),
        up=bool(flags & IFF_UP),
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(found.get(_IFLA_MTU)),
        alias=string(found.get(_IFLA_IFALIAS, b"")),
        operational=found.get(_IFLA_OPERSTATE) == _IF_OPER_UP,
    )


def addresses(netlink: Netlink, family: int = socket.AF_INET) -> list[Address]:
    found = []
    for kind, body in netlink.dump((_GETADDR, 0, _ifaddrmsg.pack(family, 0, 0, 0, 0))):
        if kind != _NEWADDR:
            continue
        of, prefix, _, _, index = _ifaddrmsg.unpack_from(body)
        values = table(body[_ifaddrmsg.size :])
        packed = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS)
        if packed:
            found.append(Address(index=index, local=socket.inet_ntop(of, packed), prefix=prefix))
    return found


def routes(netlink: Netlink, family: int = socket.AF_INET) -> list[Route]:
    """Unicast routes of every table, default routes included (``0.0.0.0/0``)."""
    found = []
    for kind, body in netlink.dump((_GETROUTE, 0, _rtmsg.pack(family, *bytes(7), 0))):
        if kind != _NEWROUTE:
            continue
        of, bits, _, _, _, _, _, route_type, _ = _rtmsg.unpack_from(body)
        if route_type != _RTN_UNICAST or of != family:
            continue
        values = table(body[_rtmsg.size :])
        packed = values.get(_RTA_DST, bytes(4 if of == socket.AF_INET else 16))
        gateway = values.get(_RTA_GATEWAY)
        found.append(
            Route(
                destination=f"{socket.inet_ntop(of, packed)}/{bits}",
                index=_number(values.get(_RTA_OIF)),
                gateway=socket.inet_ntop(of, gateway) if gateway else None,
            )
        )
    return found


def link_index(name: str) -> int:
    """The index of the named link, 0 if there is none."""
    try:
        return socket.if_nametoindex(name)
    except OSError:  # which here carries no errno to tell one reason from another
        return 0


def _number(payload: bytes | None) -> int:
    return int(struct.unpack("=I", payload)[0]) if payload else 0
