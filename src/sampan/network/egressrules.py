"""The rules that hold containers to their egress policies, as values: two tables for an instance.

``inet BRIDGE-egress`` judges what a container begins, before any address is rewritten (prerouting, between
conntrack and destination NAT), so that an address means what the container asked for, the host's own
addresses included:

    prerouting      the source address leads to the chain of its container, by a map; others cost one look-up
    c_ID            go: what belongs to an established connection; ICMP about one; other addresses of the
                    container's own networks; what the policy names by address; what its names were pinned to
                    (sets ``4_ID``, ``4p_ID``, ``6_ID``, ``6p_ID``, whose elements end by themselves).
                    The rest is logged, at a limited rate, and refused: by a reset, or by ICMP

``bridge BRIDGE-egress`` makes a source address as good as an interface:

    prerouting      what comes from a guarded port of a bridge and is not from an address of that port is
                    dropped, ARP included; of IPv6 the neighbour discovery of any address gets through

Law: the chain of a container is replaced as a whole, in one transaction; its pins outlive that.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network

from sampan.linux import nfactions as act
from sampan.linux import nfnetlink as nft
from sampan.linux.netlink import Request
from sampan.network.egresspolicy import ANY_PORT, Address, Network, Policy

_BETWEEN_CONNTRACK_AND_NAT, _BRIDGE_FIRST = -150, -300
_FAMILIES = {4: (nft.IP, 7, 4, 12, 16), 6: (nft.IP6, 8, 16, 8, 24)}
"""nf_tables' number, nft(8)'s type, and size and places of source and destination in the header."""
_PORT_TYPE, _NAME_TYPE, _NAME_SIZE = 13, 41, 16
_ETHER = {4: b"\x08\x00", 6: b"\x86\xdd"}
_ARP, _ARP_SENDER = b"\x08\x06", 14
_DISCOVERY = (133, 135, 136)  # router solicitation, neighbour solicitation and advertisement
_ICMP = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
_WITH_PORTS = (socket.IPPROTO_TCP, socket.IPPROTO_UDP)
_AFTER_NAME = 2  # the register behind an interface's name
_AFTER_ADDRESS = {4: 9, 6: 12}  # the one behind an address in register 1
_LOGGED_EACH_SECOND, _LOGGED_AT_ONCE = 5, 20
LOGGED_BYTES = 64
_PINS_AT_ONCE = 500  # an attribute's size is 16 bits

Pin = tuple[Address, int]
"""An address that a name was pinned to, and the port that is open there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One of a container's: the host's end of its pair, and its addresses in CIDR notation."""

    port: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """What a container is held to."""

    container_id: str
    policy: Policy
    interfaces: tuple[Interface, ...]

    @property
    def key(self) -> str:
        return self.container_id[:12]

    @property
    def chain(self) -> str:
        return f"c_{self.key}"

    @property
    def sources(self) -> list[tuple[str, Address]]:
        return [
            (one.port, ip_interface(cidr).ip)
            for one in self.interfaces
            for cidr in dict.fromkeys(one.addresses)
        ]

    @property
    def networks(self) -> list[Network]:
        """Those that it is on; a link's own addresses are no reason to route to others of the kind."""
        found = (ip_interface(cidr) for one in self.interfaces for cidr in one.addresses)
        return list(dict.fromkeys(one.network for one in found if not one.ip.is_link_local))


