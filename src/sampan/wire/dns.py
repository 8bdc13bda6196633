"""Names and addresses in DNS messages (RFC 1035): just enough to answer a question that one knows oneself.

Whatever else a message holds is neither read nor kept: it is handed on as it came. Law: no input makes this
raise; what is no plain question has none.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

A, PTR, AAAA = 1, 12, 28
_OPT = 41
_IN, _ANY_CLASS = 1, 255
NO_ERROR, SERVER_FAILURE, NO_SUCH_NAME, NOT_IMPLEMENTED, REFUSED = 0, 2, 3, 4, 5
_RESPONSE, _AUTHORITATIVE, _TRUNCATED, _WANTED, _OFFERED = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
_OPCODE = 0x7800
_LONGEST_LABEL, _LONGEST_NAME = 63, 255
_SMALLEST_PACKET = 512
_REVERSE6, _HEXADECIMAL = ".ip6.arpa", "0123456789abcdef"
_TO_QUESTION = b"\xc0\x0c"  # a pointer to the name that was asked for
_CODE = 0x000F
_MOST_ADDRESSES = 64
_SIZES = {A: 4, AAAA: 16}

_header = struct.Struct("!HHHHHH")
_record = struct.Struct("!HHIH")


@dataclass(frozen=True, slots=True)
class Question:
    """One question: ``name`` in lower case without the last dot, ``end`` its end in the message.

    ``size``: of the largest datagram that the asker takes.
    """

    id: int
    flags: int
    name: str
    kind: int
    end: int
    size: int


def parse(message: bytes) -> Question | None:
    """The question of a query; None if it is no query of one question about the internet."""
    if len(message) < 17:
        return None
    number, flags, questions, answers, authorities, additional = _header.unpack_from(message)
    if flags & (_RESPONSE | _OPCODE) or questions != 1 or answers or authorities:
        return None
    labels, place = [], 12
    while place < len(message) and (size := message[place]):
        if size > _LONGEST_LABEL or place + size - 12 > _LONGEST_NAME:
            return None
        labels.append(message[place + 1 : place + 1 + size])
        place += 1 + size
    if place + 5 > len(message):
        return None
    kind, group = struct.unpack_from("!HH", message, place + 1)
    if group not in (_IN, _ANY_CLASS):
        return None
    name = b".".join(labels).decode("ascii", "replace").lower()
    end = place + 5
    return Question(number, flags, name, kind, end, _datagram_size(message, end) if additional else 512)


def _datagram_size(message: bytes, place: int) -> int:
    """What an OPT record right behind the question says."""
    if len(message) >= place + 11 and message[place] == 0:
        kind, size = struct.unpack_from("!HH", message, place + 1)
        if kind == _OPT:
            return int(max(size, _SMALLEST_PACKET))
    return _SMALLEST_PACKET


def answer(
    message: bytes, question: Question, records: Sequence[bytes], *, ttl: int, limit: int = 0
) -> bytes:
    """The answer with ``records`` of the kind that was asked for; cut, and marked so, at ``limit`` bytes."""
    head = message[12 : question.end]
    flags = _RESPONSE | _AUTHORITATIVE | _OFFERED | (question.flags & _WANTED)
    parts, size, number = [head], 12 + len(head), 0
    for data in records:
        size += 12 + len(data)
        if limit and size > limit:
            flags |= _TRUNCATED
            break
        parts.append(_TO_QUESTION + _record.pack(question.kind, _IN, ttl, len(data)) + data)
        number += 1
    return _header.pack(question.id, flags, 1, number, 0, 0) + b"".join(parts)


def refusal(message: bytes, code: int) -> bytes:
    """An answer that says no more than ``code``; empty for what has no header to answer."""
    if len(message) < 12:
        return b""
    number, flags = struct.unpack_from("!HH", message)
    question = parse(message)
    body = message[12 : question.end] if question is not None else b""
    flags = _RESPONSE | _OFFERED | (flags & (_WANTED | _OPCODE)) | code
    return _header.pack(number, flags, 1 if body else 0, 0, 0, 0) + body


def answers(message: bytes, query: bytes) -> bool:
    """Whether a message is the answer to this query: of its number, and to its question."""
    if len(message) < 12 or message[:2] != query[:2] or not message[2] & 0x80:
        return False
    question = parse(query)
    if question is None:
        return True
    asked, said = query[12 : question.end], message[12 : question.end]
    return not said or asked.lower() == said.lower()


@dataclass(frozen=True, slots=True)
class Resolved:
    """What an answer says of addresses: ``code`` is NO_ERROR where there are none of the kind either.

    ``ttl``: the shortest of all records, in seconds. ``cut``: there is more than the datagram held.
    """

    code: int
    addresses: tuple[bytes, ...] = ()
    ttl: int = 0
    cut: bool = False


def plain(question: Question) -> bytes:
    """The question alone, in lower case: nothing else of what the asker sent goes on."""
    head = _header.pack(question.id, question.flags & _WANTED, 1, 0, 0, 0)
    return head + encode_name(question.name) + struct.pack("!HH", question.kind, _IN)


def resolved(message: bytes, kind: int) -> Resolved | None:
    """What an answer to one question says of addresses of a kind; None if it cannot be read."""
    if len(message) < 12:
        return None
    _, flags, questions, answers, _, _ = _header.unpack_from(message)
    code, cut = flags & _CODE, bool(flags & _TRUNCATED)
    place = 12
    try:
        for _ in range(questions):
            place = _behind_name(message, place) + 4
        addresses, times = [], []
        for _ in range(answers):
            place = _behind_name(message, place)
            of, group, ttl, size = _record.unpack_from(message, place)
            place += _record.size + size
            if place > len(message):
                raise IndexError
            times.append(ttl if ttl < 1 << 31 else 0)
            if of == kind and group == _IN and size == _SIZES.get(kind):
                addresses.append(message[place - size : place])
    except (struct.error, IndexError):
        return Resolved(code, cut=True) if cut else None
    found = tuple(dict.fromkeys(addresses))[:_MOST_ADDRESSES]
    return Resolved(code, found, min(times, default=0), cut)


def _behind_name(message: bytes, place: int) -> int:
    """Where a name ends that may end in a pointer."""
    while size := message[place]:
        if size >= 0xC0:
            return place + 2
        place += 1 + size
    return place + 1


def encode_name(name: str) -> bytes:
    """A name without compression; labels that are too long are cut."""
    parts = [label.encode("ascii", "replace")[:_LONGEST_LABEL] for label in name.split(".") if label]
    return b"".join(bytes((len(part),)) + part for part in parts) + b"\0"


def reverse(name: str) -> str | None:
    """The address that a name under in-addr.arpa or ip6.arpa asks for."""
    if name.endswith(_REVERSE6):
        digits = name.removesuffix(_REVERSE6).split(".")
        if len(digits) != 32 or not all(len(digit) == 1 and digit in _HEXADECIMAL for digit in digits):
            return None
        return socket.inet_ntop(socket.AF_INET6, bytes.fromhex("".join(reversed(digits))))
    if not name.endswith(".in-addr.arpa"):
        return None
    parts = name.removesuffix(".in-addr.arpa").split(".")
    if len(parts) != 4 or not all(part.isdigit() and len(part) <= 3 for part in parts):
        return None
    return ".".join(reversed(parts))
