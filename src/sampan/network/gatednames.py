"""Names for a container that is held to an egress policy.

Laws: only what the policy names is looked up; only addresses are; the server that is asked sees the name and
nothing else of what the container sent; the container hears of no address that was not opened for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sampan.network import asking
from sampan.wire import dns


class Gate(Protocol):
    """Implemented by ``egress.Gate``."""

    def admits(self, name: str) -> bool: ...

    async def open(self, name: str, addresses: Sequence[bytes], ttl: int) -> tuple[list[bytes], int]: ...

    def refuse(self, name: str) -> None: ...


def refused(gate: Gate, message: bytes, question: dns.Question | None) -> bytes | None:
    """The refusal of a question; None for one that is to be asked on."""
    if question is not None and gate.admits(question.name):
        return None
    if question is not None:
        gate.refuse(question.name)
    return dns.refusal(message, dns.REFUSED)


async def answer(
    gate: Gate, servers: Sequence[str], message: bytes, question: dns.Question, *, datagram: bool
) -> bytes:
    """What the container is told about a name that may be looked up."""
    limit = question.size if datagram else 0
    if question.kind not in (dns.A, dns.AAAA):
        return dns.answer(message, question, (), ttl=0, limit=limit)
    found = await _look_up(servers, question)
    if found is None or found.code not in (dns.NO_ERROR, dns.NO_SUCH_NAME):
        return dns.refusal(message, dns.SERVER_FAILURE)
    if found.code == dns.NO_SUCH_NAME:
        return dns.refusal(message, dns.NO_SUCH_NAME)
    try:
        opened, seconds = await gate.open(question.name, found.addresses, found.ttl)
    except OSError:
        return dns.refusal(message, dns.SERVER_FAILURE)
    if found.addresses and not opened:
        gate.refuse(question.name)
        return dns.refusal(message, dns.REFUSED)
    return dns.answer(message, question, opened, ttl=seconds, limit=limit)


async def _look_up(servers: Sequence[str], question: dns.Question) -> dns.Resolved | None:
    query = dns.plain(question)
    said = await asking.first(asking.by_datagram, servers, query)
    found = dns.resolved(said, question.kind) if said else None
    if found is not None and found.cut:
        said = await asking.first(asking.by_stream, servers, query)
        found = dns.resolved(said, question.kind) if said and dns.answers(said, query) else None
    return found
