"""The firewall of one bridge: tables of its own, and one rule in each host chain that would drop it.

The table (``nft list table ip BRIDGE``, the same of family ip6 where the bridge has IPv6), for bridge B with
subnet S:

    prerouting (filter, raw)        drop what B sends to the host's own loopback addresses
    postrouting (nat, srcnat)       S leaving by any interface but B is masqueraded; so is what comes back
                                    into B to a published port, from S itself or from the host's loopback
    forward (filter, just before    drop what claims to come from S and does not come from B;
    the host's filter chains)       let into B, from elsewhere, only answers and published ports; drop the
                                    rest

So neither other hosts nor containers of other networks reach a container that published nothing. A network
without a way out drops all between B and elsewhere. It needs the rule in the host's chains all the same:
where bridged packets are shown to them (br_netfilter), its containers reach each other by it.

The host's own base chains on forward may have the policy DROP (dockerd and ufw set it), and an accept in our
table changes nothing about that: every base chain decides for itself. Into each such chain one rule is
appended, behind all of the host's own, so that it overrides only the policy:

    connection begun by S: accept       comment "BRIDGE: containers of S may leave"

and for IPv6 a second one, without which containers of one network do not find each other where bridged
packets are shown to the host's chains, since neighbour discovery belongs to no connection:

    ICMPv6 from B to B: accept          comment "BRIDGE: neighbours of S"

Law: nothing of anyone else is changed, and the rule is found again by its comment alone. In ``ip filter
FORWARD`` it is written as iptables-nft(8) writes and reads it; a legacy iptables chain gets it from the
iptables program. Deleting it by hand is safe: it comes back when the daemon next looks.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from sampan.linux import nfnetlink as nft
from sampan.linux.netlink import Request, table
from sampan.network import legacy

_SRCNAT, _BEFORE_FILTER = 100, -1
# Of the addresses in a header of the family: offset of the source and of the destination, size; in bytes.
_HEADERS = {nft.IP: (12, 16, 4), nft.IP6: (8, 24, 16)}
# What begins the addresses of the host's loopback: 127.0.0.0/8, ::1.
_LOOPBACK = {nft.IP: b"\x7f", nft.IP6: bytes(15) + b"\1"}
_RAW = -300
FAMILIES = (nft.IP, nft.IP6)
_ATTEMPTS = 5
_XT_CONNTRACK_STATE, _XT_CONNTRACK_ORIGSRC, _XT_CONNTRACK_REPLSRC = 1 << 0, 1 << 2, 1 << 4
_XT_CONNTRACK_STATE_DNAT = 1 << 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the host's firewall shall say about one bridge. ``subnet`` (IPv4) and ``subnet6`` are in CIDR
    notation, empty where the bridge has none.
    """

    bridge: str
    subnet: str = ""
    subnet6: str = ""
    internal: bool = False
    masquerade: bool = True
    masquerade6: bool = True

    def of(self, family: int) -> str:
        """The subnet of a family (nft.IP, nft.IP6)."""
        return self.subnet if family == nft.IP else self.subnet6

    def comment(self, family: int = nft.IP) -> str:
        return f"{self.bridge}: containers of {self.of(family)} may leave"

    def bypassing(self, family: int) -> str:
        return f"{self.bridge}: published ports of {self.of(family)}"

    def comments(self, family: int) -> list[str]:
        """Of the rules in the host's chains."""
        more = [f"{self.bridge}: neighbours of {self.subnet6}"] if family == nft.IP6 else []
        return [self.comment(family), *more]


