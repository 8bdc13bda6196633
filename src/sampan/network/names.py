"""The names of containers on user-defined networks, and the server that answers who asks for them.

Each container that is on such a network has two sockets of its own (``sandbox/resolver.py``), by which the
daemon knows who asks: it is told of those on its own networks, and everything else is asked of the servers
that the container is to use. Law: answers come only from what is running now; a question that cannot be
answered at all is refused at once, so that a program need not wait for its own patience to end.

Questions are forwarded from the host's network namespace, and not at all for a container that has no way out.
What a container that is held to an egress policy may ask, ``gatednames.py`` says.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import random
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sampan.network import asking, gatednames
from sampan.sandbox import channel
from sampan.wire import dns

logger = logging.getLogger(__name__)

_TTL = 600  # seconds, as Docker's
_IDLE = 20.0  # seconds that a connection may be silent
_MOST_ASKED = 512  # questions that are forwarded for a container at a time
_MOST_CONNECTIONS = 64
_AT_ONCE = 64  # datagrams that are answered before others get their turn


@dataclass(slots=True)
class _Asker:
    """A container that may ask: its networks in order, and the servers for what is not ours to know.

    ``aliases`` are names that it alone has for others, by network; ``gate`` says what else it may learn of,
    if not of everything.
    """

    networks: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    gate: gatednames.Gate | None = None
    aliases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    udp: socket.socket | None = None
    tcp: socket.socket | None = None
    asked: int = 0
    connections: int = 0
    work: set[asyncio.Task[None]] = field(default_factory=set)


@dataclass(slots=True)
class _Zone:
    """The names of one network: name → container → addresses, at most one of each version of IP."""

    name: str
    names: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    reverse: dict[str, str] = field(default_factory=dict)
    held: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=dict)


class Names:
    """All methods are for the event loop's thread. Networks are named by their ids."""

    def __init__(self) -> None:
        self._zones: dict[str, _Zone] = {}
        self._askers: dict[str, _Asker] = {}
        self._door: socket.socket | None = None
        self.path = ""

    def start(self, path: str) -> None:
        """Take sockets at ``path`` from launchers."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        door.bind(path)
        os.chmod(path, 0o600)
        door.listen(512)
        self._door, self.path = door, path
        asyncio.get_running_loop().add_reader(door.fileno(), self._accept)

    def close(self) -> None:
        """Answer nobody any more."""
        if self._door is not None:
            asyncio.get_running_loop().remove_reader(self._door.fileno())
            self._door.close()
            self._door = None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
        for container_id in list(self._askers):
            self._dismiss(container_id)

    # ---- who is where --------------------------------------------------------------------------------------

    def join(
        self,
        network: str,
        network_name: str,
        container_id: str,
        addresses: Iterable[str],
        names: Iterable[str],
    ) -> None:
        """Let a container be found on a network by its names, the first of which is its own."""
        self._leave(network, container_id)
        zone = self._zones.setdefault(network, _Zone(network_name))
        given = tuple(dict.fromkeys(name.lower().rstrip(".") for name in names if name))
        held = tuple(addresses)
        for name in given:
            for key in (name, f"{name}.{network_name.lower()}"):
                zone.names.setdefault(key, {})[container_id] = held
        for address in held:
            zone.reverse[address] = f"{given[0]}.{network_name}" if given else network_name
        zone.held[container_id] = (held, given)

    def leave(self, container_id: str, network: str | None = None) -> None:
        """Let it be found no more, on one network or on all; on all, it asks no more either."""
        for key in [network] if network is not None else list(self._zones):
            self._leave(key, container_id)
        if network is None:
            self._dismiss(container_id)

    def _leave(self, network: str, container_id: str) -> None:
        zone = self._zones.get(network)
        held = zone.held.pop(container_id, None) if zone is not None else None
        if zone is None or held is None:
            return
        addresses, names = held
        for address in addresses:
            zone.reverse.pop(address, None)
        for name in names:
            for key in (name, f"{name}.{zone.name.lower()}"):
                found = zone.names.get(key, {})
                found.pop(container_id, None)
                if not found:
                    zone.names.pop(key, None)
        if not zone.held:
            del self._zones[network]

    # ---- who asks ------------------------------------------------------------------------------------------

    def admit(
        self,
        container_id: str,
        networks: Iterable[str],
        servers: Iterable[str],
        aliases: Mapping[str, Mapping[str, str]] | None = None,
        gate: gatednames.Gate | None = None,
    ) -> None:
        """Let a container ask about its networks; ``servers`` empty: it learns of nothing else.

        ``aliases``: network → alias → name, of its links. ``gate``: only by that it learns of what is not on
        its networks.
        """
        asker = self._askers.setdefault(container_id, _Asker())
        asker.gate = gate
        asker.networks, asker.servers = tuple(networks), tuple(servers)
        asker.aliases = {
            network: {alias.lower(): name.lower() for alias, name in found.items()}
            for network, found in (aliases or {}).items()
        }

    def serves(self, container_id: str) -> bool:
        """Whether it has sockets to ask by."""
        asker = self._askers.get(container_id)
        return asker is not None and asker.udp is not None

    def adopt(self, container_id: str, udp: socket.socket, tcp: socket.socket) -> None:
        """Answer a container's sockets, in place of earlier ones. Of one that may not ask they are closed."""
        asker = self._askers.get(container_id)
        if asker is None:
            udp.close()
            tcp.close()
            return
        self._hang_up(asker)
        loop = asyncio.get_running_loop()
        for sock in (udp, tcp):
            sock.setblocking(False)
        asker.udp, asker.tcp = udp, tcp
        loop.add_reader(udp.fileno(), self._datagrams, asker, udp)
        loop.add_reader(tcp.fileno(), self._connection, asker, tcp)

    def _accept(self) -> None:
        assert self._door is not None
        with contextlib.suppress(OSError):
            connection, _ = self._door.accept()
            connection.setblocking(False)
            loop = asyncio.get_running_loop()
            loop.add_reader(connection.fileno(), self._take, connection)

    def _take(self, connection: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(connection.fileno())
        with connection:
            try:
                message = channel.receive(connection)
            except OSError:
                return
            if message is None:
                return
            document, fds = message
            if len(fds) != 2:
                for fd in fds:
                    os.close(fd)
                return
            self.adopt(document["id"], socket.socket(fileno=fds[0]), socket.socket(fileno=fds[1]))

    def _dismiss(self, container_id: str) -> None:
        asker = self._askers.pop(container_id, None)
        if asker is not None:
            self._hang_up(asker)
            for task in asker.work:
                task.cancel()

    def _hang_up(self, asker: _Asker) -> None:
        for sock in (asker.udp, asker.tcp):
            if sock is not None:
                asyncio.get_running_loop().remove_reader(sock.fileno())
                sock.close()
        asker.udp = asker.tcp = None

    # ---- answering -----------------------------------------------------------------------------------------

    def _datagrams(self, asker: _Asker, sock: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                message, source = sock.recvfrom(asking.LARGEST)
            except OSError:
                return
            question = dns.parse(message)
            known = self._known(asker, question, message, datagram=True) if question is not None else None
            if known is None:
                known = self._outside(asker, message, question)
                if known is None:
                    self._work(asker, self._forward_datagram(asker, sock, message, question, source))
                    continue
            with contextlib.suppress(OSError):
                sock.sendto(known, source)

    def _outside(self, asker: _Asker, message: bytes, question: dns.Question | None) -> bytes | None:
        """The refusal of a question that is not to be forwarded; None for one that is."""
        if asker.gate is not None:
            refusal = gatednames.refused(asker.gate, message, question)
            if refusal is not None:
                return refusal
        if asker.servers and asker.asked < _MOST_ASKED and len(message) >= 12:
            return None
        return dns.refusal(message, dns.SERVER_FAILURE)

    def _known(
        self, asker: _Asker, question: dns.Question, message: bytes, *, datagram: bool
    ) -> bytes | None:
        """The answer to what is asked about the asker's networks; None if it is about something else."""
        limit = question.size if datagram else 0
        if question.kind == dns.PTR:
            address = dns.reverse(question.name)
            for network in asker.networks:
                zone = self._zones.get(network)
                if address and zone is not None and address in zone.reverse:
                    record = dns.encode_name(zone.reverse[address])
                    return dns.answer(message, question, (record,), ttl=_TTL, limit=limit)
            return None
        addresses = self._linked(asker, question.name) if asker.aliases else []
        addresses = addresses or self.lookup(asker.networks, question.name)
        if not addresses:
            return None
        # Of what is ours there is nothing but addresses, and nobody else is to say otherwise.
        records = [
            socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
            for address in addresses
            if question.kind == (dns.AAAA if ":" in address else dns.A)
        ]
        return dns.answer(message, question, records, ttl=_TTL, limit=limit)

    def _linked(self, asker: _Asker, name: str) -> list[str]:
        """The addresses of what a name means for this asker alone."""
        for network, aliases in asker.aliases.items():
            zone = self._zones.get(network)
            plain = name.removesuffix(f".{zone.name.lower()}") if zone is not None else name
            target = aliases.get(plain)
            if target is not None and (found := self.lookup((network,), target)):
                return found
        return []

    def lookup(self, networks: Sequence[str], name: str) -> list[str]:
        """The addresses of a name on the first of these networks that knows it, in any order."""
        for network in networks:
            zone = self._zones.get(network)
            found = zone.names.get(name) if zone is not None else None
            if found:
                addresses = list(dict.fromkeys(itertools.chain.from_iterable(found.values())))
                if len(addresses) > 1:
                    random.shuffle(addresses)
                return addresses
        return []

    def _work(self, asker: _Asker, coroutine: object) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine)  # type: ignore[arg-type]
        asker.work.add(task)
        task.add_done_callback(asker.work.discard)

    async def _forward_datagram(
        self,
        asker: _Asker,
        sock: socket.socket,
        message: bytes,
        question: dns.Question | None,
        source: tuple[Any, ...],
    ) -> None:
        answer = await self._forward(asker, message, question, datagram=True)
        if asker.udp is sock:
            with contextlib.suppress(OSError):
                sock.sendto(answer, source)

    async def _forward(
        self, asker: _Asker, message: bytes, question: dns.Question | None, *, datagram: bool
    ) -> bytes:
        """What other servers say to a question that ``_outside`` lets through."""
        asker.asked += 1
        try:
            if asker.gate is not None and question is not None:
                return await gatednames.answer(
                    asker.gate, asker.servers, message, question, datagram=datagram
                )
            ask = asking.by_datagram if datagram else asking.by_stream
            answer = await asking.first(ask, asker.servers, message)
        finally:
            asker.asked -= 1
        return answer or dns.refusal(message, dns.SERVER_FAILURE)

    def _connection(self, asker: _Asker, sock: socket.socket) -> None:
        try:
            connection, _ = sock.accept()
        except OSError:
            return
        if asker.connections >= _MOST_CONNECTIONS:
            connection.close()
            return
        connection.setblocking(False)
        self._work(asker, self._converse(asker, connection))

    async def _converse(self, asker: _Asker, connection: socket.socket) -> None:
        asker.connections += 1
        try:
            reader, writer = await asyncio.open_connection(sock=connection)
            try:
                while True:
                    message = await asyncio.wait_for(asking.receive(reader), _IDLE)
                    answer = await self._answer_stream(asker, message)
                    writer.write(len(answer).to_bytes(2, "big") + answer)
                    await asyncio.wait_for(writer.drain(), _IDLE)
            finally:
                writer.close()
        except (OSError, EOFError, TimeoutError):
            return
        finally:
            asker.connections -= 1

    async def _answer_stream(self, asker: _Asker, message: bytes) -> bytes:
        question = dns.parse(message)
        known = self._known(asker, question, message, datagram=False) if question is not None else None
        known = known or self._outside(asker, message, question)
        return known or await self._forward(asker, message, question, datagram=False)
