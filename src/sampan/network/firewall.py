"""The firewall of one bridge: a table of its own, and one rule in each host chain that would drop it.

The table (``nft list table ip BRIDGE``), for bridge B with subnet S:

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

Law: nothing of anyone else is changed, and the rule is found again by its comment alone. In ``ip filter
FORWARD`` it is written as iptables-nft(8) writes and reads it; a legacy iptables chain gets it from the
iptables program. Deleting it by hand is safe: it comes back when the daemon next looks.
"""

from __future__ import annotations

import errno
import os
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sampan.linux import nfnetlink as nft
from sampan.linux.netlink import Request, table

_SRCNAT, _BEFORE_FILTER = 100, -1
_SOURCE_OFFSET, _DESTINATION_OFFSET = 12, 16  # of the addresses in an IPv4 header, in bytes
_LOOPBACK = b"\x7f"  # the first byte of 127.0.0.0/8
_RAW = -300
_ATTEMPTS = 5
_LEGACY_TABLES = "/proc/net/ip_tables_names"
_XT_CONNTRACK_ORIGSRC = 1 << 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the host's firewall shall say about one bridge. ``subnet`` is in CIDR notation."""

    bridge: str
    subnet: str
    internal: bool = False
    masquerade: bool = True

    @property
    def comment(self) -> str:
        return f"{self.bridge}: containers of {self.subnet} may leave"


