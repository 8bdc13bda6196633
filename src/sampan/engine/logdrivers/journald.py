"""The journald driver: systemd's native protocol, one datagram for a record, or a sealed memory file.

https://systemd.io/JOURNAL_NATIVE_PROTOCOL/ : ``NAME=value`` lines; a value with newlines follows its name, a
newline and its length as 64 bits, little-endian.
"""

from __future__ import annotations

import array
import asyncio
import errno
import fcntl
import os
import re
import socket
from struct import Struct

from sampan.engine.logdrivers import dial, options
from sampan.engine.logdrivers.options import Options
from sampan.engine.logdrivers.subject import Subject, tag
from sampan.wire.logblocks import Entry

KNOWN = options.COMMON
SOCKET = "/run/systemd/journal/socket"

_PRIORITIES = {1: "6", 2: "3"}  # informational, error
_LENGTH = Struct("<Q")
_SEALED = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def check(given: Options) -> None:
    options.known(given, KNOWN, "journald")


def field(name: str, value: str) -> bytes:
    """One field of a record."""
    data = value.encode("utf-8", "replace")
    if b"\n" in data:
        return b"%b\n%b%b\n" % (name.encode(), _LENGTH.pack(len(data)), data)
    return b"%b=%b\n" % (name.encode(), data)


def field_name(given: str) -> str:
    """A label's or variable's name as the journal takes it: capitals, digits and underscores."""
    return re.sub(r"[^A-Z0-9_]", "_", given.upper()).lstrip("_")


class Journald:
    """The journal, as a collector."""

    at_once = False

    def __init__(self, subject: Subject, given: Options, *, path: str = SOCKET) -> None:
        self._path = path
        name = tag(subject, given)
        fields = {
            "CONTAINER_ID": subject.id[:12],
            "CONTAINER_ID_FULL": subject.id,
            "CONTAINER_NAME": subject.name.removeprefix("/"),
            "CONTAINER_TAG": name,
            "IMAGE_NAME": subject.image_name,
            "SYSLOG_IDENTIFIER": name,
            **{field_name(key): value for key, value in subject.attributes.items()},
        }
        self._base = b"".join(field(key, value) for key, value in fields.items() if key)
        self._socket: socket.socket | None = None

    async def connect(self) -> None:
        self.close()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.setblocking(False)
        try:
            sock.connect(self._path)
        except OSError as error:
            sock.close()
            raise dial.Unreachable("journald is not enabled on this host") from error
        self._socket = sock

    async def send(self, entries: list[Entry]) -> None:
        if self._socket is None:
            raise dial.Unreachable("the journal's socket is closed")
        for entry in entries:
            message = self._message(entry)
            try:
                async with asyncio.timeout(dial.TIMEOUT):
                    await asyncio.get_running_loop().sock_sendall(self._socket, message)
            except TimeoutError:
                raise dial.Unreachable("write: i/o timeout") from None
            except OSError as error:
                if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                    raise dial.Unreachable(f"write: {dial.reason(error)}") from error
                self._send_file(self._socket, message)

    def _message(self, entry: Entry) -> bytes:
        stream, when, data = entry
        text = data.decode("utf-8", "replace")
        fields = [field("PRIORITY", _PRIORITIES[stream]), field("SYSLOG_TIMESTAMP", when.decode())]
        if not text.endswith("\n"):
            fields.append(field("CONTAINER_PARTIAL_MESSAGE", "true"))
        fields.append(field("MESSAGE", text.removesuffix("\n")))
        return self._base + b"".join(fields)

    def _send_file(self, sock: socket.socket, message: bytes) -> None:
        """What is too long for a datagram goes as a memory file that nobody can change any more."""
        fd = os.memfd_create("log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.write(fd, message)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALED)
            sock.sendmsg([b""], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
        except OSError as error:
            raise dial.Unreachable(f"write: {dial.reason(error)}") from error
        finally:
            os.close(fd)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
