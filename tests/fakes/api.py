"""The api's surroundings in tests: a server in a thread, raw clients, a fake engine, Docker's description."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from sampan import errors
from sampan.api.request import ClientStream
from sampan.api.routing import Route
from sampan.api.server import Server
from sampan.engine.events import Events
from sampan.engine.images import ImagesUsage
from sampan.engine.model import (
    Container,
    ContainerConfig,
    Created,
    Exec,
    ExecConfig,
    ExitStatus,
    Filters,
    HostConfig,
    ListQuery,
    LogQuery,
    NetworkingConfig,
    Pruned,
)
from sampan.engine.system import SystemInfo, SystemVersion
from sampan.sandbox.cgroups import Features
from sampan.sandbox.messages import AttachOptions
from sampan.wire.http import ChunkedDecoder
from sampan.wire.logblocks import Entry, Text
from tests import reference

Take = Callable[[], ClientStream]
Size = tuple[int, int]

NAME = "quiet_crane"
"""The fake engine's one container."""

TIMEOUT = 10.0
"""Seconds after which a test that waits for bytes has failed."""


@dataclass(frozen=True, kw_only=True)
class ResponseHead:
    """Status line and header fields; field names in lower case."""

    status: int
    reason: str
    fields: dict[str, str]

    @property
    def chunked(self) -> bool:
        return self.fields.get("transfer-encoding") == "chunked"

    @property
    def content_length(self) -> int | None:
        return int(self.fields["content-length"]) if "content-length" in self.fields else None

    @property
    def has_body(self) -> bool:
        return self.status >= 200 and self.status not in (204, 304)