def own_rules(policy: Policy, family: int = nft.IP) -> list[tuple[str, str, list[nft.Expression]]]:
    """The rules of our own table as (chain, comment, expressions); comments name what may change."""
    subnet = policy.of(family)
    address, mask = nft.network(subnet)
    source, destination, size = _HEADERS[family]
    loopback = _LOOPBACK[family]
    bridge = nft.interface(policy.bridge)
    from_subnet = [
        nft.payload(nft.NETWORK_HEADER, source, size),
        nft.mask(mask),
        nft.equals(address),
    ]
    into_bridge = [
        nft.meta(nft.META_OIFNAME),
        nft.equals(bridge),
        nft.meta(nft.META_IIFNAME),
        nft.differs(bridge),
    ]
    answers = [
        nft.conntrack(nft.CT_STATE),
        nft.mask(nft.host32(nft.CT_ESTABLISHED | nft.CT_RELATED)),
        nft.differs(bytes(4)),
    ]
    not_from_bridge = [nft.meta(nft.META_IIFNAME), nft.differs(bridge)]
    not_to_bridge = [nft.meta(nft.META_OIFNAME), nft.differs(bridge)]
    accept, drop = nft.verdict(nft.ACCEPT), nft.verdict(nft.DROP)
    from_bridge = [nft.meta(nft.META_IIFNAME), nft.equals(bridge)]
    to_bridge = [nft.meta(nft.META_OIFNAME), nft.equals(bridge)]
    to_loopback = [nft.payload(nft.NETWORK_HEADER, destination, len(loopback)), nft.equals(loopback)]
    forged = ("forward", f"no forged addresses of {subnet}", [*not_from_bridge, *from_subnet, drop])
    guard = ("prerouting", "not to the host's loopback", [*from_bridge, *to_loopback, drop])
    if policy.internal:
        return [
            guard,
            forged,
            ("forward", "nothing into the bridge", [*into_bridge, drop]),
            ("forward", "nothing out of the bridge", [*from_bridge, *not_to_bridge, drop]),
        ]
    rewritten = [
        nft.conntrack(nft.CT_STATUS),
        nft.mask(nft.host32(nft.CT_STATUS_DNAT)),
        nft.differs(bytes(4)),
    ]
    from_loopback = [nft.payload(nft.NETWORK_HEADER, source, len(loopback)), nft.equals(loopback)]
    rules = [
        guard,
        ("postrouting", "back in again", [*to_bridge, *from_subnet, *rewritten, nft.masquerade()]),
        ("postrouting", "in from the host's loopback", [*to_bridge, *from_loopback, nft.masquerade()]),
        forged,
        ("forward", "answers to containers", [*into_bridge, *answers, accept]),
        ("forward", "published ports", [*into_bridge, *rewritten, accept]),
        ("forward", "nothing else into the bridge", [*into_bridge, drop]),
    ]
    if policy.masquerade if family == nft.IP else policy.masquerade6:
        rules.insert(
            1,
            (
                "postrouting",
                f"{subnet} to the world under the host's address",
                [*from_subnet, *not_to_bridge, nft.masquerade()],
            ),
        )
    return rules


_CHAINS = (
    ("prerouting", "filter", nft.PREROUTING, _RAW),
    ("postrouting", "nat", nft.POSTROUTING, _SRCNAT),
    ("forward", "filter", nft.FORWARD, _BEFORE_FILTER),
)


def table_changes(policy: Policy, family: int = nft.IP) -> list[Request]:
    """Make our own table anew, in one transaction."""
    table_name = policy.bridge
    chains = (
        nft.Chain(family=family, table=table_name, name=name, kind=kind, hook=hook, priority=priority)
        for name, kind, hook, priority in _CHAINS
    )
    return [
        nft.add_table(family, table_name),
        nft.delete_table(family, table_name),
        nft.add_table(family, table_name),
        *(nft.add_chain(chain) for chain in chains),
        *(
            nft.append_rule(family, table_name, chain, expressions, comment=comment)
            for chain, comment, expressions in own_rules(policy, family)
        ),
    ]


def exit_rule(policy: Policy, chain: nft.Chain, family: int = nft.IP) -> Request:
    """The rule that lets the bridge's connections of a family through a chain whose policy is DROP."""
    address, mask = nft.network(policy.of(family))
    accept = [nft.counter(), nft.verdict(nft.ACCEPT)]
    if is_iptables(chain):
        expressions = [
            nft.xtables_match("conntrack", 3, _conntrack_origin(address, mask)),
            nft.xtables_match("comment", 0, os.fsencode(policy.comment(family)).ljust(256, b"\0")),
        ]
        return nft.append_rule(chain.family, chain.table, chain.name, [*expressions, *accept])
    expressions = [
        nft.conntrack(nft.CT_SOURCE_IP if family == nft.IP else nft.CT_SOURCE_IP6, direction=nft.ORIGINAL),
        nft.mask(mask),
        nft.equals(address),
    ]
    return nft.append_rule(
        chain.family, chain.table, chain.name, [*expressions, *accept], comment=policy.comment(family)
    )


