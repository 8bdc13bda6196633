"""Published ports: what comes to a port of the host goes on to a container.

The table ``BRIDGE-ports`` (``nft list table ip sampan0-ports``, the same of family ip6) looks the destination
up in maps, so that one more port costs the same whether there is one or a thousand:

    prerouting, output (nat, dstnat)    (address, port) in ``tcp_at``/``udp_at``, or a port of any of the
                                        host's addresses in ``tcp_any``/``udp_any``: rewritten to (address,
                                        port)

Laws:
- The client's address is kept. Only what comes from the host's own loopback, or from the container's own
  network, is masqueraded (``firewall.py``): its answers would not come back otherwise.
- What arrives from elsewhere for 127.0.0.0/8 is never looked up: a port published on the host's loopback is
  for the host alone. [::1] is never looked up at all, since the kernel routes it nowhere.
- A port that is published is held by a socket of ours: nobody else can take it, and ``ss`` shows it. What
  reaches the socket itself is copied to the container by the daemon (``copying.py``): [::1], addresses of a
  version of IP that the container has not, and everything while rules are missing.
- A flow of datagrams goes where a port leads now: what the kernel remembers of where it led before is
  forgotten whenever the port is published or withdrawn, so that clients need not fall silent first.
- The host's forward chains decide about what is forwarded as about anything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sampan.errors import InvalidArgument, Unavailable
from sampan.linux import ctnetlink, rtnetlink
from sampan.linux import nfnetlink as nft
from sampan.linux.netlink import Netlink, Request
from sampan.network.copying import Copying, bound, has_sctp

logger = logging.getLogger(__name__)

ANY, ANY6, LOOPBACK6 = "0.0.0.0", "::", "::1"
_DSTNAT = -100
_PORT_OFFSET = 2  # in the headers of TCP, UDP and SCTP
_LOOPBACK = b"\x7f"
_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": socket.IPPROTO_SCTP}
_PORT = 13  # nft(8)'s number of the type


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """What differs between the versions of IP: where a header has its destination, and how many bytes that
    are; the destinations that are never looked up before routing, and before a packet of our own leaves; the
    type of (address, port)."""

    offset: int
    size: int
    never_in: bytes
    never_out: bytes
    both: tuple[int, int]


_FORMS = {
    nft.IP: _Form(offset=16, size=4, never_in=_LOOPBACK, never_out=b"", both=(7 << 6 | _PORT, 8)),
    nft.IP6: _Form(
        offset=24,
        size=16,
        never_in=bytes(15) + b"\1",
        never_out=bytes(15) + b"\1",
        both=(8 << 6 | _PORT, 20),
    ),
}
_ELEMENTS_AT_ONCE = 200
_ATTEMPTS = 20  # to find a port that is free on IPv4 and on IPv6
_HAS_IPV6 = os.path.isdir("/proc/sys/net/ipv6")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A port of a container that is to be published. ``ports`` are those of the host to choose from, in
    order; empty for any. ``address`` empty: all of the host's."""

    protocol: str
    target: int
    address: str = ""
    ports: range = range(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A port of the host that leads to a container: ``host`` is the address as it is shown."""

    protocol: str
    host: str
    port: int
    address: str
    target: int

    @property
    def where(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def family(self) -> int:
        return nft.IP6 if ":" in self.host else nft.IP

    def element(self) -> tuple[str, bytes, bytes] | None:
        """The map, the key and the value; None for what the kernel cannot lead there."""
        if self.host == LOOPBACK6 or (":" in self.host) != (":" in self.address):
            return None
        value = _packed(self.address) + struct.pack("!Hxx", self.target)
        port = struct.pack("!H", self.port)
        if self.host in (ANY, ANY6):
            return f"{self.protocol}_any", port, value
        return f"{self.protocol}_at", _packed(self.host) + port + b"\0\0", value


_Held: TypeAlias = tuple[Published, socket.socket]


class PublishedPorts:
    """Of one instance. All methods are for the event loop's thread."""

    def __init__(self, bridge: str) -> None:
        self._table = f"{bridge}-ports"
        self._held: dict[str, list[_Held]] = {}
        self._taken: dict[tuple[str, str, int], str] = {}
        self._changing = asyncio.Lock()
        self._standing = False
        self._copying = Copying()
        self._forgetting: set[asyncio.Task[None]] = set()

    async def publish(
        self, container_id: str, wishes: Sequence[Wish], *, addresses: Sequence[str], bridge: str
    ) -> list[Published]:
        """Lead ports of the host to a container's ``addresses``, at most one of each version of IP, behind
        ``bridge``.

        Unavailable, in Docker's words, when a port is taken; nothing is published then.
        """
        made: list[_Held] = []
        try:
            for wish in wishes:
                made.extend(self._reserve(wish, addresses))
            _route_loopback(bridge)
            async with self._changing:
                await self._add([published for published, _ in made])
        except BaseException:
            for published, sock in made:
                self._let_go(published, sock)
            raise
        self._forget([published for published, _ in made], withdrawn=False)
        self._held.setdefault(container_id, []).extend(made)
        for published, sock in made:
            self._copying.serve(sock, published.address, published.target)
        return [published for published, _ in made]

    async def withdraw(self, container_id: str) -> None:
        """Publish nothing of the container any more. Succeeds if nothing was."""
        made = self._held.pop(container_id, None)
        if made is None:
            return
        # At once, for whoever comes next; what it changes in the table waits for what is changed here.
        for published, sock in made:
            self._let_go(published, sock)
        async with self._changing:
            await self._delete([published for published, _ in made])
        self._forget([published for published, _ in made], withdrawn=True)

    async def check(self) -> None:
        """Put the table back if somebody removed it."""
        if not self._held:
            return
        async with self._changing:
            try:
                if not await asyncio.to_thread(self._stands):
                    await asyncio.to_thread(self._build, list(self._everything()))
                    logger.info("the rules of published ports were put back")
            except OSError as error:
                logger.warning("the rules of published ports are missing: %s", error)

    async def settle(self) -> None:
        """Let the table say what is published and nothing else: of what an earlier daemon left."""
        async with self._changing:
            try:
                if self._held:
                    await asyncio.to_thread(self._build, list(self._everything()))
                    self._standing = True
                else:
                    await asyncio.to_thread(self._remove)
                    self._standing = False
            except OSError as error:
                logger.warning("the rules of published ports cannot be changed: %s", error)

    async def close(self) -> None:
        """Hold no port any more; the table goes if nothing is published."""
        self._copying.close()
        await self.forgotten()
        nothing = not self._held
        for made in self._held.values():
            for published, sock in made:
                self._let_go(published, sock)
        self._held.clear()
        if nothing and self._standing:
            await self.settle()

    def _forget(self, ports: Iterable[Published], *, withdrawn: bool) -> None:
        """Let the kernel forget where datagrams to these ports went. Soon: it looks through a large table."""
        datagrams = [port for port in ports if port.protocol == "udp" and port.element() is not None]
        if datagrams:
            work = self._forget_soon(datagrams, withdrawn=withdrawn)
            task = asyncio.get_running_loop().create_task(work)
            self._forgetting.add(task)
            task.add_done_callback(self._forgetting.discard)

    async def _forget_soon(self, ports: Sequence[Published], *, withdrawn: bool) -> None:
        try:
            await asyncio.to_thread(_forget_blocking, ports, withdrawn=withdrawn)
        except OSError as error:
            logger.warning("flows to published ports cannot be forgotten: %s", error)

    async def forgotten(self) -> None:
        """Return when the kernel has forgotten what it is to forget."""
        while self._forgetting:
            await asyncio.wait(self._forgetting)

    # ---- reserving -----------------------------------------------------------------------------------------

    def _reserve(self, wish: Wish, addresses: Sequence[str]) -> list[_Held]:
        """Sockets that hold one port, on all the addresses that are asked for."""
        check_protocol(wish.protocol)
        own = {":" in address: address for address in addresses}
        hosts = [wish.address] if wish.address else [ANY, ANY6] if _HAS_IPV6 else [ANY]
        targets = [(host, own.get(":" in host) or addresses[0]) for host in hosts]
        candidates: Iterable[int] = wish.ports or [0] * _ATTEMPTS
        failure: Unavailable | None = None
        for port in candidates:
            try:
                return self._reserve_one(wish, targets, port)
            except Unavailable as error:
                failure = error
        assert failure is not None
        raise failure

    def _reserve_one(self, wish: Wish, targets: Sequence[tuple[str, str]], port: int) -> list[_Held]:
        made: list[_Held] = []
        try:
            for host, address in targets:
                sock = self._bind(wish, host, port, address)
                port = sock.getsockname()[1]
                published = Published(
                    protocol=wish.protocol, host=host, port=port, address=address, target=wish.target
                )
                self._taken[(wish.protocol, host, port)] = address
                made.append((published, sock))
        except BaseException:
            for published, sock in made:
                self._let_go(published, sock)
            raise
        return made

    def _bind(self, wish: Wish, host: str, port: int, address: str) -> socket.socket:
        try:
            return bound(wish.protocol, host, port)
        except OSError as error:
            shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            if error.errno == errno.EADDRINUSE and self._is_ours(wish.protocol, host, port):
                raise Unavailable(f"Bind for {shown} failed: port is already allocated") from error
            reason = (error.strerror or str(error)).lower()
            raise Unavailable(
                f"failed to bind host port for {shown}:{address}:{wish.target}/{wish.protocol}: {reason}"
            ) from error

    def _is_ours(self, protocol: str, host: str, port: int) -> bool:
        return any(
            (kind, number) == (protocol, port) and (host in (ANY, ANY6, other) or other in (ANY, ANY6))
            for kind, other, number in self._taken
        )

    def _let_go(self, published: Published, sock: socket.socket) -> None:
        self._taken.pop((published.protocol, published.host, published.port), None)
        self._copying.leave(sock)
        sock.close()

    # ---- the table -----------------------------------------------------------------------------------------

    def _everything(self) -> Iterable[Published]:
        return (published for made in self._held.values() for published, _ in made)

    async def _add(self, ports: list[Published]) -> None:
        try:
            if self._standing:
                try:
                    await asyncio.to_thread(self._commit, _element_changes(self._table, ports))
                    return
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.EEXIST):
                        raise
            await asyncio.to_thread(self._build, [*self._everything(), *ports])
            self._standing = True
        except OSError as error:
            raise Unavailable(f"ports cannot be published on this host: {error.strerror or error}") from error

    async def _delete(self, ports: list[Published]) -> None:
        try:
            await asyncio.to_thread(self._commit, _element_changes(self._table, ports, remove=True))
        except OSError:  # it is not as we knew it
            try:
                await asyncio.to_thread(self._build, list(self._everything()))
            except OSError as error:
                logger.warning("published ports cannot be withdrawn: %s", error)

    def _commit(self, changes: list[Request]) -> None:
        with nft.Firewall() as firewall:
            firewall.commit(changes)

    def _build(self, ports: list[Published]) -> None:
        self._commit([*_table_changes(self._table), *_element_changes(self._table, ports)])

    def _remove(self) -> None:
        with nft.Firewall() as firewall:
            there = [family for family, name in firewall.tables() if name == self._table]
            firewall.commit([nft.delete_table(family, self._table) for family in there])

    def _stands(self) -> bool:
        with nft.Firewall() as firewall:
            try:
                return all(
                    len(firewall.rules(family, self._table)) == len(_rules(family)) for family in _families()
                )
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return False
                raise