@dataclass(frozen=True, slots=True)
class Rules:
    """Builds the changes for one pair of tables of this name. ``group`` is where refusals are logged."""

    table: str
    group: int

    def base(self) -> list[Request]:
        """Both tables anew and empty."""
        requests: list[Request] = []
        for family in (nft.INET, act.BRIDGE):
            requests += self._anew(family)
        requests.append(self._hook(nft.INET, _BETWEEN_CONNTRACK_AND_NAT))
        for version, (_, kind, size, source, _) in _FAMILIES.items():
            requests.append(act.add_verdict_map(nft.INET, self.table, f"guarded{version}", key=(kind, size)))
            look = [
                *_of(version),
                nft.payload(nft.NETWORK_HEADER, source, size),
                act.go_by(f"guarded{version}"),
            ]
            requests.append(self._rule(nft.INET, "prerouting", look, "by the source"))
        return [*requests, *self._source_guard()]

    @property
    def base_size(self) -> tuple[int, int]:
        """How many rules the base chains have."""
        return len(_FAMILIES), 1

    def _anew(self, family: int) -> list[Request]:
        add = nft.add_table(family, self.table)
        return [add, nft.delete_table(family, self.table), add]

    def _hook(self, family: int, priority: int) -> Request:
        return nft.add_chain(
            nft.Chain(
                family=family,
                table=self.table,
                name="prerouting",
                kind="filter",
                hook=nft.PREROUTING,
                priority=priority,
            )
        )

    def _rule(self, family: int, chain: str, expressions: Iterable[nft.Expression], comment: str) -> Request:
        return nft.append_rule(family, self.table, chain, expressions, comment=comment)

    def _source_guard(self) -> list[Request]:
        family = act.BRIDGE
        port = nft.meta(nft.META_IIFNAME)
        requests = [
            nft.add_chain(nft.Chain(family=family, table=self.table, name="sources")),
            self._hook(family, _BRIDGE_FIRST),
            nft.add_set(family, self.table, "ports", key=(_NAME_TYPE, _NAME_SIZE)),
        ]
        for version, (_, kind, size, _, _) in _FAMILIES.items():
            both = (_NAME_TYPE << 6 | kind, _NAME_SIZE + size)
            requests.append(nft.add_set(family, self.table, f"sources{version}", key=both))
        to_sources = [port, nft.lookup("ports"), nft.verdict(nft.JUMP, "sources")]
        requests.append(self._rule(family, "prerouting", to_sources, "guarded ports"))
        accept = nft.verdict(nft.ACCEPT)
        for ether, place, version in (
            (_ETHER[4], _FAMILIES[4][3], 4),
            (_ARP, _ARP_SENDER, 4),
            (_ETHER[6], _FAMILIES[6][3], 6),
        ):
            own = nft.payload(nft.NETWORK_HEADER, place, _FAMILIES[version][2], register=_AFTER_NAME)
            look = [port, own, nft.lookup(f"sources{version}"), accept]
            requests.append(self._rule(family, "sources", [*_below(ether), *look], "from its own address"))
        for kind in _DISCOVERY:
            neighbours = [
                *_below(_ETHER[6]),
                *_protocol(_ICMP[6]),
                nft.payload(nft.TRANSPORT_HEADER, 0, 1),
                nft.equals(bytes((kind,))),
            ]
            requests.append(self._rule(family, "sources", [*neighbours, accept], "neighbours"))
        requests.append(self._rule(family, "sources", [nft.verdict(nft.DROP)], "nothing else"))
        return requests

    # ---- one container -------------------------------------------------------------------------------------

    def put(self, guard: Guard, former: Guard | None = None) -> list[Request]:
        """Hold a container to its policy. Needs the base; ``former`` is what it was held to until now."""
        table = self.table
        requests = self._unmap(former, but=guard) if former is not None else []
        requests.append(nft.add_chain(nft.Chain(family=nft.INET, table=table, name=guard.chain)))
        requests.append(act.flush_chain(nft.INET, table, guard.chain))
        if guard.policy.names:
            for version in _FAMILIES:
                requests += [
                    act.add_fading_set(nft.INET, table, name, key=key)
                    for name, key in _sets(guard.key, version)
                ]
        requests += [
            self._rule(nft.INET, guard.chain, expressions, comment)
            for comment, expressions in self._judgement(guard)
        ]
        for port, address in guard.sources:
            requests.append(
                act.put_jump(nft.INET, table, f"guarded{address.version}", address.packed, guard.chain)
            )
            key = nft.interface(port)
            requests.append(act.put_keys(act.BRIDGE, table, "ports", (key,)))
            requests.append(
                act.put_keys(act.BRIDGE, table, f"sources{address.version}", (key + address.packed,))
            )
        return requests

    def take(self, guard: Guard) -> list[Request]:
        """Hold the container to nothing any more; ENOENT if something of it is not there."""
        requests = self._unmap(guard)
        requests.append(act.flush_chain(nft.INET, self.table, guard.chain))
        requests.append(nft.delete_chain(nft.INET, self.table, guard.chain))
        if guard.policy.names:
            requests += [
                nft.delete_set(nft.INET, self.table, name)
                for version in _FAMILIES
                for name, _ in _sets(guard.key, version)
            ]
        return requests

    def _unmap(self, guard: Guard, *, but: Guard | None = None) -> list[Request]:
        kept = but.sources if but is not None else []
        requests: list[Request] = []
        for port, address in guard.sources:
            if (port, address) in kept:
                continue
            key, version = nft.interface(port), address.version
            if address not in [other for _, other in kept]:
                requests.append(
                    nft.delete_elements(nft.INET, self.table, f"guarded{version}", [address.packed])
                )
            requests.append(
                nft.delete_elements(act.BRIDGE, self.table, f"sources{version}", [key + address.packed])
            )
        gone = {port for port, _ in guard.sources} - {port for port, _ in kept}
        requests += [
            nft.delete_elements(act.BRIDGE, self.table, "ports", [nft.interface(port)])
            for port in sorted(gone)
        ]
        return requests

    def _judgement(self, guard: Guard) -> list[tuple[str, list[nft.Expression]]]:
        accept = nft.verdict(nft.ACCEPT)
        state = nft.conntrack(nft.CT_STATE)
        established, related = (
            [state, nft.mask(nft.host32(bit)), nft.differs(bytes(4))]
            for bit in (nft.CT_ESTABLISHED, nft.CT_RELATED)
        )
        rules = [("established", [*established, accept])]
        for icmp in _ICMP.values():
            rules.append(("about an established one", [*related, *_protocol(icmp), accept]))
        for kind in _DISCOVERY:
            first = [nft.payload(nft.TRANSPORT_HEADER, 0, 1), nft.equals(bytes((kind,)))]
            rules.append(("neighbours", [*_of(6), *_protocol(_ICMP[6]), *first, accept]))
        elsewhere = [nft.local_destination(), nft.equals(act.UNICAST)]
        for network in guard.networks:
            rules.append(("its own networks", [*_to(network), *elsewhere, accept]))
        for network, port in guard.policy.networks:
            rules += [("allowed", [*_to(network), *of_port, accept]) for of_port in _ports(port)]
        if guard.policy.names:
            for version in _FAMILIES:
                rules += [
                    ("a name's", [*expressions, *elsewhere, accept])
                    for expressions in _pinned(guard.key, version)
                ]
        told = act.limit(each_second=_LOGGED_EACH_SECOND, burst=_LOGGED_AT_ONCE)
        log = act.log(group=self.group, prefix=guard.container_id, size=LOGGED_BYTES)
        rules.append(("told", [told, log]))
        rules.append(("refused", [*_protocol(socket.IPPROTO_TCP), act.reset()]))
        rules.append(("refused", [act.prohibited()]))
        return rules

    def pin(self, guard: Guard, pins: Mapping[Pin, float]) -> list[Request]:
        """Open what a name was resolved to, for so many seconds from now."""
        found: dict[str, list[tuple[bytes, float]]] = {}
        for (address, port), left in pins.items():
            (plain, _), (with_port, _) = _sets(guard.key, address.version)
            name = with_port if port else plain
            found.setdefault(name, []).append((_pin_key(address, port), left))
        return [
            request
            for name, elements in found.items()
            for first in range(0, len(elements), _PINS_AT_ONCE)
            for request in act.put_fading(nft.INET, self.table, name, elements[first : first + _PINS_AT_ONCE])
        ]

    def pinned(self, guard: Guard) -> dict[Pin, float]:
        """What is open for the container's names in the kernel, and for how many seconds yet."""
        pins: dict[Pin, float] = {}
        for version, (_, _, size, _, _) in _FAMILIES.items():
            for name, _ in _sets(guard.key, version):
                try:
                    elements = act.fading_elements(nft.INET, self.table, name)
                except FileNotFoundError:
                    continue
                for key, left in elements:
                    pins[ip_address(key[:size]), int.from_bytes(key[size : size + 2], "big")] = left
        return pins


