"""``registry serve``: the engine as a registry, for as long as the one who asked for it listens.

Law: off the loopback there is TLS and a token; what is missing of them is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import msgspec

from sampan.api.distribution import Distribution
from sampan.api.request import Request
from sampan.api.responses import Answer, Stream, json_line
from sampan.api.routing import Route
from sampan.engine.facade import Engine
from sampan.errors import InvalidArgument, Unavailable

if TYPE_CHECKING:
    import ssl

    from sampan.api.tls import Identity

_DAYS = "30"
"""For which a certificate that is made here is good."""


class Wanted(msgspec.Struct, kw_only=True, rename="pascal"):
    """``certificate`` and ``key`` are PEM, empty for none; so is ``token``."""

    address: str = "127.0.0.1:5000"
    certificate: str = ""
    key: str = ""
    token: str = ""


async def serve(request: Request, engine: Engine) -> Answer:
    """POST /registry/serve: one line about it when it listens; it ends with the connection."""
    wanted = await request.json(Wanted, optional=True)
    host, port = _address(wanted.address)
    if bool(wanted.certificate) != bool(wanted.key):
        raise InvalidArgument("a TLS certificate needs its key, and a key its certificate")
    certificate, token, context = wanted.certificate, wanted.token, None
    if certificate or not _is_loopback(host):
        context, certificate = await _secured(host, certificate, wanted.key)
        token = token or secrets.token_urlsafe(24)
    if not token.isascii() or not token.isprintable():
        raise InvalidArgument("a token is made of printable ASCII characters")
    distribution = Distribution(engine.offers, token)
    try:
        address = await distribution.listen(host, port, context)
    except OSError as error:
        raise Unavailable(f"cannot listen on {wanted.address}: {(error.strerror or '').lower()}") from error
    told = {
        "Address": f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}",
        "Token": token,
        "Certificate": certificate,
        "Repositories": len(engine.offers.repositories()),
    }
    return Stream(_while_heard(distribution, json_line(told)), "application/json")


async def _while_heard(distribution: Distribution, line: bytes) -> AsyncIterator[bytes]:
    try:
        yield line
        await asyncio.Event().wait()
    finally:
        await distribution.close()


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise InvalidArgument(f"invalid address {text}: use HOST:PORT")
    return host.strip("[]") or "0.0.0.0", int(port)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _secured(host: str, certificate: str, key: str) -> tuple[ssl.SSLContext, str]:
    """What the server is known by, and its certificate, made for this host where none is given."""
    from sampan.api.tls import Identity, rules

    with tempfile.TemporaryDirectory(prefix="sampan-tls-") as place:
        paths = Identity(certificate=f"{place}/cert.pem", key=f"{place}/key.pem")
        if certificate:
            for path, text in ((paths.certificate, certificate), (paths.key, key)):
                with open(path, "w", encoding="utf-8", opener=_private) as file:
                    file.write(text)
        else:
            await _make(paths, host)
        with open(paths.certificate, encoding="utf-8") as file:
            return rules(paths), file.read()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


async def _make(paths: Identity, host: str) -> None:
    names = {f"DNS:{socket.gethostname()}", "DNS:localhost", "IP:127.0.0.1"}
    with contextlib.suppress(ValueError):
        if not ipaddress.ip_address(host).is_unspecified:
            names.add(f"IP:{host}")
    words = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    more = ("-days", _DAYS, "-subj", "/CN=sampan registry", "-keyout", paths.key, "-out", paths.certificate)
    try:
        process = await asyncio.create_subprocess_exec(
            "openssl",
            *words,
            *more,
            "-addext",
            f"subjectAltName={','.join(sorted(names))}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        status = await process.wait()
    except FileNotFoundError:
        status = -1
    if status:
        raise Unavailable(
            f"{host} is not the loopback: give --tls-cert and --tls-key, or install openssl to have them made"
        )


ROUTES = (Route("POST", "/registry/serve", serve),)