def _route_loopback(bridge: str) -> None:
    """Let the host's loopback reach the bridge; what the bridge sends to it is dropped (``firewall.py``)."""
    with (
        contextlib.suppress(FileNotFoundError),
        open(f"/proc/sys/net/ipv4/conf/{bridge}/route_localnet", "w", encoding="ascii") as file,
    ):
        file.write("1")


def check_protocol(protocol: str) -> None:
    """Raise InvalidArgument for one whose ports cannot be published on this host."""
    if protocol not in _PROTOCOLS:
        raise InvalidArgument(f"invalid proto: {protocol}")
    if protocol == "sctp" and not has_sctp():
        raise InvalidArgument("an sctp port cannot be published: the kernel of this host has no SCTP")


def _forget_blocking(ports: Sequence[Published], *, withdrawn: bool) -> None:
    targets = {(_packed(port.address), port.target) for port in ports}
    numbers = {port.port for port in ports}
    for family in {socket.AF_INET6 if ":" in port.host else socket.AF_INET for port in ports}:
        with Netlink(rtnetlink.NETLINK_ROUTE) as netlink:
            own = {_packed(address.local) for address in rtnetlink.addresses(netlink, family)}

        def unwanted(flow: ctnetlink.Flow, own: set[bytes] = own) -> bool:
            """One to an address of the host: what a container begins with others is its own business."""
            led_there = (flow.answerer, flow.answering_port) in targets
            return flow.destination in own and led_there is withdrawn

        ctnetlink.forget(family, socket.IPPROTO_UDP, frozenset(numbers), unwanted)


