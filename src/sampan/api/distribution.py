"""The OCI distribution specification, for those who pull: an HTTP server of its own.

Theory: it is open to other machines, which the API is not, so it shares nothing with the API's server: it
takes heads of GET and HEAD and nothing else, and knows no streams but blobs.

Laws:
- A client costs one head, one piece of a blob and one connection, of which there are ``CONNECTIONS``; who
  says nothing, or takes nothing, for ``PATIENCE`` seconds is cut.
- An answer that was begun is finished or visibly cut.
- With a token nothing is told to who does not know it, but that one is wanted.

Source: OCI distribution-spec 1.1, "Pull" and "Content discovery"; RFC 9110 for ranges.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import json
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote

from sampan.api.head import RequestHead
from sampan.api.responses import REASONS
from sampan.api.service import turns
from sampan.deferred import asyncio_with_tls
from sampan.errors import Failure
from sampan.spec import digest as digests
from sampan.spec import image as documents
from sampan.wire.http import ProtocolError

if TYPE_CHECKING:
    import ssl

    from sampan.engine.offers import Offers

log = logging.getLogger("sampan.api")

CONNECTIONS = 128
PATIENCE = 60.0
_HEAD = 16 << 10  # bytes
_PIECE = 256 << 10  # bytes
_PAGE = 1000  # names in one list

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = rf"{_PART}(?:/{_PART})*"
_PATH = re.compile(rf"/v2/(?P<name>{_NAME})/(?P<what>manifests|blobs|referrers|tags)/(?P<reference>[^/]+)")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_VERSION = b"Docker-Distribution-Api-Version: registry/2.0\r\n"
_MORE_REASONS = {206: "Partial Content", 416: "Range Not Satisfiable"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """``blob`` is a digest whose bytes from ``first`` on, ``size`` of them, are the body; or ``body`` is."""

    status: int = 200
    body: bytes = b""
    media_type: str = "application/json"
    headers: bytes = b""
    blob: str = ""
    first: int = 0
    size: int = 0


class _Refused(Exception):
    """Answered by an error of the specification."""

    def __init__(self, status: int, code: str, message: str, headers: bytes = b"") -> None:
        super().__init__(message)
        body = json.dumps({"errors": [{"code": code, "message": message, "detail": None}]}).encode()
        self.answer = _Answer(status=status, body=body, headers=headers)


class Distribution:
    """Serves ``offers``. ``token``: what clients must know, "" for none."""

    def __init__(self, offers: Offers, token: str = "") -> None:
        self._offers = offers
        self._token = token
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int, rules: ssl.SSLContext | None) -> tuple[str, int]:
        """Begin to serve, with TLS by ``rules``; the address. OSError."""
        if rules is not None:
            asyncio_with_tls()
        self._server = await asyncio.start_server(
            self._connected,
            host,
            port,
            ssl=rules,
            limit=_HEAD,
            ssl_handshake_timeout=PATIENCE if rules else None,
        )
        address = self._server.sockets[0].getsockname()
        return address[0], address[1]

    async def close(self) -> None:
        """Stop listening and cut whoever is connected."""
        if self._server is not None:
            # As in ``Server.close``: what is accepted in the turn in which it is closed would stay open.
            loop = asyncio.get_running_loop()
            for sock in self._server.sockets:
                loop.remove_reader(sock.fileno())
            await turns(2)
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        crowded = len(self._tasks) >= CONNECTIONS
        self._tasks.add(task)
        try:
            writer.transport.set_write_buffer_limits(high=_PIECE)
            await self._serve(reader, writer, crowded=crowded)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the client went away, or is too slow
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, crowded: bool
    ) -> None:
        going = True
        while going:
            try:
                async with asyncio.timeout(PATIENCE):
                    first = await reader.readexactly(1)
                    if not first.isalpha():  # TLS, as clients try first: they wait for an answer
                        raise ProtocolError("no HTTP")
                    data = first + await reader.readuntil(b"\r\n\r\n")
                head = RequestHead(data)
                going = head.keep_alive and not crowded and head.body_length() == 0
            except asyncio.LimitOverrunError:
                too_long = _Refused(431, "UNSUPPORTED", "request header fields are too large")
                await self._send(writer, too_long.answer, with_body=True, stays=False)
                return
            except (ProtocolError, ValueError):
                malformed = _Refused(400, "UNSUPPORTED", "malformed HTTP request")
                await self._send(writer, malformed.answer, with_body=True, stays=False)
                return
            answer = self._answer(head, crowded=crowded)
            if answer.status == 401:
                going = False
            await self._send(writer, answer, with_body=head.method != "HEAD", stays=going)

    async def _send(
        self, writer: asyncio.StreamWriter, answer: _Answer, *, with_body: bool, stays: bool
    ) -> None:
        size = answer.size if answer.blob else len(answer.body)
        reason = REASONS.get(answer.status) or _MORE_REASONS.get(answer.status, "")
        head = (
            f"HTTP/1.1 {answer.status} {reason}\r\nContent-Type: {answer.media_type}\r\n"
            f"Content-Length: {size}\r\nConnection: {'keep-alive' if stays else 'close'}\r\n"
        )
        writer.write(head.encode("latin-1") + _VERSION + answer.headers + b"\r\n")
        if with_body and answer.blob:
            await self._send_blob(writer, answer)
        elif with_body:
            writer.write(answer.body)
        await _drained(writer)

    async def _send_blob(self, writer: asyncio.StreamWriter, answer: _Answer) -> None:
        at, end = answer.first, answer.first + answer.size
        try:
            async with self._offers.reading(answer.blob) as fd:
                while at < end:
                    piece = await asyncio.to_thread(os.pread, fd, min(_PIECE, end - at), at)
                    if not piece:
                        raise OSError("the blob is shorter than it was")
                    writer.write(piece)
                    await _drained(writer)
                    at += len(piece)
        except (Failure, OSError):
            writer.transport.abort()
            raise

    # ------------------------------------------------------------------ answers

    def _answer(self, head: RequestHead, *, crowded: bool) -> _Answer:
        try:
            if crowded:
                raise _Refused(503, "TOOMANYREQUESTS", "too many connections", b"Retry-After: 5\r\n")
            self._check_token(head)
            if head.method not in ("GET", "HEAD"):
                raise _Refused(405, "UNSUPPORTED", "this registry is read-only", b"Allow: GET, HEAD\r\n")
            return self._found(*head.target(), head.fields.get(b"range", b""))
        except _Refused as refusal:
            return refusal.answer
        except Failure as error:
            log.warning("registry: %s", error)
            return _Refused(500, "UNKNOWN", "internal error").answer

    def _check_token(self, head: RequestHead) -> None:
        if not self._token:
            return
        kind, _, given = head.fields.get(b"authorization", b"").partition(b" ")
        if kind.lower() == b"basic":
            with contextlib.suppress(binascii.Error):
                given = base64.b64decode(given, validate=True).partition(b":")[2]
        if not hmac.compare_digest(given.strip(), self._token.encode()):
            wanted = b'WWW-Authenticate: Basic realm="sampan"\r\n'
            raise _Refused(401, "UNAUTHORIZED", "authentication required", wanted)

    def _found(self, path: str, query: str, wanted: bytes) -> _Answer:
        if path in ("/v2", "/v2/"):
            return _Answer(body=b"{}")
        if path == "/v2/_catalog":
            return _list("/v2/_catalog", query, self._offers.repositories(), "repositories", {})
        match = _PATH.fullmatch(path)
        if match is None or len(match["name"]) > 255:
            raise _Refused(404, "NAME_INVALID", "invalid repository name")
        name, what, reference = match["name"], match["what"], match["reference"]
        tags = self._offers.tags(name)
        if tags is None:
            raise _Refused(404, "NAME_UNKNOWN", "repository name not known to registry")
        if what == "tags":
            if reference != "list":
                raise _Refused(404, "UNSUPPORTED", "page not found")
            return _list(path, query, tags, "tags", {"name": name})
        return _KINDS[what](self, name, reference, wanted)

    def _manifest(self, name: str, reference: str, _wanted: bytes) -> _Answer:
        if not (digests.is_digest(reference) or _TAG.fullmatch(reference)):
            raise _Refused(400, "MANIFEST_INVALID", "manifest invalid")
        found = self._offers.manifest(name, reference)
        if found is None:
            raise _Refused(404, "MANIFEST_UNKNOWN", "manifest unknown")
        return _Answer(body=found.raw, media_type=found.media_type, headers=_named(found.digest))

    def _blob(self, name: str, digest: str, wanted: bytes) -> _Answer:
        _check_digest(digest)
        size = self._offers.blob(name, digest)
        if size is None:
            raise _Refused(404, "BLOB_UNKNOWN", "blob unknown to registry")
        first, last = _range(wanted, size)
        status, headers = 200, _named(digest) + b"Accept-Ranges: bytes\r\n"
        if (first, last) != (0, size - 1):
            status, headers = 206, headers + f"Content-Range: bytes {first}-{last}/{size}\r\n".encode()
        return _Answer(
            status=status,
            media_type="application/octet-stream",
            headers=headers,
            blob=digest,
            first=first,
            size=last - first + 1,
        )

    def _referrers(self, _name: str, digest: str, _wanted: bytes) -> _Answer:
        _check_digest(digest)
        body = json.dumps({"schemaVersion": 2, "mediaType": documents.OCI_INDEX, "manifests": []})
        return _Answer(body=body.encode(), media_type=documents.OCI_INDEX)


_KINDS: dict[str, Callable[[Distribution, str, str, bytes], _Answer]] = {
    "manifests": Distribution._manifest,
    "blobs": Distribution._blob,
    "referrers": Distribution._referrers,
}


async def _drained(writer: asyncio.StreamWriter) -> None:
    async with asyncio.timeout(PATIENCE):
        await writer.drain()


def _check_digest(digest: str) -> None:
    if not digests.is_digest(digest):
        raise _Refused(400, "DIGEST_INVALID", "provided digest did not match uploaded content")


def _named(digest: str) -> bytes:
    return f'Docker-Content-Digest: {digest}\r\nEtag: "{digest}"\r\n'.encode()


def _range(wanted: bytes, size: int) -> tuple[int, int]:
    """The first and the last byte that are asked for. One range counts; what is none is passed over."""
    match = _RANGE.fullmatch(wanted.decode("latin-1").strip()) if len(wanted) < 64 else None
    if match is None or not (match[1] or match[2]):
        return 0, size - 1
    if match[1]:
        first, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
    else:
        first, last = max(size - int(match[2]), 0), size - 1
    if first > last:
        bounds = f"Content-Range: bytes */{size}\r\n".encode()
        raise _Refused(416, "RANGE_INVALID", "invalid content range", bounds)
    return first, last


def _list(path: str, query: str, names: list[str], key: str, more: dict[str, str]) -> _Answer:
    """One page of a list, with a link to the next."""
    given = parse_qs(query[:2048], max_num_fields=10)
    text = given.get("n", [str(_PAGE)])[0]
    if not text.isdecimal() or len(text) > 9:
        raise _Refused(400, "PAGINATION_NUMBER_INVALID", "invalid number of results requested")
    count = min(int(text), _PAGE)
    last = given.get("last", [""])[0]
    rest = [name for name in names if name > last] if last else names
    page = rest[:count]
    headers = b""
    if page and len(rest) > len(page):
        link = f"{path}?n={count}&last={quote(page[-1], safe='')}"
        headers = f'Link: <{link}>; rel="next"\r\n'.encode()
    return _Answer(body=json.dumps({**more, key: page}).encode(), headers=headers)
