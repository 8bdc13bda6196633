"""A daemon behind TLS, seen by the rest of the client as a plain stream socket.

A thread moves bytes between the TLS connection and one end of a socket pair, whose other end the client
holds: so a hijacked stream can be handed around as a descriptor, half-closed and polled as any other.
"""

from __future__ import annotations

import _socket
import _thread
import contextlib
import select
import socket
import ssl

from sampan.errors import Failure
from sampan.wire.trust import trusting

PIECE = 65536


class Material:
    """What to prove and whom to trust. Paths, "" for none; ``verify``: the peer must be who it says it is."""

    __slots__ = ("authority", "certificate", "key", "verify")

    def __init__(self, *, authority: str, certificate: str, key: str, verify: bool) -> None:
        self.authority = authority
        self.certificate = certificate
        self.key = key
        self.verify = verify


def _rules(material: Material) -> ssl.SSLContext:
    if material.verify:
        rules = trusting(material.authority)
    else:
        rules = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        rules.check_hostname = False
        rules.verify_mode = ssl.CERT_NONE
    if material.certificate:
        rules.load_cert_chain(material.certificate, material.key or None)
    return rules


def secured(sock: _socket.socket, host: str, material: Material) -> _socket.socket:
    """The client's end of a TLS connection over ``sock``, which it takes over. Raises Failure."""
    plain = socket.socket(fileno=sock.detach())
    try:
        peer = _rules(material).wrap_socket(plain, server_hostname=host)
    except (OSError, ValueError) as error:
        plain.close()
        reason = getattr(error, "verify_message", "") or getattr(error, "strerror", "") or str(error)
        raise Failure(f"error during connect: tls: {reason}") from error
    ours, theirs = socket.socketpair()
    _thread.start_new_thread(_carry, (peer, theirs))
    return ours


def _carry(peer: ssl.SSLSocket, client: socket.socket) -> None:
    """Move bytes both ways until the peer ends. The client's end of input is passed on as TLS's.

    A readable connection may hold no data (a session ticket, half a record), so the peer's end never blocks.
    """
    peer.setblocking(False)
    out = b""  # what the peer has not taken yet
    sending = True
    try:
        while True:
            wanted = [client] if sending and not out else []
            ready: list[socket.socket] = [peer] if peer.pending() else []
            if not ready:
                ready = select.select([peer, *wanted], [peer] if out else [], [])[0]
            if peer in ready:
                data = _received(peer)
                if data == b"":
                    return
                if data:
                    client.sendall(data)
            if client in ready:
                out = client.recv(PIECE)
                if not out:
                    sending = False
                    _end_of_input(peer)
            if out:
                out = out[_sent(peer, out) :]
    except OSError:
        return  # either side is gone, which the close below tells the client
    finally:
        client.close()
        peer.close()


def _received(peer: ssl.SSLSocket) -> bytes | None:
    """Some bytes, none at the peer's end, None while there are none yet."""
    try:
        return peer.recv(PIECE)
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return None


def _sent(peer: ssl.SSLSocket, data: bytes) -> int:
    """How many bytes the connection took."""
    try:
        return peer.send(data)
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return 0


def _end_of_input(peer: ssl.SSLSocket) -> None:
    """Half-close: TLS says so by an alert, after which Python waits for the peer's own, which we do not."""
    with contextlib.suppress(OSError):
        peer.unwrap()
