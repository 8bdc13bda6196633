"""TLS in front of a server: each connection is decrypted into one end of a socket pair, whose other end is
served like any connection of a local client.

Theory: a hijacked stream leaves the event loop as a plain descriptor, and TLS is half-closed like it: the
client's "no more input" ends the input of an attached container while its output goes on. asyncio's own TLS
answers that alert by closing both ways, hence the engine of ``ssl`` without I/O (``ssl.SSLObject``).

Laws: whoever has not finished the handshake within `HANDSHAKE_SECONDS` is cut and costs no more than that;
neither direction holds more than what was in flight when its reader paused; nothing is served before the
handshake, the check of the client's certificate included, is complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from sampan.api.doors import Caller, address
from sampan.errors import InvalidArgument

log = logging.getLogger("sampan.api")

HANDSHAKE_SECONDS = 10.0

PIECE = 64 * 1024
"""Bytes decrypted or encrypted at once."""

# Docker's answer to a client that does not know of TLS, which shows it to its user.
_PLAIN = re.compile(rb"[A-Z]{3,7} /")
_NOT_HTTP = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Files of the server's certificate and key; of the authority that clients' are checked by, or ""."""

    certificate: str
    key: str
    authority: str = ""


def rules(identity: Identity) -> ssl.SSLContext:
    """What a server of that identity accepts: TLS 1.2 and later, and no client without a certificate of its
    authority if it has one. InvalidArgument naming the file that cannot be used."""
    for path in (identity.certificate, identity.key, *([identity.authority] if identity.authority else [])):
        if not os.access(path, os.R_OK):
            raise InvalidArgument(f"could not read the TLS file {path}: {_reason(path)}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(identity.certificate, identity.key)
    except (ssl.SSLError, OSError) as error:
        message = f"could not load X509 key pair (cert: {identity.certificate!r}, key: {identity.key!r})"
        raise InvalidArgument(
            f"{message}: {_words(error)}; the key must be that of the certificate"
        ) from None
    if identity.authority:
        try:
            context.load_verify_locations(identity.authority)
        except (ssl.SSLError, OSError) as error:
            raise InvalidArgument(
                f"could not read CA certificate {identity.authority!r}: {_words(error)}"
            ) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _reason(path: str) -> str:
    return "permission denied" if os.path.exists(path) else "no such file or directory"


def _words(error: Exception) -> str:
    return getattr(error, "reason", "") or getattr(error, "strerror", "") or str(error)


Serve = Callable[[Caller], asyncio.Protocol]
"""Makes what serves the decrypted stream of that client."""


class Terminator(asyncio.Protocol):
    """The encrypted side of one connection; `_Plain` is the other."""

    def __init__(self, context: ssl.SSLContext, serve: Serve) -> None:
        self._received = ssl.MemoryBIO()
        self._to_send = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._to_send, server_side=True)
        self._serve = serve
        self._plain: _Plain | None = None
        self._ready = False  # the handshake is done
        self._ended = False  # the client says no more
        self._timer: asyncio.TimerHandle | None = None

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._timer = asyncio.get_running_loop().call_later(HANDSHAKE_SECONDS, self._transport.abort)

    def connection_lost(self, _error: Exception | None) -> None:
        self._stop_timer()
        if self._plain is not None:
            self._plain.close()

    def data_received(self, data: bytes) -> None:
        if not self._ready and _PLAIN.match(data):
            self._transport.write(_NOT_HTTP)
            self._transport.close()
            return
        self._received.write(data)
        self._go_on()

    def eof_received(self) -> bool:
        # Without an alert before it the stream was cut, by whomever: nothing more can be trusted or told.
        return False

    def pause_writing(self) -> None:
        if self._plain is not None:
            self._plain.pause_reading()

    def resume_writing(self) -> None:
        if self._plain is not None:
            self._plain.resume_reading()

    # What the plain side asks

    def send(self, data: bytes) -> None:
        """Encrypt and send."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._tls.write(view[:PIECE]) :]
        except ssl.SSLError as error:
            self._cut(error)
            return
        self._flush()

    def end(self) -> None:
        """The server has said all: tell it by the alert, and close."""
        # Our alert is written all the same when it fails for want of the client's, which is not waited for.
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()
        self._transport.close()

    def pause_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    # TLS

    def _go_on(self) -> None:
        try:
            if not self._ready:
                self._tls.do_handshake()
                self._begin()
            self._decrypt()
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLError, ValueError) as error:
            self._flush()  # the alert that says why
            self._cut(error)
            return
        self._flush()

    def _begin(self) -> None:
        self._ready = True
        self._stop_timer()
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        self._plain = _Plain(self, ours)
        client = Caller(
            address=address(self._transport.get_extra_info("peername")), name=_common_name(self._tls)
        )
        loop = asyncio.get_running_loop()
        self._serving = loop.create_task(loop.connect_accepted_socket(lambda: self._serve(client), theirs))

    def _decrypt(self) -> None:
        assert self._plain is not None
        while not self._ended:
            try:
                data = self._tls.read(PIECE)
            except ssl.SSLZeroReturnError:
                data = b""
            if data:
                self._plain.send(data)
            else:
                self._ended = True
                self._plain.end_input()

    def _flush(self) -> None:
        if self._to_send.pending and not self._transport.is_closing():
            self._transport.write(self._to_send.read())

    def _cut(self, error: Exception) -> None:
        log.info("TLS with %s: %s", self._transport.get_extra_info("peername"), _words(error))
        self._transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Plain(asyncio.Protocol):
    """Our end of the socket pair. What is to be sent before the pair is in the loop waits."""

    def __init__(self, secure: Terminator, sock: socket.socket) -> None:
        self._secure = secure
        self._sock = sock
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._input_ended = False
        self._closed = False
        loop = asyncio.get_running_loop()
        self._joining = loop.create_task(loop.connect_accepted_socket(lambda: self, sock))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._closed:
            self._transport.abort()
            return
        for data in self._early:
            self._transport.write(data)
        self._early.clear()
        if self._input_ended:
            self._transport.write_eof()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self._closed:
            self._closed = True
            self._secure.end()

    def data_received(self, data: bytes) -> None:
        self._secure.send(data)

    def eof_received(self) -> bool:
        return False  # the server closes only when it has nothing more to say or hear

    def pause_writing(self) -> None:
        self._secure.pause_reading()

    def resume_writing(self) -> None:
        self._secure.resume_reading()

    def send(self, data: bytes) -> None:
        if self._transport is None:
            self._early.append(data)
        elif not self._transport.is_closing():
            self._transport.write(data)

    def end_input(self) -> None:
        self._input_ended = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()

    def close(self) -> None:
        self._closed = True
        if self._transport is not None:
            self._transport.abort()

    def pause_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()


def _common_name(tls: ssl.SSLObject) -> str:
    """The name in the client's certificate, which its authority vouches for."""
    certificate = tls.getpeercert() or {}
    subject = cast("tuple[tuple[tuple[str, str], ...], ...]", certificate.get("subject", ()))
    return next((value for part in subject for name, value in part if name == "commonName"), "")
