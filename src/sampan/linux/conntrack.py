"""Connections that the kernel keeps track of (nfnetlink_conntrack), as far as they are to be forgotten.

The constants are those of <linux/netfilter/nfnetlink_conntrack.h>. Small imports only.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from sampan.linux.netlink import Netlink, attribute, table
from sampan.linux.nfnetlink import NETLINK_NETFILTER

if TYPE_CHECKING:
    from collections.abc import Collection

    from sampan.linux.netlink import Request

_GET, _DELETE = (1 << 8) | 1, (1 << 8) | 2
_ORIGINAL, _ID, _ZONE = 1, 12, 18
_ADDRESSES, _SOURCES = 1, (1, 3)  # of IPv4 and of IPv6
_NESTED = 0x8000
_nfgenmsg = struct.Struct("!BBH")


def forget(sources: Collection[bytes]) -> int:
    """Forget the connections that one of these addresses began, in packet order; their number."""
    gone = 0
    with Netlink(NETLINK_NETFILTER) as netlink:
        for _, body in netlink.dump((_GET, 0, _nfgenmsg.pack(0, 0, 0))):
            # Most are about somebody else, and a look at the bytes is all that they cost.
            if any(source in body for source in sources) and (found := _begun_by(body, sources)):
                (outcome,) = netlink.attempt((found,))
                if outcome is None:
                    gone += 1
                elif outcome.errno != errno.ENOENT:
                    raise outcome
    return gone


def _begun_by(body: bytes, sources: Collection[bytes]) -> Request | None:
    """What deletes the connection of a message, if one of the addresses began it."""
    values = table(body[_nfgenmsg.size :])
    original = values.get(_ORIGINAL, b"")
    addresses = table(table(original).get(_ADDRESSES, b""))
    if not any(addresses.get(kind) in sources for kind in _SOURCES):
        return None
    parts = [attribute(_ORIGINAL | _NESTED, original)]
    parts += [attribute(kind, values[kind]) for kind in (_ID, _ZONE) if kind in values]
    return _DELETE, 0, _nfgenmsg.pack(body[0], 0, 0) + b"".join(parts)