def own_rules(policy: Policy) -> list[tuple[str, str, list[nft.Expression]]]:
    """The rules of our own table as (chain, comment, expressions); comments name what may change."""
    address, mask = nft.network(policy.subnet)
    bridge = nft.interface(policy.bridge)
    from_subnet = [
        nft.payload(nft.NETWORK_HEADER, _SOURCE_OFFSET, 4),
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
    to_loopback = [nft.payload(nft.NETWORK_HEADER, _DESTINATION_OFFSET, 1), nft.equals(_LOOPBACK)]
    forged = ("forward", f"no forged addresses of {policy.subnet}", [*not_from_bridge, *from_subnet, drop])
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
    from_loopback = [nft.payload(nft.NETWORK_HEADER, _SOURCE_OFFSET, 1), nft.equals(_LOOPBACK)]
    rules = [
        guard,
        ("postrouting", "back in again", [*to_bridge, *from_subnet, *rewritten, nft.masquerade()]),
        ("postrouting", "in from the host's loopback", [*to_bridge, *from_loopback, nft.masquerade()]),
        forged,
        ("forward", "answers to containers", [*into_bridge, *answers, accept]),
        ("forward", "published ports", [*into_bridge, *rewritten, accept]),
        ("forward", "nothing else into the bridge", [*into_bridge, drop]),
    ]
    if policy.masquerade:
        rules.insert(
            1,
            (
                "postrouting",
                f"{policy.subnet} to the world under the host's address",
                [*from_subnet, *not_to_bridge, nft.masquerade()],
            ),
        )
    return rules


def table_changes(policy: Policy) -> list[Request]:
    """Make our own table anew, in one transaction."""
    name = policy.bridge
    chains = (
        nft.Chain(
            family=nft.IP, table=name, name="prerouting", kind="filter", hook=nft.PREROUTING, priority=_RAW
        ),
        nft.Chain(
            family=nft.IP, table=name, name="postrouting", kind="nat", hook=nft.POSTROUTING, priority=_SRCNAT
        ),
        nft.Chain(
            family=nft.IP,
            table=name,
            name="forward",
            kind="filter",
            hook=nft.FORWARD,
            priority=_BEFORE_FILTER,
        ),
    )
    return [
        nft.add_table(nft.IP, name),
        nft.delete_table(nft.IP, name),
        nft.add_table(nft.IP, name),
        *(nft.add_chain(chain) for chain in chains),
        *(
            nft.append_rule(nft.IP, name, chain, expressions, comment=comment)
            for chain, comment, expressions in own_rules(policy)
        ),
    ]


def exit_rule(policy: Policy, chain: nft.Chain) -> Request:
    """The rule that lets the bridge's connections through a chain whose policy is DROP."""
    address, mask = nft.network(policy.subnet)
    accept = [nft.counter(), nft.verdict(nft.ACCEPT)]
    if is_iptables(chain):
        expressions = [
            nft.xtables_match("conntrack", 3, _conntrack_origin(address, mask)),
            nft.xtables_match("comment", 0, os.fsencode(policy.comment).ljust(256, b"\0")),
        ]
        return nft.append_rule(chain.family, chain.table, chain.name, [*expressions, *accept])
    expressions = [
        nft.conntrack(nft.CT_SOURCE_IP, direction=nft.ORIGINAL),
        nft.mask(mask),
        nft.equals(address),
    ]
    return nft.append_rule(
        chain.family, chain.table, chain.name, [*expressions, *accept], comment=policy.comment
    )


def is_iptables(chain: nft.Chain) -> bool:
    """Whether iptables-nft(8) manages the chain: it refuses a whole table for one rule it cannot read."""
    return (chain.family, chain.table, chain.name) == (nft.IP, "filter", "FORWARD")


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
    """Whether the chain is a host's base chain that sees forwarded IPv4 packets."""
    return chain.hook == nft.FORWARD and chain.kind == "filter" and chain.family in (nft.IP, nft.INET)


def _conntrack_origin(address: bytes, mask: bytes) -> bytes:
    """struct xt_conntrack_mtinfo3 for ``--ctorigsrc``: eight 16-byte addresses, then ranges, then flags."""
    pair = address.ljust(16, b"\0") + mask.ljust(16, b"\0")
    flags = struct.pack("=H", _XT_CONNTRACK_ORIGSRC)
    # 128 bytes of addresses and masks, 8 of expiry times, 2 of protocol, 8 of ports, then what to look at;
    # the whole padded to eight.
    return (pair + bytes(96 + 8 + 2 + 8) + flags).ljust(168, b"\0")


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
    """Keeps the host's firewall as one policy says. Blocking calls; each of them idempotent."""

    def __init__(self, bridge: str) -> None:
        self._bridge = bridge

    def ensure(self, policy: Policy) -> bool:
        """Repair whatever is missing; True if anything had to be changed."""
        changed = against_others(lambda: self._ensure_nft(policy))
        return _ensure_legacy(self._bridge, policy) or changed

    def remove(self) -> None:
        """Remove the table and every rule of ours."""
        against_others(self._remove_nft)
        _ensure_legacy(self._bridge, None)

    def _ensure_nft(self, policy: Policy) -> bool:
        with nft.Firewall() as firewall:
            changes: list[Request] = []
            if not self._intact(firewall, policy):
                changes.extend(table_changes(policy))
            for chain in firewall.chains():
                if guards_forwarding(chain) and chain.table != self._bridge:
                    changes.extend(self._exit_changes(firewall, chain, policy))
            firewall.commit(changes)
        return bool(changes)

    def _remove_nft(self) -> bool:
        with nft.Firewall() as firewall:
            changes: list[Request] = []
            if (nft.IP, self._bridge) in firewall.tables():
                changes.append(nft.delete_table(nft.IP, self._bridge))
            for chain in firewall.chains():
                if guards_forwarding(chain):
                    changes.extend(nft.delete_rule(rule) for rule in self._ours(firewall, chain))
            firewall.commit(changes)
        return bool(changes)

    def _intact(self, firewall: nft.Firewall, policy: Policy) -> bool:
        wanted = [(chain, comment) for chain, comment, _ in own_rules(policy)]
        try:
            found = [(rule.chain, rule.comment) for rule in firewall.rules(nft.IP, self._bridge)]
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
        if chain.policy != nft.DROP:
            return [nft.delete_rule(rule) for rule in found]
        if [comment_of(rule) for rule in found] == [policy.comment]:
            return []
        return [*(nft.delete_rule(rule) for rule in found), exit_rule(policy, chain)]


def _ensure_legacy(bridge: str, policy: Policy | None) -> bool:
    """The same rule in legacy iptables' FORWARD chain, if that is in use and drops; None removes it."""
    if "filter" not in _legacy_tables():
        return False
    program = _legacy_program()
    if program is None:
        return False
    lines = _iptables(program, "-S", "FORWARD").splitlines()
    ours = [line for line in lines if f'--comment "{bridge}: ' in line]
    wanted = policy if policy is not None and "-P FORWARD DROP" in lines else None
    if len(ours) == (1 if wanted else 0) and all(wanted and wanted.comment in line for line in ours):
        return False
    for number in reversed([lines.index(line) for line in ours]):
        # -S lists the policy first, so that a rule's index is its number, which counts from 1.
        _iptables(program, "-D", "FORWARD", str(number))
    if wanted is not None:
        match = (
            "-m",
            "conntrack",
            "--ctorigsrc",
            wanted.subnet,
            "-m",
            "comment",
            "--comment",
            wanted.comment,
        )
        _iptables(program, "-A", "FORWARD", *match, "-j", "ACCEPT")
    return True


def _legacy_tables() -> Sequence[str]:
    try:
        with open(_LEGACY_TABLES, encoding="ascii") as file:
            return file.read().split()
    except OSError:
        return ()


def _legacy_program() -> str | None:
    for name in ("iptables-legacy", "iptables"):
        try:
            version = _iptables(name, "-V")
        except FileNotFoundError:
            continue
        if "nf_tables" not in version:
            return name
    return None


def _iptables(program: str, *arguments: str) -> str:
    """Run it and return what it prints; OSError with its last line if it fails."""
    search = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    done = subprocess.run(
        (program, *arguments) if "-V" in arguments else (program, "-w", "5", *arguments),
        env={"PATH": search, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise OSError(errno.EIO, f"{program}: {(done.stderr.strip() or 'failed').splitlines()[-1]}")
    return done.stdout
