"""nf_tables by raw netlink: tables, chains, rules, sets, maps and their elements, without the nft program.

Laws:
- Changes go through ``Firewall.commit``: one transaction, all or nothing. It fails with the kernel's errno
  (ENOENT: no such table or chain; EEXIST; EOPNOTSUPP or EPROTONOSUPPORT: the kernel lacks a part).
- A rule is a tuple of expressions; expressions pass values through register 1, as nft(8) itself compiles
  them, so that ``nft list ruleset`` shows what was meant.
- Netfilter's integers are big-endian; what a packet's register holds is in the packet's order, and what the
  kernel itself stores there (marks, states, interface indexes) in the host's.

The constants are those of <linux/netfilter/nf_tables.h>. Small imports only.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.linux.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Netlink,
    Request,
    attribute,
    attributes,
    nested,
    string,
    table,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NETLINK_NETFILTER = 12
GROUP_NFTABLES = 7

INET, IP, IP6 = 1, 2, 10
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)
DROP, ACCEPT = 0, 1
JUMP, GOTO, RETURN = -3, -4, -5

META_MARK, META_IIFNAME, META_OIFNAME, META_IIFGROUP = 3, 6, 7, 23
META_PROTOCOL = 16  # of the transport layer
CT_STATE, CT_STATUS, CT_SOURCE_IP, CT_SOURCE_IP6 = 0, 2, 19, 21
CT_INVALID, CT_ESTABLISHED, CT_RELATED, CT_NEW = 1, 2, 4, 8
CT_STATUS_DNAT = 0x20
ORIGINAL, REPLY = 0, 1
LINK_HEADER, NETWORK_HEADER, TRANSPORT_HEADER = 0, 1, 2

_EQUAL, _NOT_EQUAL = 0, 1
_REGISTER, _VERDICT = 1, 0
_AND_XOR = 0
_IFNAMSIZ = 16
_FIB_ADDRESS_TYPE, _FIB_DESTINATION = 3, 2
LOCAL = struct.pack("=I", 2)  # RTN_LOCAL
WORDS = (8, 9, 10, 11, 12)
"""Registers of four bytes; the first begins where register 1 does."""

_SUBSYSTEM = 10 << 8
_NEWTABLE, _DELTABLE = _SUBSYSTEM | 0, _SUBSYSTEM | 2
_NEWCHAIN, _GETCHAIN, _DELCHAIN = _SUBSYSTEM | 3, _SUBSYSTEM | 4, _SUBSYSTEM | 5
_NEWRULE, _GETRULE, _DELRULE = _SUBSYSTEM | 6, _SUBSYSTEM | 7, _SUBSYSTEM | 8
_NEWSET, _DELSET = _SUBSYSTEM | 9, _SUBSYSTEM | 11
_NEWELEMENT, _GETELEMENT, _DELELEMENT = _SUBSYSTEM | 12, _SUBSYSTEM | 13, _SUBSYSTEM | 14
_GETTABLE = _SUBSYSTEM | 1
_BATCH_BEGIN, _BATCH_END = 16, 17

_SET_MAP = 8
_USERDATA_COMMENT = 0

_nfgenmsg = struct.Struct("!BBH")

Expression = bytes
"""One encoded expression of a rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A chain. ``hook`` is None for one that is only jumped to; ``policy`` is ACCEPT or DROP."""

    family: int
    table: str
    name: str
    kind: str = ""
    hook: int | None = None
    priority: int = 0
    policy: int = ACCEPT


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule as listed: ``expressions`` are (name, data) pairs, ``comment`` as nft(8) shows it."""

    family: int
    table: str
    chain: str
    handle: int
    comment: str
    expressions: tuple[tuple[str, bytes], ...]


def _be32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!I", value & 0xFFFFFFFF))


