"""Connection tracking by netlink: what the kernel remembers of flows, and letting it forget some.

A flow of datagrams has no beginning that the kernel could see: as long as a client goes on sending, the flow
is led where its first datagram was led, whatever the rules say by now. Whoever changes such rules has to let
the kernel forget.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from dataclasses import dataclass

from sampan.linux.netlink import Netlink, nested, table
from sampan.linux.nfnetlink import NETLINK_NETFILTER

_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2
_ORIGINAL, _REPLY = 1, 2  # CTA_TUPLE_*
_IP, _PROTOCOL = 1, 2
_SOURCES, _DESTINATIONS = (1, 3), (2, 4)  # CTA_IP_*, of IPv4 and IPv6
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_nfgenmsg = struct.Struct("!BBH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A tracked flow: protocol, and addresses (packed) and ports of its first packet's destination and of its
    answers' source; the two differ where the destination was rewritten."""

    protocol: int
    destination: bytes
    port: int
    answerer: bytes
    answering_port: int


def forget(family: int, ports: frozenset[int], unwanted: Callable[[Flow], bool]) -> int:
    """Let the kernel forget the flows of a family (AF_INET, AF_INET6) that began at one of these ports, or
    are answered by one, and are unwanted; their number.

    Blocking: the whole table is listed. OSError, and nothing done, where the kernel has no such interface.
    """
    marks = tuple(struct.pack("!H", port) for port in ports)
    with Netlink(NETLINK_NETFILTER) as netlink:
        head = _nfgenmsg.pack(family, 0, 0)
        count = 0
        for _, body in netlink.dump((_GET, 0, head)):
            # Most flows are of other ports: those are told by a look, before anything is taken apart.
            if not any(mark in body for mark in marks):
                continue
            found = table(body[_nfgenmsg.size :])
            flow = parse(found)
            if flow is not None and {flow.port, flow.answering_port} & ports and unwanted(flow):
                request = (_DELETE, 0, head + nested(_ORIGINAL, found[_ORIGINAL]))
                (outcome,) = netlink.attempt((request,))
                if outcome is not None and outcome.errno != errno.ENOENT:
                    raise outcome
                count += outcome is None
    return count


def parse(found: dict[int, bytes]) -> Flow | None:
    """The flow in the attributes of a message; None for one without ports."""
    try:
        original, reply = table(found[_ORIGINAL]), table(found[_REPLY])
        begun, answered = table(original[_PROTOCOL]), table(reply[_PROTOCOL])
        there, here = table(original[_IP]), table(reply[_IP])
        return Flow(
            protocol=begun[_NUMBER][0],
            destination=next(there[kind] for kind in _DESTINATIONS if kind in there),
            port=int.from_bytes(begun[_DESTINATION_PORT], "big"),
            answerer=next(here[kind] for kind in _SOURCES if kind in here),
            answering_port=int.from_bytes(answered[_SOURCE_PORT], "big"),
        )
    except (KeyError, StopIteration, IndexError):
        return None
