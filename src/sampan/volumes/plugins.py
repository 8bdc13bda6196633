"""Volume drivers that are processes of their own, by Docker's plugin protocol: found, and asked.

Found, by name, in this order (`docs.docker.com/engine/extend/plugin_api`):

    /run/docker/plugins/NAME.sock, /run/docker/plugins/NAME/NAME.sock
    /etc/docker/plugins and /usr/lib/docker/plugins: NAME.spec (an address) or NAME.json ({"Addr": …}), there
    or in a directory NAME

Asked by HTTP: POST of JSON to /Plugin.Activate once, then to /VolumeDriver.Create and its like. A driver that
cannot be reached is tried again for half a minute, longer from time to time, as Docker does; one that does
not answer is given up after a minute or two.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sampan.errors import Conflict, Failure, Internal, NotFound, Unavailable
from sampan.wire.http import ChunkedDecoder, ProtocolError

log = logging.getLogger(__name__)

SOCKETS = "/run/docker/plugins"
SPECS = ("/etc/docker/plugins", "/usr/lib/docker/plugins")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.:/-]*")
_LONG = frozenset(("Create", "Mount", "Unmount"))
_MOST = 4 << 20  # bytes of an answer
_SPEC = 1 << 16  # bytes
_IMPLEMENTS = "VolumeDriver"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """In seconds: how long an unreachable driver is tried for, and how long an answer is waited for."""

    patience: float = 30.0
    short: float = 60.0
    long: float = 120.0


class DriverError(Conflict):
    """What a driver answered that it could not do, in its words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """``path`` of a socket, or a host and port, perhaps with TLS."""

    path: str = ""
    host: str = ""
    port: int = 0
    tls: ssl.SSLContext | None = None


class Plugins:
    """The drivers of this host. ``sockets`` and ``specs`` are directories."""

    def __init__(
        self, *, sockets: str = SOCKETS, specs: Sequence[str] = SPECS, timing: Timing | None = None
    ) -> None:
        self._sockets = sockets
        self._specs = specs
        self._timing = timing or Timing()
        self._known: dict[str, Driver] = {}

    def names(self) -> list[str]:
        """Of every plugin that can be found now, volume driver or not."""
        found = {name for entry in _entries(self._sockets) if (name := _socket_name(self._sockets, entry))}
        for directory in self._specs:
            for entry in _entries(directory):
                stem, dot, kind = entry.rpartition(".")
                if dot and kind in ("spec", "json"):
                    found.add(stem)
                elif any(os.path.isfile(f"{directory}/{entry}/{entry}.{kind}") for kind in ("spec", "json")):
                    found.add(entry)
        return sorted(name for name in found if _NAME.fullmatch(name))

    async def driver(self, name: str, *, patient: bool = False) -> Driver:
        """The driver of that name, which was found and said that it is one. NotFound in Docker's words.

        ``patient``: one that is not there is waited for, since volumes of its are known.
        """
        known = self._known.get(name)
        if known is not None:
            return known
        waited = _Waiting(self._timing.patience if patient else 0.0)
        while True:
            address = self._find(name)
            if address is not None:
                break
            if not await waited.again(f"plugin {name} is not there"):
                raise NotFound(f'plugin "{name}" not found')
        driver = Driver(name, address, self._timing)
        if _IMPLEMENTS not in await driver.activate():
            raise NotFound(f'plugin "{name}" not found')
        return self._known.setdefault(name, driver)

    async def drivers(self) -> list[Driver]:
        """Every volume driver that answers."""
        found = []
        for name in self.names():
            try:
                found.append(await self.driver(name))
            except Failure as error:
                log.debug("plugin %s: %s", name, error)
        return found

    def forget(self, name: str) -> None:
        """Have the driver looked for and activated anew when it is next needed."""
        self._known.pop(name, None)

    def _find(self, name: str) -> Address | None:
        if not _NAME.fullmatch(name) or ".." in name.split("/"):
            return None
        for path in (f"{self._sockets}/{name}.sock", f"{self._sockets}/{name}/{name}.sock"):
            if _is_socket(path):
                return Address(path=path)
        for directory in self._specs:
            for stem in (f"{directory}/{name}", f"{directory}/{name}/{name}"):
                for path, reader in ((f"{stem}.spec", _from_spec), (f"{stem}.json", _from_json)):
                    if os.path.isfile(path):
                        return reader(path)
        return None


