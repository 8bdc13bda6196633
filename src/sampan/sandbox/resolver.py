"""Where a container asks for names: 127.0.0.11:53 in its network namespace, which the daemon answers.

The sockets are made inside, on a port that the kernel chooses, and given to the daemon; a rule inside leads
port 53 of that one address there, so that the container's own port 53 stays free. The launcher does it
before the program runs, so that its first question waits in a socket instead of being refused; a new daemon
makes them anew.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from sampan.linux import nfnetlink as nft
from sampan.sandbox import channel, interfaces

if TYPE_CHECKING:
    from sampan.linux.netlink import Request

ADDRESS = "127.0.0.11"
_TABLE = "sampan"
_PORT = struct.pack("!H", 53)
_DESTINATION_OFFSET, _PORT_OFFSET = 16, 2  # in the headers of IPv4 and of UDP or TCP
_DSTNAT = -100
_BACKLOG = 64


def offer(place: str, container_id: str, pid: int) -> None:
    """Make the sockets in the namespace of ``pid`` and send them to the daemon's socket at ``place``.

    A daemon that is not there is no failure: the next one makes them anew.
    """
    udp, tcp = make(pid)
    with udp, tcp, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as daemon:
        try:
            daemon.connect(place)
            channel.send(daemon, {"id": container_id}, (udp.fileno(), tcp.fileno()))
        except (FileNotFoundError, ConnectionError):
            return


def make(pid: int) -> tuple[socket.socket, socket.socket]:
    """The sockets for UDP and TCP in the namespace of ``pid``, with the rule that leads to them.

    By a process or a thread that may visit the namespace.
    """
    return interfaces.within(pid, _make)


def _make() -> tuple[socket.socket, socket.socket]:
    interfaces.loopback_up()
    made = []
    try:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            sock = socket.socket(socket.AF_INET, kind)
            made.append(sock)
            sock.bind((ADDRESS, 0))
        udp, tcp = made
        tcp.listen(_BACKLOG)
        with nft.Firewall() as firewall:
            firewall.commit(_rules(udp.getsockname()[1], tcp.getsockname()[1]))
    except BaseException:
        for sock in made:
            sock.close()
        raise
    return udp, tcp


def _rules(udp_port: int, tcp_port: int) -> list[Request]:
    chain = nft.Chain(
        family=nft.IP, table=_TABLE, name="output", kind="nat", hook=nft.OUTPUT, priority=_DSTNAT
    )
    rules = [
        [
            nft.payload(nft.NETWORK_HEADER, _DESTINATION_OFFSET, 4),
            nft.equals(socket.inet_aton(ADDRESS)),
            nft.meta(nft.META_PROTOCOL),
            nft.equals(bytes((protocol,))),
            nft.payload(nft.TRANSPORT_HEADER, _PORT_OFFSET, 2),
            nft.equals(_PORT),
            nft.load(socket.inet_aton(ADDRESS), register=1),
            nft.load(struct.pack("!H", port), register=2),
            nft.destination_nat(nft.IP, address_register=1, port_register=2),
        ]
        for protocol, port in ((socket.IPPROTO_UDP, udp_port), (socket.IPPROTO_TCP, tcp_port))
    ]
    return [
        nft.add_table(nft.IP, _TABLE),
        nft.delete_table(nft.IP, _TABLE),
        nft.add_table(nft.IP, _TABLE),
        nft.add_chain(chain),
        *(nft.append_rule(nft.IP, _TABLE, "output", rule, comment="names") for rule in rules),
    ]
