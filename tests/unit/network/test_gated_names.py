"""What a container that is held to an egress policy is told about names, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence

import pytest
from tests.unit.wire.test_dns import query

from sampan.network import asking, gatednames
from sampan.wire import dns

GOOD, BAD = socket.inet_aton("192.0.2.1"), socket.inet_aton("127.0.0.1")


class Gate:
    """Lets names below ``example`` be looked up, and GOOD be opened."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        self.full = False

    def admits(self, name: str) -> bool:
        return name.endswith(".example")

    async def open(self, name: str, addresses: Sequence[bytes], ttl: int) -> tuple[list[bytes], int]:
        if self.full:
            raise OSError
        return [one for one in addresses if one == GOOD], ttl + 1

    def refuse(self, name: str) -> None:
        self.refused.append(name)


def told(gate: Gate, message: bytes) -> bytes:
    question = dns.parse(message)
    refusal = gatednames.refused(gate, message, question)
    if refusal is not None or question is None:
        return refusal or b""
    return asyncio.run(gatednames.answer(gate, ("192.0.2.53",), message, question, datagram=True))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What a server is asked that knows some names."""
    found: list[bytes] = []
    zone = {"good.example": [BAD, GOOD], "bad.example": [BAD], "none.example": []}

    async def server(_: str, message: bytes) -> bytes:
        found.append(message)
        question = dns.parse(message)
        assert question is not None
        if question.name == "deaf.example":
            raise OSError
        if question.name not in zone:
            return dns.refusal(message, dns.NO_SUCH_NAME)
        records = zone[question.name] if question.kind == dns.A else []
        return dns.answer(message, question, records, ttl=10)

    monkeypatch.setattr(asking, "by_datagram", server)
    return found


def test_only_names_of_the_policy_are_looked_up(asked: list[bytes]) -> None:
    gate = Gate()
    assert told(gate, query("secret.elsewhere"))[3] & 15 == dns.REFUSED
    assert told(gate, bytes(12))[3] & 15 == dns.REFUSED
    assert (gate.refused, asked) == (["secret.elsewhere"], [])


def test_the_server_sees_the_name_and_nothing_else(asked: list[bytes]) -> None:
    extra = b"\0" + struct.pack("!HHIH", 41, 1232, 0, 6) + b"secret"
    said = told(Gate(), query("GoOd.example", more=extra))
    assert asked == [query("good.example")]
    assert b"GoOd" in said
    assert said.endswith(struct.pack("!IH", 11, 4) + GOOD)
    assert said[7] == 1


def test_what_is_not_opened_is_not_told(asked: list[bytes]) -> None:
    gate = Gate()
    assert told(gate, query("bad.example"))[3] & 15 == dns.REFUSED
    assert gate.refused == ["bad.example"]
    gate.full = True
    assert told(gate, query("good.example"))[3] & 15 == dns.SERVER_FAILURE


def test_other_answers(asked: list[bytes]) -> None:
    gate = Gate()
    for name, code in (
        ("nobody.example", dns.NO_SUCH_NAME),
        ("deaf.example", dns.SERVER_FAILURE),
        ("none.example", dns.NO_ERROR),
    ):
        said = told(gate, query(name))
        assert (said[3] & 15, said[7]) == (code, 0), name
    # Nothing but addresses is asked for, whatever else a name has.
    asked.clear()
    assert told(gate, query("good.example", 16))[7] == 0
    assert asked == []
