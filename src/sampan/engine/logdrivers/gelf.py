"""The gelf driver: Graylog's format over UDP (compressed, in chunks) or TCP (ended by a zero byte).

GELF 1.1: https://go2docs.graylog.org/current/getting_in_log_data/gelf.html
"""

from __future__ import annotations

import gzip
import os
import zlib
from urllib.parse import urlsplit

import msgspec

from sampan.engine.logdrivers import dial, options
from sampan.engine.logdrivers.options import Options
from sampan.engine.logdrivers.subject import Subject, tag
from sampan.errors import InvalidArgument
from sampan.wire.jsonlog import parse_time
from sampan.wire.logblocks import Entry

KNOWN = options.COMMON | {
    *("gelf-address", "gelf-compression-level", "gelf-compression-type"),
    *("gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay"),
}

_LEVELS = {1: 6, 2: 3}  # informational, error
_MAGIC = b"\x1e\x0f"
_CHUNK = 1420 - 12  # a datagram of 1420 bytes, as Docker's, less the head of a chunk
_MOST = 128


def check(given: Options) -> None:
    """The address first: Docker asks for it before it looks at the rest."""
    transport, _ = _address(given)
    options.known(given, KNOWN, "gelf")
    kind, level = given.get("gelf-compression-type", ""), given.get("gelf-compression-level", "")
    if transport == "tcp" and (kind or level):
        raise InvalidArgument("compression is only supported on UDP")
    if kind not in ("", "gzip", "zlib", "none"):
        raise InvalidArgument(
            f'unknown value "{kind}" for log opt "gelf-compression-type" for gelf log driver'
        )
    if level and level not in map(str, range(-1, 10)):
        raise InvalidArgument(
            f'unknown value "{level}" for log opt "gelf-compression-level" for gelf log driver'
        )
    for name in ("gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay"):
        if name in given:
            if transport == "udp":
                raise InvalidArgument(f'"{name}" is only valid for TCP')
            if not given[name].isdecimal():
                raise InvalidArgument(f'"{name}" must be a positive integer')


def _address(given: Options) -> tuple[str, tuple[str, str]]:
    text = given.get("gelf-address", "")
    if not text:
        raise InvalidArgument("gelf-address is a required parameter")
    transport, separator, _ = text.partition("://")
    if not separator or transport not in ("udp", "tcp"):
        raise InvalidArgument(f"gelf-address should be in form proto://address, got {text}")
    host, port = dial.host_port(urlsplit(text).netloc, "")
    if not port:
        raise InvalidArgument("gelf: please provide gelf-address as proto://host:port")
    return transport, (host, port)


def chunks(message: bytes) -> list[bytes]:
    """A message as datagrams; none when it is too long even for chunks."""
    if len(message) <= _CHUNK:
        return [message]
    pieces = [message[at : at + _CHUNK] for at in range(0, len(message), _CHUNK)]
    if len(pieces) > _MOST:
        return []
    identity = os.urandom(8)
    return [_MAGIC + identity + bytes((number, len(pieces))) + piece for number, piece in enumerate(pieces)]


class Gelf:
    """A collector that speaks GELF."""

    at_once = False

    def __init__(self, subject: Subject, given: Options) -> None:
        self._transport, self._where = _address(given)
        self._kind = given.get("gelf-compression-type") or "gzip"
        self._level = int(given.get("gelf-compression-level") or 1)
        self._base = {
            "version": "1.1",
            "host": subject.hostname,
            "_command": " ".join(subject.command),
            "_container_id": subject.id,
            "_container_name": subject.name.removeprefix("/"),
            "_created": subject.created,
            "_image_id": subject.image_id,
            "_image_name": subject.image_name,
            "_tag": tag(subject, given),
            **{f"_{name}": value for name, value in subject.attributes.items()},
        }
        self._connection: dial.Connection | None = None
        self._encode = msgspec.json.Encoder().encode

    async def connect(self) -> None:
        self.close()
        host, port = self._where
        try:
            if self._transport == "udp":
                self._connection = await dial.datagrams(host, port)
            else:
                self._connection = await dial.stream(host, port)
        except dial.Unreachable as error:
            where = dial.joined(host, port)
            raise dial.Unreachable(f"gelf: cannot connect to GELF endpoint: {where} {error}") from None

    async def send(self, entries: list[Entry]) -> None:
        """Empty lines are not sent: GELF asks for a message."""
        connection = self._connection
        if connection is None or (self._transport == "tcp" and not connection.alive()):
            raise dial.Unreachable("gelf: the endpoint has closed the connection")
        messages = [self._message(entry) for entry in entries if entry[2] not in (b"", b"\n")]
        if self._transport == "tcp":
            await connection.send(b"".join([message + b"\0" for message in messages]))
            return
        for message in messages:
            for datagram in chunks(self._packed(message)):
                await connection.send_datagram(datagram)

    def _message(self, entry: Entry) -> bytes:
        stream, when, data = entry
        return self._encode(
            {
                **self._base,
                "short_message": data.decode("utf-8", "replace").removesuffix("\n"),
                "timestamp": (parse_time(when.decode()) or 0) // 1_000_000 / 1000,
                "level": _LEVELS[stream],
            }
        )

    def _packed(self, message: bytes) -> bytes:
        if self._kind == "none":
            return message
        if self._kind == "zlib":
            return zlib.compress(message, self._level)
        return gzip.compress(message, self._level if self._level >= 0 else 6)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
