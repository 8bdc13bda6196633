"""Asking a plugin: POST of JSON to /Plugin.Activate once, then to /VolumeDriver.Create and its like.

Laws: a plugin that cannot be reached is tried again for half a minute, longer from time to time, as Docker
does; one that does not answer is given up after a minute or two; an answer is bounded.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import time
from dataclasses import dataclass
from typing import Any

import httptools

from sampan.deferred import asyncio_with_tls
from sampan.errors import Conflict, Internal, Unavailable
from sampan.plugins.discovery import Address
from sampan.spec import foreign
from sampan.wire.http import ProtocolError

log = logging.getLogger(__name__)

_MOST = 4 << 20  # bytes of an answer
_HEAD = 1 << 16  # bytes of its head


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """In seconds: how long an unreachable plugin is tried for, and how long an answer is waited for."""

    patience: float = 30.0
    short: float = 60.0
    long: float = 120.0


class PluginError(Conflict):
    """What a plugin answered that it could not do, in its words."""


class Plugin:
    """One plugin at its address."""

    def __init__(self, name: str, address: Address, timing: Timing) -> None:
        self.name = name
        self._address = address
        self._timing = timing

    async def activate(self) -> list[str]:
        """What it implements."""
        found = (await self.ask("Plugin.Activate", None, self._timing.short)).get("Implements")
        return [str(each) for each in found] if isinstance(found, list) else []

    async def ask(self, method: str, body: dict[str, Any] | None, limit: float) -> dict[str, Any]:
        """One request; an unreachable plugin is tried again. Unavailable, PluginError or Internal."""
        waiting = Waiting(self._timing.patience)
        while True:
            try:
                async with asyncio.timeout(limit):
                    status, raw = await _exchange(self._address, method, body)
                break
            except TimeoutError as error:
                raise Unavailable(
                    f'Post "http://{self.name}/{method}": context deadline exceeded '
                    f"({limit:g} s passed without an answer)"
                ) from error
            except (OSError, EOFError, ProtocolError) as error:
                reason = f"Unable to connect to plugin: {self.name}/{method}: {_why(error)}"
                if not await waiting.again(reason):
                    raise Unavailable(reason) from error
        try:
            answer = foreign.decode(raw) if raw.strip() else {}
        except ValueError:
            answer = {"Err": raw.decode("utf-8", "replace").strip()[:500]}
        if not isinstance(answer, dict):
            raise Internal(f"plugin {self.name}: {method}: not an object")
        if status != 200:
            raise PluginError(f"{method}: {said(answer, 'Err') or f'status {status}'}")
        return answer


def said(document: dict[str, Any], key: str) -> str:
    """The text at ``key``, "" for anything else."""
    found = document.get(key)
    return found if isinstance(found, str) else ""


class Waiting:
    """Pauses of 1, 2, 4, … seconds until ``patience`` is over."""

    def __init__(self, patience: float) -> None:
        self._end = time.monotonic() + patience
        self._pause = min(1.0, patience / 30)

    async def again(self, why: str) -> bool:
        """Wait for the next attempt; False if there is to be none."""
        if not self._pause or time.monotonic() + self._pause >= self._end:
            return False
        log.warning("%s, retrying in %gs", why, self._pause)
        await asyncio.sleep(self._pause)
        self._pause *= 2
        return True


async def _exchange(address: Address, method: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
    """(Status, body) of one request on a connection of its own."""
    if address.path:
        reader, writer = await asyncio.open_unix_connection(address.path)
    else:
        if address.tls is not None:
            asyncio_with_tls()
        reader, writer = await asyncio.open_connection(address.host, address.port, ssl=address.tls)
    try:
        data = b"" if body is None else json.dumps(body).encode() + b"\n"
        host = re.sub(r"[^\w.:-]", "", address.host) or "plugin"
        writer.write(
            f"POST /{method} HTTP/1.1\r\nHost: {host}\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\n"
            f"Content-Type: application/vnd.docker.plugins.v1.2+json\r\nContent-Length: {len(data)}\r\n"
            "Connection: close\r\n\r\n".encode("ascii")
            + data
        )
        await writer.drain()
        return await _answer(reader)
    finally:
        writer.close()


class _Answer:
    """What httptools' parser finds: the body, and where it ends."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.begun = False
        self.done = False
        self.framed = False

    def on_header(self, name: bytes, _value: bytes) -> None:
        self.framed |= name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        self.begun = True

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.done = True


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """(Status, body); a body without a length goes on until the plugin closes the connection."""
    answer, head = _Answer(), 0
    parser = httptools.HttpResponseParser(answer)
    while not answer.done:
        piece = await reader.read(_HEAD)
        if not piece and answer.begun and not answer.framed:
            break
        if not piece:
            raise EOFError("the answer breaks off")
        head += 0 if answer.begun else len(piece)
        try:
            parser.feed_data(piece)
        except httptools.HttpParserError as error:
            raise ProtocolError("not HTTP") from error
        if head > _HEAD or len(answer.body) > _MOST:
            raise ProtocolError("an answer that is too long")
    if parser.get_status_code() < 200:
        raise ProtocolError("not HTTP")
    return parser.get_status_code(), bytes(answer.body)


def _why(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number).lower() if number else str(error)