def _sets(key: str, version: int) -> tuple[tuple[str, tuple[int, int]], tuple[str, tuple[int, int]]]:
    """(name, key) of the set of addresses and of the one of addresses with a port."""
    _, kind, size, _, _ = _FAMILIES[version]
    return (f"{version}_{key}", (kind, size)), (f"{version}p_{key}", (kind << 6 | _PORT_TYPE, size + 4))


def _pin_key(address: Address, port: int) -> bytes:
    return address.packed + (struct.pack("!Hxx", port) if port != ANY_PORT else b"")


def _of(version: int) -> list[nft.Expression]:
    return [nft.meta(act.META_FAMILY), nft.equals(bytes((_FAMILIES[version][0],)))]


def _below(ether: bytes) -> list[nft.Expression]:
    return [nft.meta(act.META_PROTOCOL_BELOW), nft.equals(ether)]


def _protocol(number: int) -> list[nft.Expression]:
    return [nft.meta(nft.META_PROTOCOL), nft.equals(bytes((number,)))]


def _destination(version: int) -> nft.Expression:
    _, _, size, _, place = _FAMILIES[version]
    return nft.payload(nft.NETWORK_HEADER, place, size)


def _to(network: Network) -> list[nft.Expression]:
    address, mask = nft.network(str(ip_network(network)))
    return [*_of(network.version), _destination(network.version), nft.mask(mask), nft.equals(address)]


def _ports(port: int) -> Sequence[list[nft.Expression]]:
    """One match for each protocol that has ports; one that matches everything for no port."""
    if port == ANY_PORT:
        return ([],)
    number = nft.payload(nft.TRANSPORT_HEADER, 2, 2)
    same = nft.equals(struct.pack("!H", port))
    return [[*_protocol(protocol), number, same] for protocol in _WITH_PORTS]


def _pinned(key: str, version: int) -> Sequence[list[nft.Expression]]:
    (plain, _), (with_port, _) = _sets(key, version)
    destination = _destination(version)
    port = nft.payload(nft.TRANSPORT_HEADER, 2, 2, register=_AFTER_ADDRESS[version])
    found = [[*_of(version), destination, nft.lookup(plain)]]
    for protocol in _WITH_PORTS:
        found.append([*_of(version), *_protocol(protocol), destination, port, nft.lookup(with_port)])
    return found


__all__ = ["LOGGED_BYTES", "Guard", "Interface", "Pin", "Policy", "Rules"]