def bypass_rule(policy: Policy, chain: nft.Chain, family: int) -> Request:
    """Before all others of a chain: connections to published ports, in both directions."""
    address, mask = nft.network(policy.of(family))
    comment = policy.bypassing(family)
    accept = [nft.counter(), nft.verdict(nft.ACCEPT)]
    if is_iptables(chain):
        expressions = [
            nft.xtables_match("conntrack", 3, _conntrack_rewritten(address, mask)),
            nft.xtables_match("comment", 0, os.fsencode(comment).ljust(256, b"\0")),
        ]
        comment = ""
    else:
        expressions = [
            nft.conntrack(nft.CT_STATUS),
            nft.mask(nft.host32(nft.CT_STATUS_DNAT)),
            nft.differs(bytes(4)),
            nft.conntrack(nft.CT_SOURCE_IP if family == nft.IP else nft.CT_SOURCE_IP6, direction=nft.REPLY),
            nft.mask(mask),
            nft.equals(address),
        ]
    return nft.append_rule(
        chain.family, chain.table, chain.name, [*expressions, *accept], comment=comment, first=True
    )


def exit_rules(policy: Policy, chain: nft.Chain, family: int) -> list[Request]:
    """All the rules for a chain whose policy is DROP."""
    rules = [exit_rule(policy, chain, family)]
    if family == nft.IP6:
        bridge = nft.interface(policy.bridge)
        comment = policy.comments(family)[-1]
        among = [
            nft.meta(nft.META_IIFNAME),
            nft.equals(bridge),
            nft.meta(nft.META_OIFNAME),
            nft.equals(bridge),
            nft.meta(nft.META_PROTOCOL),
            nft.equals(bytes((socket.IPPROTO_ICMPV6,))),
        ]
        if is_iptables(chain):
            among.append(nft.xtables_match("comment", 0, os.fsencode(comment).ljust(256, b"\0")))
            comment = ""
        among += [nft.counter(), nft.verdict(nft.ACCEPT)]
        rules.append(nft.append_rule(chain.family, chain.table, chain.name, among, comment=comment))
    return rules


def is_iptables(chain: nft.Chain) -> bool:
    """Whether iptables-nft(8) manages the chain: it refuses a whole table for one rule it cannot read."""
    return chain.family in FAMILIES and (chain.table, chain.name) == ("filter", "FORWARD")


def comment_of(rule: nft.Rule) -> str:
    """A rule's comment, wherever the program that wrote it keeps comments."""
    if rule.comment:
        return rule.comment
    for name, data in rule.expressions:
        if name == "match":
            parts = table(data)
            if parts.get(1, b"").rstrip(b"\0") == b"comment":
                return os.fsdecode(parts[3].split(b"\0", 1)[0])
    return ""


def guards_forwarding(chain: nft.Chain) -> bool:
    """Whether the chain is a host's base chain that sees forwarded packets of IP."""
    return chain.hook == nft.FORWARD and chain.kind == "filter" and bool(families_of(chain))


def families_of(chain: nft.Chain) -> tuple[int, ...]:
    """The families whose packets a chain sees."""
    return FAMILIES if chain.family == nft.INET else tuple(one for one in FAMILIES if one == chain.family)


def _conntrack_origin(address: bytes, mask: bytes) -> bytes:
    """struct xt_conntrack_mtinfo3 for ``--ctorigsrc``: eight 16-byte addresses, then ranges, then flags."""
    pair = address.ljust(16, b"\0") + mask.ljust(16, b"\0")
    flags = struct.pack("=H", _XT_CONNTRACK_ORIGSRC)
    # 128 bytes of addresses and masks, 8 of expiry times, 2 of protocol, 8 of ports, then what to look at;
    # the whole padded to eight.
    return (pair + bytes(96 + 8 + 2 + 8) + flags).ljust(168, b"\0")