class Driver:
    """One driver."""

    def __init__(self, name: str, address: Address, timing: Timing) -> None:
        self.name = name
        self._address = address
        self._timing = timing
        self._scope = ""

    async def activate(self) -> list[str]:
        """What it implements."""
        answer = await self._ask("Plugin.Activate", None, self._timing.short)
        found = answer.get("Implements")
        return [str(each) for each in found] if isinstance(found, list) else []

    async def create(self, name: str, options: dict[str, str] | None) -> None:
        await self._call("Create", {"Name": name, "Opts": options})

    async def remove(self, name: str) -> None:
        await self._call("Remove", {"Name": name})

    async def mount(self, name: str, holder: str) -> str:
        """Where on the host it is mounted now. ``holder`` says for whom; the driver counts."""
        answer = await self._call("Mount", {"Name": name, "ID": holder})
        return _text(answer, "Mountpoint")

    async def unmount(self, name: str, holder: str) -> None:
        await self._call("Unmount", {"Name": name, "ID": holder})

    async def path(self, name: str) -> str:
        """Where on the host it is mounted, if it is."""
        return _text(await self._call("Path", {"Name": name}), "Mountpoint")

    async def get(self, name: str) -> dict[str, Any]:
        """``{"Name", "Mountpoint", "CreatedAt", "Status"}``. DriverError for a volume that it has not."""
        found = (await self._call("Get", {"Name": name})).get("Volume")
        if not isinstance(found, dict):
            raise DriverError(f"driver {self.name} gave no volume")
        return found

    async def list(self) -> list[dict[str, Any]]:
        found = (await self._call("List", {})).get("Volumes")
        entries = found if isinstance(found, list) else []
        return [each for each in entries if isinstance(each, dict) and _text(each, "Name")]

    async def scope(self) -> str:
        """``local`` or ``global``; local if it does not say."""
        if not self._scope:
            try:
                answer = (await self._call("Capabilities", {})).get("Capabilities")
            except DriverError:
                answer = None
            said = _text(answer, "Scope").lower() if isinstance(answer, dict) else ""
            self._scope = said if said in ("local", "global") else "local"
        return self._scope

    async def _call(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        limit = self._timing.long if method in _LONG else self._timing.short
        answer = await self._ask(f"{_IMPLEMENTS}.{method}", body, limit)
        if said := _text(answer, "Err"):
            raise DriverError(said)
        return answer

    async def _ask(self, method: str, body: dict[str, Any] | None, limit: float) -> dict[str, Any]:
        """One request; an unreachable driver is tried again. Unavailable, DriverError or Internal."""
        waiting = _Waiting(self._timing.patience)
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
                said = f"Unable to connect to plugin: {self.name}/{method}: {_why(error)}"
                if not await waiting.again(said):
                    raise Unavailable(said) from error
        try:
            answer = json.loads(raw) if raw.strip() else {}
        except ValueError:
            answer = {"Err": raw.decode("utf-8", "replace").strip()[:500]}
        if not isinstance(answer, dict):
            raise Internal(f"plugin {self.name}: {method}: not an object")
        if status != 200:
            raise DriverError(f"{method}: {_text(answer, 'Err') or f'status {status}'}")
        return answer


class _Waiting:
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
        reader, writer = await asyncio.open_unix_connection(address.path, limit=_SPEC)
    else:
        reader, writer = await asyncio.open_connection(
            address.host, address.port, ssl=address.tls, limit=_SPEC
        )
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
        try:
            return await _answer(reader)
        except (ValueError, asyncio.LimitOverrunError) as error:
            raise ProtocolError("not HTTP") from error
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(head[0].split(" ")[1]) if head[0].startswith("HTTP/1.") and " " in head[0] else 0
    fields = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head)
    }
    if not 200 <= status < 600:
        raise ProtocolError("not HTTP")
    if fields.get("transfer-encoding", "").lower() == "chunked":
        return status, await _chunked(reader)
    if "content-length" in fields:
        length = int(fields["content-length"])
        if not 0 <= length <= _MOST:
            raise ProtocolError("an answer that is too long")
        return status, await reader.readexactly(length)
    body = await reader.read(_MOST + 1)
    while more := await reader.read(_MOST + 1 - len(body)) if len(body) <= _MOST else b"":
        body += more
    if len(body) > _MOST:
        raise ProtocolError("an answer that is too long")
    return status, body


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    decoder, buffer, body = ChunkedDecoder(), bytearray(), b""
    while not decoder.done:
        piece = await reader.read(_SPEC)
        if not piece:
            raise EOFError("the answer breaks off")
        buffer += piece
        body += decoder.take(buffer)
        if len(body) > _MOST:
            raise ProtocolError("an answer that is too long")
    return body


def _entries(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _socket_name(directory: str, entry: str) -> str:
    if entry.endswith(".sock") and _is_socket(f"{directory}/{entry}"):
        return entry.removesuffix(".sock")
    return entry if _is_socket(f"{directory}/{entry}/{entry}.sock") else ""


def _is_socket(path: str) -> bool:
    with suppress(OSError):
        return os.stat(path).st_mode & 0o170000 == 0o140000
    return False


def _from_spec(path: str) -> Address:
    with open(path, errors="replace") as file:
        return parse_address(file.read(_SPEC).strip(), path)


def _from_json(path: str) -> Address:
    try:
        with open(path) as file:
            document = json.loads(file.read(_SPEC))
        address = parse_address(str(document["Addr"]), path)
        asked = document.get("TLSConfig")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Internal(f"{path}: not a description of a plugin") from error
    if not address.host or not isinstance(asked, dict):
        return address
    try:
        return Address(host=address.host, port=address.port, tls=_tls(asked))
    except OSError as error:
        raise Internal(f"{path}: TLS: {error.strerror or error}") from error


def _tls(asked: dict[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=_text(asked, "CAFile") or None)
    if asked.get("InsecureSkipVerify") is True:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate := _text(asked, "CertFile"):
        context.load_cert_chain(certificate, _text(asked, "KeyFile") or None)
    return context


def parse_address(text: str, where: str) -> Address:
    """``unix:///path`` or ``tcp://host:port``. Internal for anything else."""
    try:
        url = urlsplit(text)
        if url.scheme == "unix" and url.path:
            return Address(path=url.path)
        if url.scheme in ("tcp", "http") and url.hostname and url.port:
            return Address(host=url.hostname, port=url.port)
        if url.scheme == "https" and url.hostname and url.port:
            return Address(host=url.hostname, port=url.port, tls=ssl.create_default_context())
    except ValueError as error:
        raise Internal(f"{where}: {text!r} is no address of a plugin") from error
    raise Internal(f"{where}: {text!r} is no address of a plugin")


def _why(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number).lower() if number else str(error)


def _text(document: dict[str, Any], key: str) -> str:
    found = document.get(key)
    return found if isinstance(found, str) else ""
