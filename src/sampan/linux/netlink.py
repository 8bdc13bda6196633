"""Netlink: messages as bytes, and one socket that asks the kernel and hears the answer (netlink(7)).

Laws:
- A request is a tuple ``(type, flags, body)``; only the socket knows sequence numbers and headers.
- Requests that are sent together travel in one datagram and are carried out, in order, before ``sendmsg``
  returns; so every answer is already waiting, and one acknowledgement asked of the last request is enough:
  a failed request always answers.
- The kernel does not stop at a failed request of a datagram. Whoever sends several undoes them on failure
  (nf_tables batches are the exception: they are transactions).

Small imports only: forked children use this.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_TYPE_MASK = 0x3FFF

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x200, 0x400, 0x800
NLA_F_NESTED = 0x8000

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_DUMP_INTR = 0x10
_NLM_F_CAPPED, _NLM_F_ACK_TLVS = 0x100, 0x200
_NLMSGERR_ATTR_MSG = 1
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 1, 10, 11

_header = struct.Struct("=IHHII")
_attribute = struct.Struct("=HH")
_BUFFER = 1 << 16
_ROOM = 1 << 16  # that every socket has to send
_SO_SNDBUFFORCE = 32

Request = tuple[int, int, bytes]
"""Message type, flags beyond NLM_F_REQUEST, body after the header."""


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return _attribute.pack(4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def text(kind: int, value: str) -> bytes:
    return attribute(kind, os.fsencode(value) + b"\0")


def u32(kind: int, value: int) -> bytes:
    """In host order, as rtnetlink has it."""
    return attribute(kind, value.to_bytes(4, "little" if _LITTLE else "big"))


def nested(kind: int, *children: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, b"".join(children))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes in ``data`` in order, flags stripped from the kinds; a malformed tail ends them."""
    position, end = 0, len(data)
    while position + 4 <= end:
        length, kind = _attribute.unpack_from(data, position)
        if length < 4 or position + length > end:
            return
        yield kind & _TYPE_MASK, data[position + 4 : position + length]
        position += (length + 3) & ~3


def table(data: bytes) -> dict[int, bytes]:
    """The attributes in ``data`` by kind; the last of a repeated kind wins."""
    return dict(attributes(data))


def string(payload: bytes) -> str:
    return os.fsdecode(payload.split(b"\0", 1)[0])


def encode(requests: Sequence[Request], first_sequence: int) -> bytes:
    """The requests as one datagram, numbered from ``first_sequence``."""
    parts = []
    for offset, (kind, flags, body) in enumerate(requests):
        size = _header.size + len(body)
        parts.append(_header.pack(size, kind, flags | NLM_F_REQUEST, first_sequence + offset, 0))
        parts.append(body + bytes(-size % 4))
    return b"".join(parts)


def messages(datagram: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """The ``(type, flags, sequence, body)`` of each message in a datagram."""
    position = 0
    while position + _header.size <= len(datagram):
        size, kind, flags, sequence, _ = _header.unpack_from(datagram, position)
        if size < _header.size:
            return
        yield kind, flags, sequence, datagram[position + _header.size : position + size]
        position += (size + 3) & ~3


def failure(flags: int, body: bytes) -> OSError | None:
    """The error in the body of an NLMSG_ERROR message, with the kernel's own words where it gave some."""
    number = -struct.unpack_from("=i", body)[0]
    if not number:
        return None
    words = ""
    if flags & _NLM_F_ACK_TLVS:
        # The request's header follows the number, and its body too unless the answer is capped.
        skip = _header.size if flags & _NLM_F_CAPPED else struct.unpack_from("=I", body, 4)[0]
        words = string(table(body[4 + ((skip + 3) & ~3) :]).get(_NLMSGERR_ATTR_MSG, b""))
    reason = os.strerror(number)
    return OSError(number, f"{reason} ({words})" if words else reason)


class Netlink:
    """A netlink socket of one protocol in the network namespace of the calling thread."""

    def __init__(self, protocol: int, *, groups: Sequence[int] = ()) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._sequence = 1
        self.answers: list[tuple[int, bytes]] = []
        try:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
            if groups:
                # Without an address nothing is ever delivered; sending would give it one.
                self._socket.bind((0, 0))
            for group in groups:
                self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_failure: object) -> None:
        self._socket.close()

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def perform(self, requests: Sequence[Request], *, acknowledge: int = -1) -> list[OSError | None]:
        """Carry out the requests, sent together; raise the first failure, in the order of the requests.

        ``acknowledge`` is the index of the request that must confirm: the last one that can.
        """
        outcomes = self.attempt(requests, acknowledge=acknowledge)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome
        return outcomes

    def attempt(self, requests: Sequence[Request], *, acknowledge: int = -1) -> list[OSError | None]:
        """As ``perform``, returning the failure or None of each request instead of raising.

        What requests answer besides (a link that was asked for) is in ``answers`` afterwards.
        """
        self.answers.clear()
        first = self._sequence
        self._sequence += len(requests)
        asked = list(requests)
        kind, flags, body = asked[acknowledge]
        asked[acknowledge] = (kind, flags | NLM_F_ACK, body)
        datagram = encode(asked, first)
        if len(datagram) > _ROOM:
            # Twice the size: the kernel counts what holds it too.
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 2 * len(datagram))
        self._socket.send(datagram)
        outcomes: list[OSError | None] = [None] * len(asked)
        heard = False
        while True:
            try:
                datagram = self._socket.recv(_BUFFER, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            for kind, flags, sequence, body in messages(datagram):
                if kind == _NLMSG_ERROR and first <= sequence < self._sequence:
                    heard = True
                    outcomes[sequence - first] = outcomes[sequence - first] or failure(flags, body)
                else:
                    self.answers.append((kind, body))
        if not heard:
            raise OSError(errno.EPROTO, "netlink gave no answer")
        return outcomes

    def dump(self, request: Request) -> list[tuple[int, bytes]]:
        """The ``(type, body)`` of every object that the request lists; asked again if it changed."""
        while True:
            found, interrupted = self._dump_once(request)
            if not interrupted:
                return found

    def _dump_once(self, request: Request) -> tuple[list[tuple[int, bytes]], bool]:
        sequence = self._sequence
        self._sequence += 1
        kind, flags, body = request
        self._socket.send(encode([(kind, flags | NLM_F_DUMP, body)], sequence))
        found: list[tuple[int, bytes]] = []
        interrupted = False
        while True:
            for kind, flags, number, body in messages(self._socket.recv(_BUFFER)):
                if number != sequence:
                    continue
                interrupted = interrupted or bool(flags & _NLM_F_DUMP_INTR)
                if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                    error = failure(flags, body) if len(body) >= 4 else None
                    if error is not None and error.errno != errno.EINTR:
                        raise error
                    return found, interrupted or error is not None
                found.append((kind, body))

    def drain(self) -> list[tuple[int, bytes]]:
        """The ``(type, body)`` of the group messages that arrived; ENOBUFS means that some were lost."""
        found: list[tuple[int, bytes]] = []
        while True:
            try:
                datagram = self._socket.recv(_BUFFER, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            found.extend((kind, body) for kind, _, _, body in messages(datagram))


_LITTLE = struct.pack("=H", 1) == b"\1\0"