def _conntrack_rewritten(address: bytes, mask: bytes) -> bytes:
    """The same for ``--ctreplsrc`` together with ``--ctstate DNAT``."""
    pair = address.ljust(16, b"\0") + mask.ljust(16, b"\0")
    flags = struct.pack("=HHH", _XT_CONNTRACK_STATE | _XT_CONNTRACK_REPLSRC, 0, _XT_CONNTRACK_STATE_DNAT)
    return (bytes(64) + pair + bytes(32 + 8 + 2 + 8) + flags).ljust(168, b"\0")


def against_others(work: Callable[[], bool]) -> bool:
    """Do it again, a few times, while a chain or rule that was listed is gone when it is to be changed.

    Other programs change the firewall as they like; a transaction names what it read a moment ago.
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return work()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINTR):
                raise
    return work()


class BridgeFirewall:
    """Keeps the host's firewall as one policy says. Blocking calls; each of them idempotent.

    ``bypass``: published ports do not obey the host's forward chains, which get a rule for them before all
    others: dockerd's behaviour. Not in legacy iptables.
    """

    def __init__(self, bridge: str, *, bypass: bool = False) -> None:
        self._bridge = bridge
        self._bypass = bypass

    def ensure(self, policy: Policy) -> bool:
        """Repair whatever is missing; True if anything had to be changed."""
        changed = against_others(lambda: self._ensure_nft(policy))
        return self._ensure_legacy(policy) or changed

    def remove(self) -> None:
        """Remove the tables and every rule of ours."""
        against_others(self._remove_nft)
        self._ensure_legacy(None)

    def _ensure_legacy(self, policy: Policy | None) -> bool:
        changed = False
        for family in FAMILIES:
            subnet = policy.of(family) if policy is not None else ""
            comments = policy.comments(family) if policy is not None and subnet else []
            wanted = legacy.rules(self._bridge, subnet, comments)
            changed = legacy.ensure(self._bridge, wanted, ipv6=family == nft.IP6) or changed
        return changed

    def _ensure_nft(self, policy: Policy) -> bool:
        with nft.Firewall() as firewall:
            changes: list[Request] = []
            there = firewall.tables()
            for family in FAMILIES:
                if not policy.of(family):
                    if (family, self._bridge) in there:
                        changes.append(nft.delete_table(family, self._bridge))
                elif (family, self._bridge) not in there or not self._intact(firewall, policy, family):
                    changes.extend(table_changes(policy, family))
            for chain in firewall.chains():
                if guards_forwarding(chain) and chain.table != self._bridge:
                    changes.extend(self._exit_changes(firewall, chain, policy))
            firewall.commit(changes)
        return bool(changes)

    def _remove_nft(self) -> bool:
        with nft.Firewall() as firewall:
            changes: list[Request] = [
                nft.delete_table(family, name) for family, name in firewall.tables() if name == self._bridge
            ]
            for chain in firewall.chains():
                if guards_forwarding(chain):
                    changes.extend(nft.delete_rule(rule) for rule in self._ours(firewall, chain))
            firewall.commit(changes)
        return bool(changes)

    def _intact(self, firewall: nft.Firewall, policy: Policy, family: int) -> bool:
        wanted = [(chain, comment) for chain, comment, _ in own_rules(policy, family)]
        try:
            found = [(rule.chain, rule.comment) for rule in firewall.rules(family, self._bridge)]
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return found == wanted

    def _ours(self, firewall: nft.Firewall, chain: nft.Chain) -> list[nft.Rule]:
        return [
            rule
            for rule in firewall.rules(chain.family, chain.table, chain.name)
            if comment_of(rule).startswith(f"{self._bridge}: ") and chain.table != self._bridge
        ]

    def _exit_changes(self, firewall: nft.Firewall, chain: nft.Chain, policy: Policy) -> list[Request]:
        found = self._ours(firewall, chain)
        own = [family for family in families_of(chain) if policy.of(family)]
        first = own if self._bypass and not policy.internal else []
        wanted = own if chain.policy == nft.DROP else []
        comments = [policy.bypassing(family) for family in reversed(first)]
        comments += [comment for family in wanted for comment in policy.comments(family)]
        if [comment_of(rule) for rule in found] == comments:
            return []
        fresh = [bypass_rule(policy, chain, family) for family in first]
        fresh += [rule for family in wanted for rule in exit_rules(policy, chain, family)]
        return [*(nft.delete_rule(rule) for rule in found), *fresh]
