"""A server on a Unix socket in a thread of its own, clients as raw sockets, and a fake engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.api.routes import ROUTES
from sampan.api.routing import Route
from sampan.api.server import Server
from sampan.wire.http import ChunkedDecoder, ResponseHead, response_head

TIMEOUT = 10.0
"""Seconds after which a test that waits for bytes has failed."""


class Client:
    """One connection, spoken to in bytes."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(path)
        self.buffer = bytearray()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def request(self, line: str, body: bytes = b"", **fields: str) -> None:
        """``request("GET /info")``; keyword arguments are fields, ``content_type`` for Content-Type."""
        lines = [f"{line} HTTP/1.1", "Host: docker"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        if body or line.startswith("POST"):
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)

    def fill(self) -> bool:
        data = self.sock.recv(65536)
        self.buffer += data
        return bool(data)

    def head(self) -> ResponseHead:
        while (head := response_head(self.buffer)) is None:
            assert self.fill(), f"connection closed within a head: {bytes(self.buffer)!r}"
        return head

    def body(self, head: ResponseHead) -> bytes:
        if not head.has_body:
            return b""
        if head.chunked:
            decoder, data = ChunkedDecoder(), bytearray()
            while True:
                data += decoder.take(self.buffer)
                if decoder.done:
                    return bytes(data)
                assert self.fill(), "connection closed within a body"
        length = head.content_length
        while length is None or len(self.buffer) < length:
            if not self.fill():
                assert length is None
                length = len(self.buffer)
        body = bytes(self.buffer[:length])
        del self.buffer[:length]
        return body

    def answer(self) -> tuple[ResponseHead, bytes]:
        head = self.head()
        return head, self.body(head)

    def document(self) -> tuple[int, Any]:
        head, body = self.answer()
        return head.status, json.loads(body)

    def take(self, size: int) -> bytes:
        """Exactly ``size`` raw bytes."""
        while len(self.buffer) < size:
            assert self.fill(), "connection closed"
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    def rest(self) -> bytes:
        """Everything until the peer closes."""
        with contextlib.suppress(ConnectionResetError):
            while self.fill():
                pass
        data = bytes(self.buffer)
        self.buffer.clear()
        return data


class Served:
    """A running server."""

    def __init__(self, path: str, engine: Any, routes: tuple[Route, ...]) -> None:
        self.path = path
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(engine, routes)), daemon=True)
        self._thread.start()
        assert self._started.wait(TIMEOUT)

    async def _run(self, engine: Any, routes: tuple[Route, ...]) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.server = Server(engine, routes)
        await self.server.listen_unix(self.path)
        self._started.set()
        await self._stop.wait()
        await self.server.close(grace=1.0)

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Run a function in the server's thread."""
        self.loop.call_soon_threadsafe(function, *arguments)

    def close(self) -> None:
        if self._thread.is_alive():
            self.call(self._stop.set)
            self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()

    def client(self) -> Client:
        return Client(self.path)

    def get(self, line: str, body: bytes = b"", **fields: str) -> tuple[int, Any]:
        """One request on a connection of its own, its answer a JSON document."""
        with self.client() as client:
            client.request(line, body, **fields)
            return client.document()

    def post(self, path: str, document: Any) -> tuple[int, Any]:
        return self.get(f"POST {path}", json.dumps(document).encode(), content_type="application/json")


Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start servers: ``serve(engine, routes)``; all routes by default."""
    running: list[Served] = []

    def start(engine: Any = None, routes: tuple[Route, ...] = ROUTES) -> Served:
        served = Served(str(tmp_path / f"{len(running)}.sock"), engine, routes)
        running.append(served)
        return served

    yield start
    for served in running:
        served.close()


# Docker's own description of its answers

REFERENCE = Path(__file__).parents[4] / "shared" / "reference" / "docker-engine-api.yaml"


class Description:
    """Checks documents against definitions of the Engine API's OpenAPI file."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def problems(self, name: str, value: Any) -> list[str]:
        """What is wrong with ``value`` as an instance of the definition ``name``; unknown members count."""
        found: list[str] = []
        self._check({"$ref": f"#/definitions/{name}"}, value, name, found)
        return found

    def operations(self) -> list[tuple[str, str]]:
        """All (method, path) of the API."""
        return [(method.upper(), path) for path, item in self._document["paths"].items() for method in item]

    def _resolve(self, schema: dict[str, Any]) -> dict[str, Any]:
        resolved = dict(schema)
        while "$ref" in resolved:
            target = self._document["definitions"][resolved.pop("$ref").rpartition("/")[2]]
            resolved = {**target, **resolved}
        for part in resolved.pop("allOf", ()):
            part = self._resolve(part)
            resolved["properties"] = {**part.get("properties", {}), **resolved.get("properties", {})}
            resolved.setdefault("type", part.get("type"))
        return resolved

    def _check(self, schema: dict[str, Any], value: Any, where: str, found: list[str]) -> None:
        schema = self._resolve(schema)
        kind = schema.get("type")
        if value is None:
            # Go's nil slices, maps and pointers are null wherever the description shows the type.
            if (
                kind not in ("object", "array", "string", "integer", "boolean")
                or schema.get("x-nullable") is False
            ):
                found.append(f"{where}: null")
            return
        python: dict[Any, Any] = {
            "object": dict,
            "array": list,
            "string": str,
            "integer": int,
            "boolean": bool,
            "number": (int, float),
        }
        if kind in python and (not isinstance(value, python[kind]) or (kind == "integer" and value is True)):
            found.append(f"{where}: {type(value).__name__} instead of {kind}")
            return
        if "enum" in schema and value not in schema["enum"]:
            found.append(f"{where}: {value!r} is none of {schema['enum']}")
        if isinstance(value, list):
            for position, item in enumerate(value):
                self._check(schema.get("items", {}), item, f"{where}[{position}]", found)
        elif isinstance(value, dict):
            self._check_object(schema, value, where, found)

    def _check_object(
        self, schema: dict[str, Any], value: dict[str, Any], where: str, found: list[str]
    ) -> None:
        properties = schema.get("properties", {})
        found += [f"{where}.{name}: missing" for name in schema.get("required", ()) if name not in value]
        for name, item in value.items():
            if name in properties:
                self._check(properties[name], item, f"{where}.{name}", found)
            elif isinstance(rest := schema.get("additionalProperties"), dict):
                self._check(rest, item, f"{where}.{name}", found)
            elif properties and rest is not True:
                found.append(f"{where}.{name}: unknown")


@pytest.fixture(scope="session")
def description() -> Description:
    """The Engine API's description; skips where the reference data or a YAML reader is absent."""
    yaml = pytest.importorskip("yaml", reason="reading the API's description needs PyYAML")
    if not REFERENCE.exists():
        pytest.skip("the Engine API's description is not on this machine")
    with REFERENCE.open("rb") as file:
        return Description(yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
