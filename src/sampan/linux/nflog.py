"""What rules log to a group, heard by a netlink socket of one's own (nfnetlink_log).

A group has one listener. Law: what is heard was sent by a container and may be anything; ``parse`` says what
can be understood and never raises. The constants are those of <linux/netfilter/nfnetlink_log.h>.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from dataclasses import dataclass

from sampan.linux.netlink import Netlink, Request, attribute, string, table
from sampan.linux.nfnetlink import NETLINK_NETFILTER

_PACKET, _CONFIG = (4 << 8) | 0, (4 << 8) | 1
_COMMAND, _MODE, _THRESHOLD = 1, 2, 5
_BIND, _COPY_PACKET = 1, 2
_PAYLOAD, _PREFIX = 9, 10
_WITH_PORTS = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp", socket.IPPROTO_SCTP: "sctp"}
_OTHERS = {socket.IPPROTO_ICMP: "icmp", socket.IPPROTO_ICMPV6: "icmpv6"}
_nfgenmsg = struct.Struct("!BBH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """A packet that a rule logged under ``prefix``. ``port`` is its destination's, 0 where there is none."""

    prefix: str
    protocol: str
    address: str
    port: int


class Listener:
    """Hears a group. OSError (EBUSY) when somebody else does."""

    def __init__(self, group: int, *, size: int) -> None:
        self._netlink = Netlink(NETLINK_NETFILTER)
        try:
            for part in (
                attribute(_COMMAND, bytes((_BIND,))),
                attribute(_MODE, struct.pack("!IBx", size, _COPY_PACKET)),
                attribute(_THRESHOLD, struct.pack("!I", 1)),  # each at once
            ):
                request: Request = (_CONFIG, 0, _nfgenmsg.pack(socket.AF_UNSPEC, 0, group) + part)
                self._netlink.perform((request,))
        except OSError:
            self._netlink.close()
            raise

    def fileno(self) -> int:
        return self._netlink.fileno()

    def close(self) -> None:
        self._netlink.close()

    def heard(self) -> list[Logged]:
        """What arrived; some may have been lost."""
        found: list[tuple[int, bytes]] = []
        with contextlib.suppress(OSError):
            found = self._netlink.drain()
        packets = [parse(body) for kind, body in found if kind == _PACKET]
        return [packet for packet in packets if packet is not None]


def parse(body: bytes) -> Logged | None:
    """The packet in the body of a message; None for what is no IP packet."""
    try:
        values = table(body[_nfgenmsg.size :])
    except (struct.error, IndexError, ValueError):
        return None
    packet = values.get(_PAYLOAD, b"")
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        number, place = packet[9], (packet[0] & 15) * 4
        address = socket.inet_ntop(socket.AF_INET, packet[16:20])
    elif version == 6 and len(packet) >= 40:
        number, place = packet[6], 40
        address = socket.inet_ntop(socket.AF_INET6, packet[24:40])
    else:
        return None
    port = 0
    if number in _WITH_PORTS and len(packet) >= place + 4:
        port = int.from_bytes(packet[place + 2 : place + 4], "big")
    protocol = _WITH_PORTS.get(number) or _OTHERS.get(number) or str(number)
    return Logged(prefix=string(values.get(_PREFIX, b"")), protocol=protocol, address=address, port=port)
