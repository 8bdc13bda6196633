"""The syslog driver: RFC 3164 or RFC 5424 over UDP, TCP, TLS or a Unix socket.

Formats, names and defaults are those of Docker's driver: without a format the local form (no host name),
framed by newlines; RFC 5424 over TLS is framed by lengths (RFC 5425).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sampan.engine.logdrivers import dial, options
from sampan.engine.logdrivers.options import Options
from sampan.engine.logdrivers.subject import Subject, tag
from sampan.errors import InvalidArgument
from sampan.wire.jsonlog import parse_time
from sampan.wire.logblocks import Entry
from sampan.wire.trust import trusting

if TYPE_CHECKING:
    import ssl

_TLS = "syslog-tls-"
KNOWN = options.COMMON | {
    *("syslog-address", "syslog-facility", "syslog-format"),
    *(_TLS + name for name in ("ca-cert", "cert", "key", "skip-verify")),
}

_WORDS = "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp"
_NAMES = _WORDS.split()
_FACILITIES = {name: number for number, name in enumerate(_NAMES)}
_FACILITIES |= {f"local{number}": 16 + number for number in range(8)}
_SEVERITIES = {1: 6, 2: 3}  # informational, error
_TRANSPORTS = ("tcp", "tcp+tls", "udp", "unix", "unixgram")
_PORT = "514"
_PATHS = ("/dev/log", "/var/run/syslog", "/var/run/log")
_LOCAL = tuple((kind, path) for kind in ("unixgram", "unix") for path in _PATHS)
_CLOSED = "the collector has closed the connection"

Format = Callable[[int, str, str, int, str], str]
"""priority, host name, tag, nanoseconds, text → message"""


def check(given: Options) -> None:
    options.known(given, KNOWN, "syslog")
    _address(given)
    _facility(given)
    _format(given)


def _address(given: Options) -> tuple[str, str]:
    """(transport, path or host); both empty for the host's own syslog."""
    text = given.get("syslog-address", "")
    if not text:
        return "", ""
    transport, separator, _ = text.partition("://")
    if not separator or transport not in _TRANSPORTS:
        raise InvalidArgument(f"syslog-address should be in form proto://address, got {text}")
    parts = urlsplit(text)
    if transport.startswith("unix"):
        if not os.path.exists(parts.path):
            raise InvalidArgument(f"stat {parts.path}: no such file or directory")
        return transport, parts.path
    return transport, parts.netloc


def _facility(given: Options) -> int:
    text = given.get("syslog-facility", "")
    if not text:
        return _FACILITIES["daemon"]
    if text in _FACILITIES:
        return _FACILITIES[text]
    if text.isdecimal() and int(text) <= 23:
        return int(text)
    raise InvalidArgument("invalid syslog facility")


def _format(given: Options) -> Format:
    found = _FORMATS.get(given.get("syslog-format", ""))
    if found is None:
        raise InvalidArgument("Invalid syslog format")
    return found


def _stamp(nanoseconds: int) -> str:
    moment = time.localtime(nanoseconds // 1_000_000_000)
    return f"{time.strftime('%b', moment)} {moment.tm_mday:2} {time.strftime('%H:%M:%S', moment)}"


def _rfc3339(nanoseconds: int, *, micro: bool) -> str:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    moment = time.localtime(seconds)
    zone = time.strftime("%z", moment)
    zone = "Z" if moment.tm_gmtoff == 0 else f"{zone[:3]}:{zone[3:]}"
    fraction = f".{rest // 1000:06d}" if micro else ""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', moment)}{fraction}{zone}"


def _unix(priority: int, _host: str, name: str, at: int, text: str) -> str:
    return f"<{priority}>{_stamp(at)} {name}[{os.getpid()}]: {text}"


def _rfc3164(priority: int, host: str, name: str, at: int, text: str) -> str:
    return f"<{priority}>{_stamp(at)} {host} {name}[{os.getpid()}]: {text}"


def _rfc5424(priority: int, host: str, name: str, at: int, text: str) -> str:
    return f"<{priority}>1 {_rfc3339(at, micro=False)} {host} {name} {os.getpid()} {name} - {text}"


def _rfc5424micro(priority: int, host: str, name: str, at: int, text: str) -> str:
    return f"<{priority}>1 {_rfc3339(at, micro=True)} {host} {name} {os.getpid()} {name} - {text}"


_FORMATS: dict[str, Format] = {
    "": _unix,
    "rfc3164": _rfc3164,
    "rfc5424": _rfc5424,
    "rfc5424micro": _rfc5424micro,
}


class Syslog:
    """A collector that speaks syslog."""

    at_once = False  # a start does not wait for it

    def __init__(self, subject: Subject, given: Options) -> None:
        self._tag = tag(subject, given)
        self._host = subject.hostname
        self._facility = _facility(given) << 3
        self._format = _format(given)
        self._transport, self._where = _address(given)
        self._given = given
        self._by_length = self._transport == "tcp+tls" and given.get("syslog-format", "").startswith(
            "rfc5424"
        )
        self._connection: dial.Connection | None = None

    async def connect(self) -> None:
        self.close()
        if self._transport.startswith("unix"):
            self._connection = await dial.local(self._where, self._transport)
        elif self._transport:
            host, port = dial.host_port(self._where, _PORT)
            if self._transport == "udp":
                self._connection = await dial.datagrams(host, port)
            else:
                tls = _tls(self._given) if self._transport == "tcp+tls" else None
                self._connection = await dial.stream(host, port, tls)
        else:
            self._connection = await _hosts_own()

    async def send(self, entries: list[Entry]) -> None:
        """Each record by itself over datagrams, all of them at once over a stream."""
        connection = self._connection
        messages = [self._message(entry) for entry in entries]
        if connection is None:
            raise dial.Unreachable(_CLOSED)
        if self._transport in ("udp", "unixgram", ""):
            for message in messages:
                await connection.send_datagram(message)
        elif connection.alive():
            await connection.send(b"".join(messages))
        else:
            raise dial.Unreachable(_CLOSED)

    def _message(self, entry: Entry) -> bytes:
        stream, when, data = entry
        text = data.decode("utf-8", "replace").removesuffix("\n") + "\n"
        at = parse_time(when.decode()) or 0
        message = self._format(self._facility | _SEVERITIES[stream], self._host, self._tag, at, text).encode()
        return b"%d %b" % (len(message), message) if self._by_length else message

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


async def _hosts_own() -> dial.Connection:
    for kind, path in _LOCAL:
        try:
            return await dial.local(path, kind)
        except dial.Unreachable:
            continue
    raise dial.Unreachable("Unix syslog delivery error")


def _tls(given: Options) -> ssl.SSLContext:
    import ssl

    try:
        context = trusting(given.get(_TLS + "ca-cert", ""))
        if given.get(_TLS + "cert") or given.get(_TLS + "key"):
            context.load_cert_chain(given.get(_TLS + "cert", ""), given.get(_TLS + "key", ""))
    except FileNotFoundError as error:
        raise dial.Unreachable(f"Could not load TLS files: {dial.reason(error)}") from error
    except OSError as error:
        raise dial.Unreachable(f"tls: {dial.reason(error)}") from error
    if given.get(_TLS + "skip-verify", ""):  # any value, as in Docker
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
