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

from sampan.linux.netlink import Netlink, attribute, nested, table, u32
from sampan.linux.nfnetlink import NETLINK_NETFILTER

_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2
_ORIGINAL, _REPLY = 1, 2  # CTA_TUPLE_*
_IP, _PROTOCOL = 1, 2
_SOURCES, _DESTINATIONS = (1, 3), (2, 4)  # CTA_IP_*, of IPv4 and IPv6
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_FILTER, _ORIGINAL_FLAGS = 25, 1
_BY_PROTOCOL, _BY_DESTINATION_PORT = 1 << 3, 1 << 5
_FEW = 4
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


def forget(family: int, protocol: int, ports: frozenset[int], unwanted: Callable[[Flow], bool]) -> int:
    """Let the kernel forget the flows of a family (AF_INET, AF_INET6) and a protocol that began at one of
    these ports and are unwanted; their number.

    Blocking. OSError, and nothing done, where the kernel has no such interface.
    """
    marks = tuple(struct.pack("!H", port) for port in ports)
    head = _nfgenmsg.pack(family, 0, 0)
    # A look through the kernel's table for each port, or else for all of them here.
    filters = [_filter(protocol, mark) for mark in marks] if len(marks) <= _FEW else [b""]
    count = 0
    with Netlink(NETLINK_NETFILTER) as netlink:
        for one in filters:
            for _, body in netlink.dump((_GET, 0, head + one)):
                # Kernels before 5.8 do not know filters; most flows are told by a look.
                if not any(mark in body for mark in marks):
                    continue
                found = table(body[_nfgenmsg.size :])
                flow = parse(found)
                if flow is None or flow.protocol != protocol or flow.port not in ports or not unwanted(flow):
                    continue
                request = (_DELETE, 0, head + nested(_ORIGINAL, found[_ORIGINAL]))
                (outcome,) = netlink.attempt((request,))
                if outcome is not None and outcome.errno != errno.ENOENT:
                    raise outcome
                count += outcome is None
    return count


def _filter(protocol: int, port: bytes) -> bytes:
    """What makes a listing tell of flows to one port alone."""
    begun = nested(_PROTOCOL, attribute(_NUMBER, bytes((protocol,))), attribute(_DESTINATION_PORT, port))
    wanted = nested(_FILTER, u32(_ORIGINAL_FLAGS, _BY_PROTOCOL | _BY_DESTINATION_PORT))
    return nested(_ORIGINAL, begun) + wanted


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