def _families() -> Sequence[int]:
    return tuple(_FORMS) if _HAS_IPV6 else (nft.IP,)


def _served() -> Mapping[str, int]:
    """The protocols whose ports this host can publish, with their numbers."""
    return {name: number for name, number in _PROTOCOLS.items() if name != "sctp" or has_sctp()}


def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def _rules(family: int) -> list[tuple[str, str, list[nft.Expression]]]:
    """(chain, comment, expressions)."""
    form = _FORMS[family]
    first, second = nft.WORDS[0], nft.WORDS[form.size // 4]
    destination = nft.payload(nft.NETWORK_HEADER, form.offset, form.size, register=first)
    rewrite = nft.destination_nat(family, address_register=first, port_register=second)
    found: list[tuple[str, str, list[nft.Expression]]] = []
    for chain, never in (("prerouting", form.never_in), ("output", form.never_out)):
        if never:
            beginning = nft.payload(nft.NETWORK_HEADER, form.offset, len(never))
            found.append(
                (
                    chain,
                    "the host's loopback is the host's alone",
                    [beginning, nft.equals(never), nft.verdict(nft.RETURN)],
                )
            )
    for chain in ("prerouting", "output"):
        for protocol, number in _served().items():
            of_protocol = [nft.meta(nft.META_PROTOCOL), nft.equals(bytes((number,)))]
            port = nft.payload(nft.TRANSPORT_HEADER, _PORT_OFFSET, 2, register=second)
            at = nft.lookup(f"{protocol}_at", register=first, into_register=first)
            found.append((chain, f"{protocol} at an address", [*of_protocol, destination, port, at, rewrite]))
            port = nft.payload(nft.TRANSPORT_HEADER, _PORT_OFFSET, 2, register=first)
            anywhere = nft.lookup(f"{protocol}_any", register=first, into_register=first)
            local = [nft.local_destination(), nft.equals(nft.LOCAL)]
            found.append(
                (chain, f"{protocol} at any address", [*of_protocol, *local, port, anywhere, rewrite])
            )
    return found


def _table_changes(name: str) -> list[Request]:
    """Make the tables anew, with empty maps."""
    changes: list[Request] = []
    for family in _families():
        both = _FORMS[family].both
        chains = [
            nft.Chain(family=family, table=name, name=chain, kind="nat", hook=hook, priority=_DSTNAT)
            for chain, hook in (("prerouting", nft.PREROUTING), ("output", nft.OUTPUT))
        ]
        changes += [
            nft.add_table(family, name),
            nft.delete_table(family, name),
            nft.add_table(family, name),
            *(nft.add_chain(chain) for chain in chains),
            *(nft.add_set(family, name, f"{p}_at", key=both, value=both) for p in _served()),
            *(nft.add_set(family, name, f"{p}_any", key=(_PORT, 2), value=both) for p in _served()),
            *(
                nft.append_rule(family, name, chain, expressions, comment=comment)
                for chain, comment, expressions in _rules(family)
            ),
        ]
    return changes


def _element_changes(table: str, ports: Iterable[Published], *, remove: bool = False) -> list[Request]:
    by_map: dict[tuple[int, str], list[tuple[bytes, bytes]]] = {}
    for published in ports:
        element = published.element()
        if element is not None:
            by_map.setdefault((published.family, element[0]), []).append(element[1:])
    changes = []
    for (family, name), elements in by_map.items():
        for start in range(0, len(elements), _ELEMENTS_AT_ONCE):
            some = elements[start : start + _ELEMENTS_AT_ONCE]
            if remove:
                changes.append(nft.delete_elements(family, table, name, [key for key, _ in some]))
            else:
                changes.append(nft.add_elements(family, table, name, some))
    return changes
