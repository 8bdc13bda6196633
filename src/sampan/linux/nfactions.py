"""What rules of nf_tables do beside accepting and dropping: refuse, log at a limited rate, go on elsewhere.
And sets whose elements end by themselves.

Completes ``linux/nfnetlink.py`` and shares its laws. The constants are those of
<linux/netfilter/nf_tables.h>. Small imports only.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from sampan.linux import nfnetlink as nft
from sampan.linux.netlink import NLM_F_CREATE, Netlink, attribute, attributes, nested, table, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sampan.linux.netlink import Request

META_PROTOCOL_BELOW, META_FAMILY = 1, 15
"""The protocol of the network layer as the link says it, and nf_tables' family of the packet."""

BRIDGE = 7
UNICAST = struct.pack("=I", 1)  # RTN_UNICAST

_NEWSET, _NEWELEMENT, _DELELEMENT, _GETELEMENT = ((10 << 8) | n for n in (9, 12, 14, 13))
_DELRULE = (10 << 8) | 8
_SET_MAP, _SET_TIMEOUT = 8, 16
_VERDICT_TYPE = 0xFFFFFF00
_LOOKUP_VERDICT = 0
_REJECT_RESET, _REJECT_ANY, _ADMINISTRATIVELY = 1, 2, 3
_LIMIT_PACKETS = 0
_nfgenmsg = struct.Struct("!BBH")


def _be(kind: int, value: int, form: str = "!I") -> bytes:
    return attribute(kind, struct.pack(form, value))


def _head(family: int) -> bytes:
    return _nfgenmsg.pack(family, 0, 0)


def _expression(name: str, *parts: bytes) -> nft.Expression:
    return text(1, name) + nested(2, *parts)


# ---- expressions -------------------------------------------------------------------------------------------


def meta(key: int, *, register: int = 1) -> nft.Expression:
    """Load a packet's metadata into a register."""
    return _expression("meta", _be(2, key), _be(1, register))


def go_by(name: str) -> nft.Expression:
    """Go where the map of verdicts says for what register 1 holds; go on where it says nothing."""
    return _expression("lookup", text(1, name), _be(2, 1), _be(3, _LOOKUP_VERDICT))


def limit(*, each_second: int, burst: int) -> nft.Expression:
    """Go on only for so many packets a second, and for ``burst`` of them at once."""
    return _expression(
        "limit", _be(1, each_second, "!Q"), _be(2, 1, "!Q"), _be(3, burst), _be(4, _LIMIT_PACKETS)
    )


def log(*, group: int, prefix: str, size: int) -> nft.Expression:
    """Tell whoever listens to the group of the packet's first ``size`` bytes."""
    return _expression("log", _be(1, group, "!H"), text(2, prefix), _be(3, size))


def reset() -> nft.Expression:
    """Refuse a TCP packet by a reset."""
    return _expression("reject", _be(1, _REJECT_RESET), attribute(2, b"\0"))


def prohibited() -> nft.Expression:
    """Refuse a packet by an ICMP message of its family: administratively prohibited."""
    return _expression("reject", _be(1, _REJECT_ANY), attribute(2, bytes((_ADMINISTRATIVELY,))))


# ---- changes -----------------------------------------------------------------------------------------------


def add_verdict_map(family: int, table_name: str, name: str, *, key: tuple[int, int]) -> Request:
    """A map from keys to verdicts; see ``nfnetlink.add_set`` for the key."""
    body = _head(family) + text(1, table_name) + text(2, name) + _be(3, _SET_MAP)
    body += _be(4, key[0]) + _be(5, key[1]) + _be(6, _VERDICT_TYPE) + _be(7, 0)
    return _NEWSET, NLM_F_CREATE, body + _be(10, 1)


def add_fading_set(family: int, table_name: str, name: str, *, key: tuple[int, int]) -> Request:
    """A set whose elements may end by themselves. Succeeds if it is there; its elements stay."""
    body = _head(family) + text(1, table_name) + text(2, name) + _be(3, _SET_TIMEOUT)
    return _NEWSET, NLM_F_CREATE, body + _be(4, key[0]) + _be(5, key[1]) + _be(10, 1)


def _elements(family: int, table_name: str, name: str, entries: Iterable[bytes]) -> bytes:
    return _head(family) + text(1, table_name) + text(2, name) + nested(3, *entries)


def _key(key: bytes) -> bytes:
    return nested(1, attribute(1, key))


def put_jump(family: int, table_name: str, name: str, key: bytes, chain: str) -> Request:
    """Let ``key`` jump to the chain. Succeeds if it does already."""
    verdict = nested(2, _be(1, nft.JUMP & 0xFFFFFFFF), text(2, chain))
    entry = nested(1, _key(key), nested(2, verdict))
    return _NEWELEMENT, NLM_F_CREATE, _elements(family, table_name, name, (entry,))


def put_keys(family: int, table_name: str, name: str, keys: Iterable[bytes]) -> Request:
    """Keys of a set; those that are there stay."""
    return _NEWELEMENT, NLM_F_CREATE, _elements(family, table_name, name, (nested(1, _key(k)) for k in keys))


def put_fading(
    family: int, table_name: str, name: str, elements: Sequence[tuple[bytes, float]]
) -> list[Request]:
    """(key, seconds from now): from now on each ends then, whether it was there or not.

    Only since 6.12 does the kernel take a new time for one that is there: so it goes and comes again, within
    one transaction.
    """
    keys = [key for key, _ in elements]
    entries = [nested(1, _key(key), _be(4, max(1, int(left * 1000)), "!Q")) for key, left in elements]
    gone = _elements(family, table_name, name, (nested(1, _key(key)) for key in keys))
    return [
        put_keys(family, table_name, name, keys),
        (_DELELEMENT, 0, gone),
        (_NEWELEMENT, NLM_F_CREATE, _elements(family, table_name, name, entries)),
    ]


def flush_chain(family: int, table_name: str, chain: str) -> Request:
    """Delete the rules of a chain."""
    return _DELRULE, 0, _head(family) + text(1, table_name) + text(2, chain)


def fading_elements(family: int, table_name: str, name: str) -> list[tuple[bytes, float]]:
    """The (key, seconds that it lasts) of a set whose elements end; OSError (ENOENT) if there is none."""
    found = []
    body = _head(family) + text(1, table_name) + text(2, name)
    with Netlink(nft.NETLINK_NETFILTER) as netlink:
        answers = netlink.dump((_GETELEMENT, 0, body))
    for _, answer in answers:
        for _, entry in attributes(table(answer[_nfgenmsg.size :]).get(3, b"")):
            parts = table(entry)
            left = int.from_bytes(parts.get(5, b""), "big") / 1000
            found.append((table(parts[1])[1], left))
    return found