def response_head(buffer: bytearray) -> ResponseHead | None:
    """Take a complete head out of ``buffer``; None when more is needed."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    status_line, *lines = bytes(buffer[:end]).decode("latin-1").split("\r\n")
    del buffer[: end + 4]
    version, status, reason = status_line.split(" ", 2)
    assert version == "HTTP/1.1"
    fields = dict(line.split(": ", 1) for line in lines)
    assert len(fields) == len(lines), "a repeated field"
    return ResponseHead(
        status=int(status), reason=reason, fields={name.lower(): value for name, value in fields.items()}
    )


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
        # A test may have stopped it already: its loop may close at this very moment.
        with contextlib.suppress(RuntimeError):
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


class FakeLog:
    """Records, each in a list of its own, and then a failure if there is one."""

    def __init__(self, records: tuple[Entry, ...], failure: errors.Failure | None) -> None:
        self._records = records
        self._failure = failure

    async def __aiter__(self) -> AsyncIterator[list[Entry]]:
        for record in self._records:
            yield [record]
        if self._failure is not None:
            raise self._failure

    async def texts(self) -> AsyncIterator[list[Text]]:
        async for ((stream, _, data),) in self:
            yield [(stream, data)]


@dataclass
class FakeContainers:
    """One container; remembers what it was asked."""

    tty: bool = False
    changes: bool = True
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    records: tuple[Entry, ...] = ()
    log_failure: errors.Failure | None = None
    ended: asyncio.Future[ExitStatus] | None = None

    def _find(self, ref: str) -> None:
        if ref not in (NAME, "/" + NAME):
            raise errors.NotFound(f"No such container: {ref}")

    async def create(
        self,
        name: str | None,
        config: ContainerConfig,
        host: HostConfig,
        networking: NetworkingConfig,
        *,
        platform: tuple[str, str, str] | None = None,
    ) -> Created:
        self.platform = platform
        self.calls.append(("create", name, config, host, networking))
        return Created(id="ab" * 32, warnings=("mind the gap",))

    def link_names(self) -> dict[str, list[str]]:
        return {}

    def remove_link(self, ref: str) -> None:
        self.calls.append(("remove link", ref))

    async def _act(self, verb: str, ref: str, *details: Any) -> bool:
        self._find(ref)
        self.calls.append((verb, *details))
        return self.changes

    async def start(self, ref: str) -> bool:
        return await self._act("start", ref)

    async def stop(self, ref: str, *, signal: str | None, timeout: int | None) -> bool:
        return await self._act("stop", ref, signal, timeout)

    async def restart(self, ref: str, *, signal: str | None, timeout: int | None) -> None:
        await self._act("restart", ref, signal, timeout)

    async def kill(self, ref: str, signal: str | None) -> None:
        await self._act("kill", ref, signal)

    async def pause(self, ref: str) -> None:
        await self._act("pause", ref)

    async def unpause(self, ref: str) -> None:
        await self._act("unpause", ref)

    async def rename(self, ref: str, name: str) -> None:
        await self._act("rename", ref, name)

    async def resize(self, ref: str, height: int, width: int) -> None:
        await self._act("resize", ref, height, width)

    async def remove(self, ref: str, *, force: bool, volumes: bool) -> None:
        await self._act("remove", ref, force, volumes)

    async def prune(self, filters: Filters) -> Pruned:
        self.calls.append(("prune", filters))
        return Pruned(ids=("one",), space_reclaimed=5)

    async def list(self, query: ListQuery) -> list[Container]:
        self.calls.append(("list", query))
        return [self.get(NAME)]

    def get(self, ref: str) -> Container:
        self._find(ref)
        return Container(
            id="ab" * 32,
            name=NAME,
            created=1,
            path="sh",
            args=(),
            image_id="sha256:" + "cd" * 32,
            config=ContainerConfig(image="busybox", tty=self.tty),
            host=HostConfig(),
        )

    def wait(self, ref: str, condition: str) -> asyncio.Future[ExitStatus]:
        self._find(ref)
        self.calls.append(("wait", condition))
        self.ended = asyncio.get_running_loop().create_future()
        return self.ended

    def logs(self, ref: str, query: LogQuery) -> FakeLog:
        self._find(ref)
        self.calls.append(("logs", query))
        return FakeLog(self.records, self.log_failure)

    async def attach(self, ref: str, options: AttachOptions, take: Take) -> None:
        self._find(ref)
        self.calls.append(("attach", options))
        sock, _ = take().detach()
        with sock:
            sock.sendall(b"attached")


@dataclass
class FakeExecs:
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    async def create(self, ref: str, config: ExecConfig) -> str:
        self.calls.append(("create", ref, config))
        return "e" * 64

    async def start(
        self,
        exec_id: str,
        *,
        detach: bool,
        tty: bool,
        console_size: tuple[int, int] | None,
        take: Take | None,
    ) -> None:
        if exec_id != "e":
            raise errors.NotFound(f"No such exec instance: {exec_id}")
        self.calls.append(("start", detach, tty, console_size))
        if take is not None:
            sock, _ = take().detach()
            with sock:
                sock.sendall(b"running")

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        self.calls.append(("resize", exec_id, height, width))

    def inspect(self, exec_id: str) -> Exec:
        return Exec(id=exec_id, container_id="c", config=ExecConfig(cmd=("sh",)))


@dataclass
class FakeSystem:
    def info(self) -> SystemInfo:
        return SystemInfo(
            id="x",
            name="host",
            containers=3,
            containers_running=1,
            containers_paused=1,
            containers_stopped=1,
            images=2,
            driver="overlay2",
            root_dir="/data",
            events_listeners=0,
            system_time_ns=1,
            kernel_version="6.1",
            operating_system="Debian",
            os_version="12",
            architecture="x86_64",
            cpu_count=2,
            memory_total=5,
            server_version="0",
            cgroup_driver="cgroupfs",
            cgroup_version="1",
            logging_driver="json-file",
            default_runtime="sampan",
            runtimes={"sampan": ("sampan",)},
            security_options=("name=seccomp,profile=builtin",),
            features=Features(memory_limit=True, swap_limit=True, pids_limit=True),
            driver_status=(("Backing Filesystem", "extfs"),),
            ip_forwarding=True,
            debug=False,
        )

    def version(self) -> SystemVersion:
        return SystemVersion(
            version="0",
            api_version="1.56",
            minimum_api_version="1.24",
            python_version="3.11.2",
            kernel_version="6.1",
            architecture="x86_64",
        )

    def containers(self) -> list[Container]:
        return []

    async def container_usage(self, containers: Any = None) -> list[Any]:
        return []


async def _no_cache(_filters: Any, **_how: Any) -> tuple[list[str], int]:
    return [], 0


@dataclass
class FakeEngine:
    containers: FakeContainers = field(default_factory=FakeContainers)
    execs: FakeExecs = field(default_factory=FakeExecs)
    events: Events = field(default_factory=Events)
    system: FakeSystem = field(default_factory=FakeSystem)
    images: Any = field(default_factory=lambda: SimpleNamespace(usage=_no_images))
    volumes: Any = field(default_factory=lambda: SimpleNamespace(usage=_nothing))
    build_usage: Any = field(default_factory=lambda: SimpleNamespace(records=_nothing, prune=_no_cache))


async def _nothing() -> list[Any]:
    return []


async def _no_images(_containers: Any) -> ImagesUsage:
    return ImagesUsage(summaries=[], total=0, held=0)


# Docker's own description of its answers

REFERENCE = reference.REFERENCE / "docker-engine-api.yaml"


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
