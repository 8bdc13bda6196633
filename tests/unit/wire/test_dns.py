"""DNS messages: the question is found, and answered with what fits."""

from __future__ import annotations

import socket
import struct

from hypothesis import given
from hypothesis import strategies as st

from sampan.wire import dns


def query(name: str, kind: int = dns.A, *, number: int = 0x1234, more: bytes = b"") -> bytes:
    head = struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 1 if more else 0)
    return head + dns.encode_name(name) + struct.pack("!HH", kind, 1) + more


def test_a_question() -> None:
    message = query("Web.Shop", number=7)
    found = dns.parse(message)
    assert found is not None
    assert (found.id, found.name, found.kind, found.end, found.size) == (
        7,
        "web.shop",
        dns.A,
        len(message),
        512,
    )
    larger = dns.parse(query("web", more=b"\0" + struct.pack("!HHIH", 41, 1232, 0, 0)))
    assert larger is not None
    assert larger.size == 1232


def test_an_answer_repeats_the_question_as_it_was() -> None:
    message = query("WEB")
    question = dns.parse(message)
    assert question is not None
    said = dns.answer(message, question, [socket.inet_aton("10.0.0.2")], ttl=600)
    assert said[:2] == message[:2]
    assert struct.unpack_from("!HHHH", said, 4) == (1, 1, 0, 0)
    assert said[12 : len(message)] == message[12:]
    assert said.endswith(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x02\x58\x00\x04\x0a\x00\x00\x02")
    assert dns.answers(said, message)
    assert not dns.answers(said, query("web", number=8))
    assert not dns.answers(said, query("other"))


def test_what_does_not_fit_is_cut_and_marked() -> None:
    message = query("many")
    question = dns.parse(message)
    assert question is not None
    records = [socket.inet_aton(f"10.0.0.{number}") for number in range(100)]
    said = dns.answer(message, question, records, ttl=1, limit=512)
    assert len(said) <= 512
    assert said[2] & 0x02
    assert not dns.answer(message, question, records, ttl=1)[2] & 0x02


def test_what_is_no_question() -> None:
    message = query("web")
    for wrong in (
        b"",
        message[:11],
        message[:-1],
        message[:2] + b"\x81\x00" + message[4:],  # an answer
        message[:2] + b"\x28\x00" + message[4:],  # an update
        message[:4] + b"\x00\x02" + message[6:],  # two questions
        message[:12] + b"\xc0\x0c" + message[-4:],  # a pointer to itself
        message[:-2] + b"\x00\x03",  # of another class
    ):
        assert dns.parse(wrong) is None
    assert dns.refusal(b"short", dns.SERVER_FAILURE) == b""
    assert dns.refusal(message, dns.SERVER_FAILURE)[3] & 0x0F == dns.SERVER_FAILURE


def test_reverse_names() -> None:
    assert dns.reverse("2.0.28.172.in-addr.arpa") == "172.28.0.2"
    for other in ("web", "0.28.172.in-addr.arpa", "x.0.28.172.in-addr.arpa", "1.ip6.arpa"):
        assert dns.reverse(other) is None


@given(st.binary(max_size=600))
def test_nothing_raises(message: bytes) -> None:
    question = dns.parse(message)
    if question is not None:
        dns.answer(message, question, [b"1234"] * 3, ttl=1, limit=512)
    dns.refusal(message, dns.SERVER_FAILURE)
    dns.answers(message, query("web"))
    dns.answers(query("web"), message)


def test_addresses_of_an_answer() -> None:
    message = query("x.example")
    question = dns.parse(message)
    assert question is not None
    assert dns.plain(question) == message
    first, second = socket.inet_aton("192.0.2.1"), socket.inet_aton("192.0.2.2")
    said = dns.answer(message, question, [first, second, first], ttl=7)
    assert dns.resolved(said, dns.A) == dns.Resolved(dns.NO_ERROR, (first, second), 7)
    assert dns.resolved(said, dns.AAAA) == dns.Resolved(dns.NO_ERROR, (), 7)
    # Behind an alias, whose time is shorter.
    alias = b"\xc0\x0c" + struct.pack("!HHIH", 5, 1, 3, 9) + b"\x05other\xc0\x0c\0"
    behind = said[:7] + b"\x03" + said[8 : len(message)] + alias + said[len(message) : len(message) + 32]
    assert dns.resolved(behind, dns.A) == dns.Resolved(dns.NO_ERROR, (first, second), 3)
    assert dns.resolved(dns.refusal(message, dns.NO_SUCH_NAME), dns.A) == dns.Resolved(dns.NO_SUCH_NAME)
    cut = dns.answer(message, question, [first] * 100, ttl=7, limit=60)
    assert dns.resolved(cut, dns.A) == dns.Resolved(dns.NO_ERROR, (first,), 7, cut=True)


@given(st.binary(max_size=100))
def test_answers_may_be_anything(data: bytes) -> None:
    dns.resolved(data, dns.A)
    dns.resolved(b"\0\0\x80\0\0\1\0\3\0\0\0\0" + data, dns.AAAA)