def _be64(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!Q", value))


def _head(family: int, resource: int = 0) -> bytes:
    return _nfgenmsg.pack(family, 0, resource)


# ---- expressions -------------------------------------------------------------------------------------------


def _expression(name: str, *parts: bytes) -> Expression:
    return text(1, name) + nested(2, *parts)


def _data(kind: int, value: bytes) -> bytes:
    return nested(kind, attribute(1, value))


def meta(key: int) -> Expression:
    """Load a packet's metadata (``META_*``)."""
    return _expression("meta", _be32(2, key), _be32(1, _REGISTER))


def conntrack(key: int, *, direction: int | None = None) -> Expression:
    """Load a value of the packet's connection (``CT_*``); addresses and ports need a direction."""
    which = attribute(3, bytes([direction])) if direction is not None else b""
    return _expression("ct", _be32(1, _REGISTER), _be32(2, key), which)


def load(value: bytes, *, register: int) -> Expression:
    """Put a value into a register."""
    return _expression("immediate", _be32(1, register), _data(2, value))


def local_destination() -> Expression:
    """Load the kind of the packet's destination, to be compared with ``LOCAL``."""
    return _expression("fib", _be32(1, _REGISTER), _be32(2, _FIB_ADDRESS_TYPE), _be32(3, _FIB_DESTINATION))


def payload(base: int, offset: int, size: int, *, register: int = 1) -> Expression:
    """Load ``size`` bytes of the packet at ``offset`` bytes of the header ``base``."""
    return _expression("payload", _be32(1, register), _be32(2, base), _be32(3, offset), _be32(4, size))


def mask(bits: bytes) -> Expression:
    """Keep only ``bits`` of the register."""
    return _expression(
        "bitwise",
        _be32(1, _REGISTER),
        _be32(2, _REGISTER),
        _be32(3, len(bits)),
        _be32(6, _AND_XOR),
        _data(4, bits),
        _data(5, bytes(len(bits))),
    )


def equals(value: bytes) -> Expression:
    return _expression("cmp", _be32(1, _REGISTER), _be32(2, _EQUAL), _data(3, value))


def differs(value: bytes) -> Expression:
    return _expression("cmp", _be32(1, _REGISTER), _be32(2, _NOT_EQUAL), _data(3, value))


def counter() -> Expression:
    return _expression("counter", _be64(1, 0), _be64(2, 0))


def verdict(code: int, chain: str = "") -> Expression:
    """End with ``ACCEPT``, ``DROP``, ``RETURN``, or a ``JUMP`` or ``GOTO`` to ``chain``."""
    target = text(2, chain) if chain else b""
    return _expression("immediate", _be32(1, _VERDICT), nested(2, nested(2, _be32(1, code), target)))


def masquerade() -> Expression:
    return _expression("masq")


def destination_nat(family: int, *, address_register: int, port_register: int) -> Expression:
    """Rewrite the destination to what the registers hold, as a look-up in a map left it there."""
    return _expression(
        "nat", _be32(1, 1), _be32(2, family), _be32(3, address_register), _be32(5, port_register)
    )


def lookup(name: str, *, register: int = 1, into_register: int | None = None) -> Expression:
    """Go on only if the register is in the set; with ``into_register`` load the map's value."""
    target = _be32(3, into_register) if into_register is not None else b""
    return _expression("lookup", text(1, name), _be32(2, register), target)


def xtables_match(name: str, revision: int, info: bytes) -> Expression:
    """A match of the older xtables, the form in which iptables-nft(8) itself reads it back."""
    return _expression("match", text(1, name), _be32(2, revision), attribute(3, info))


def interface(name: str) -> bytes:
    """The value that META_IIFNAME and META_OIFNAME compare with."""
    return os.fsencode(name).ljust(_IFNAMSIZ, b"\0")


def network(cidr: str) -> tuple[bytes, bytes]:
    """Address and mask of an IPv4 or IPv6 network, in packet order."""
    address, _, bits = cidr.partition("/")
    packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    size = len(packed) * 8
    ones = ((1 << int(bits)) - 1) << (size - int(bits))
    return packed, ones.to_bytes(len(packed), "big")


def host32(value: int) -> bytes:
    """A mark, state or group as the kernel keeps it in a register."""
    return struct.pack("=I", value)


# ---- changes -----------------------------------------------------------------------------------------------


def add_table(family: int, name: str) -> Request:
    """Succeeds if it is there."""
    return _NEWTABLE, NLM_F_CREATE, _head(family) + text(1, name) + _be32(2, 0)


def delete_table(family: int, name: str) -> Request:
    """With all that is in it; ENOENT if there is none."""
    return _DELTABLE, 0, _head(family) + text(1, name)


def add_chain(chain: Chain) -> Request:
    """A base chain if it has a hook. Succeeds if it is there with the same hook."""
    body = _head(chain.family) + text(1, chain.table) + text(3, chain.name)
    if chain.hook is not None:
        body += nested(4, _be32(1, chain.hook), _be32(2, chain.priority))
        body += _be32(5, chain.policy) + text(7, chain.kind or "filter")
    return _NEWCHAIN, NLM_F_CREATE, body


def delete_chain(family: int, table_name: str, name: str) -> Request:
    return _DELCHAIN, 0, _head(family) + text(1, table_name) + text(3, name)


def append_rule(
    family: int,
    table_name: str,
    chain: str,
    expressions: Iterable[Expression],
    *,
    comment: str = "",
    first: bool = False,
) -> Request:
    """At the end of the chain, every rule that is there is asked first; or ``first`` of all."""
    body = _head(family) + text(1, table_name) + text(2, chain)
    body += nested(4, *(nested(1, expression) for expression in expressions))
    if comment:
        words = os.fsencode(comment)[:120] + b"\0"
        body += attribute(7, bytes([_USERDATA_COMMENT, len(words)]) + words)
    return _NEWRULE, NLM_F_CREATE | (0 if first else NLM_F_APPEND), body


def delete_rule(rule: Rule) -> Request:
    """ENOENT if it is gone."""
    head = _head(rule.family) + text(1, rule.table) + text(2, rule.chain)
    return _DELRULE, 0, head + _be64(3, rule.handle)


def add_set(
    family: int,
    table_name: str,
    name: str,
    *,
    key: tuple[int, int],
    value: tuple[int, int] | None = None,
) -> Request:
    """A set, or a map if it has a value. ``key`` and ``value`` are (nft(8)'s type number, size in bytes).

    nft's numbers: 7 is an IPv4 address, 13 a port; a concatenation is ``first << 6 | second``, each part
    padded to four bytes.
    """
    body = _head(family) + text(1, table_name) + text(2, name) + _be32(3, _SET_MAP if value else 0)
    body += _be32(4, key[0]) + _be32(5, key[1])
    if value:
        body += _be32(6, value[0]) + _be32(7, value[1])
    return _NEWSET, NLM_F_CREATE, body + _be32(10, 1)


def delete_set(family: int, table_name: str, name: str) -> Request:
    return _DELSET, 0, _head(family) + text(1, table_name) + text(2, name)


def _elements(family: int, table_name: str, name: str, elements: Sequence[tuple[bytes, bytes]]) -> bytes:
    entries = (nested(1, _data(1, key), _data(2, value) if value else b"") for key, value in elements)
    return _head(family) + text(1, table_name) + text(2, name) + nested(3, *entries)


def add_elements(family: int, table_name: str, name: str, elements: Sequence[tuple[bytes, bytes]]) -> Request:
    """(key, value) pairs; the value is empty for a set. EEXIST if a key is there."""
    return _NEWELEMENT, NLM_F_CREATE | NLM_F_EXCL, _elements(family, table_name, name, elements)


def delete_elements(family: int, table_name: str, name: str, keys: Sequence[bytes]) -> Request:
    return _DELELEMENT, 0, _elements(family, table_name, name, [(key, b"") for key in keys])


class Firewall:
    """nf_tables in the network namespace of the calling thread."""

    def __init__(self) -> None:
        self._netlink = Netlink(NETLINK_NETFILTER)

    def __enter__(self) -> Firewall:
        return self

    def __exit__(self, *_failure: object) -> None:
        self._netlink.close()

    def commit(self, changes: Sequence[Request]) -> None:
        """Carry out all the changes in one transaction, or none."""
        if not changes:
            return
        mark = _head(0, _SUBSYSTEM >> 8)
        begin: Request = (_BATCH_BEGIN, 0, mark)
        end: Request = (_BATCH_END, 0, mark)
        # The end of a batch is not acknowledged on every kernel; its last change is.
        self._netlink.perform((begin, *changes, end), acknowledge=-2)

    def tables(self) -> list[tuple[int, str]]:
        """(family, name) of every table."""
        return [
            (body[0], string(table(body[_nfgenmsg.size :])[1]))
            for _, body in self._netlink.dump((_GETTABLE, 0, _head(0)))
        ]

    def chains(self) -> list[Chain]:
        return [parse_chain(body) for _, body in self._netlink.dump((_GETCHAIN, 0, _head(0)))]

    def rules(self, family: int = 0, table_name: str = "", chain: str = "") -> list[Rule]:
        """The rules of all chains, or of one table or chain."""
        body = _head(family)
        if table_name:
            body += text(1, table_name)
        if chain:
            body += text(2, chain)
        return [parse_rule(body) for _, body in self._netlink.dump((_GETRULE, 0, body))]

    def elements(self, family: int, table_name: str, name: str) -> list[tuple[bytes, bytes]]:
        """The (key, value) pairs of a set or map."""
        body = _head(family) + text(1, table_name) + text(2, name)
        found = []
        for _, answer in self._netlink.dump((_GETELEMENT, 0, body)):
            for _, entry in attributes(table(answer[_nfgenmsg.size :]).get(3, b"")):
                parts = table(entry)
                found.append((table(parts[1])[1], table(parts.get(2, b"")).get(1, b"")))
        return found


def parse_chain(body: bytes) -> Chain:
    """The chain in the body of an NFT_MSG_NEWCHAIN message."""
    values = table(body[_nfgenmsg.size :])
    hook = table(values.get(4, b""))
    return Chain(
        family=body[0],
        table=string(values[1]),
        name=string(values[3]),
        kind=string(values.get(7, b"")),
        hook=int.from_bytes(hook[1], "big") if 1 in hook else None,
        priority=int.from_bytes(hook[2], "big", signed=True) if 2 in hook else 0,
        policy=int.from_bytes(values[5], "big") if 5 in values else ACCEPT,
    )


def parse_rule(body: bytes) -> Rule:
    """The rule in the body of an NFT_MSG_NEWRULE message."""
    values = table(body[_nfgenmsg.size :])
    expressions = []
    for _, element in attributes(values.get(4, b"")):
        parts = table(element)
        expressions.append((string(parts[1]), parts.get(2, b"")))
    return Rule(
        family=body[0],
        table=string(values[1]),
        chain=string(values[2]),
        handle=int.from_bytes(values[3], "big"),
        comment=_comment(values.get(7, b"")),
        expressions=tuple(expressions),
    )


def _comment(userdata: bytes) -> str:
    """The comment in a rule's user data, a list of (type, length, value): a byte, a byte, the bytes."""
    position = 0
    while position + 2 <= len(userdata):
        kind, size = userdata[position], userdata[position + 1]
        if kind == _USERDATA_COMMENT:
            return string(userdata[position + 2 : position + 2 + size])
        position += 2 + size
    return ""
