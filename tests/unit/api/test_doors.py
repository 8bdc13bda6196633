"""Guards of a listening socket: readers only, and the audit log."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from tests.unit.api.test_listening import BASIC

from sampan.api.audit import Audit
from sampan.api.doors import Door, Guard, ReadersOnly, route
from sampan.api.metrics import RequestMetrics
from sampan.api.request import Request
from sampan.api.responses import Answer, text
from sampan.api.routing import Route
from sampan.api.server import Server


async def change(request: Request, _engine: object) -> Answer:
    return text(await request.read())


def look(_request: Request, _engine: object) -> Answer:
    return text(b"seen")


ROUTES = (
    *BASIC,
    Route("GET", "/look", look),
    Route("POST", "/change", change),
    Route("GET", "/containers/{name}/attach/ws", look),
    Route("GET", "/sampan-volumes/{name}/export", look),
)


def talk(tmp_path: Path, guards: tuple[Guard, ...], *requests: str) -> list[int]:
    """The statuses of the answers, on one connection."""

    async def run() -> list[int]:
        server = Server(None, ROUTES)
        await server.listen_unix(f"{tmp_path}/s.sock", door=Door(name="here", guards=guards))
        reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/s.sock")
        found = []
        for request in requests:
            writer.write(f"{request} HTTP/1.1\r\nHost: d\r\nContent-Length: 4\r\n\r\nbody".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
            found.append(int(head.split(b" ")[1]))
        writer.close()
        await server.close()
        return found

    return asyncio.run(run())


def test_a_reader_changes_nothing(tmp_path: Path) -> None:
    requests = ("GET /look", "POST /change", "GET /containers/x/attach/ws", "GET /look")
    assert talk(tmp_path, (ReadersOnly(),), *requests) == [200, 403, 403, 200]
    assert talk(tmp_path, (), *requests) == [200, 200, 200, 200]


def test_what_changes_something_is_written_down(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    guards = (Audit(str(path), "here"), ReadersOnly())
    assert talk(tmp_path, guards, "GET /look", "POST /change?a=b", "GET /refuse") == [200, 403, 409]
    (line,) = map(json.loads, path.read_text().splitlines())
    assert line["uid"] == os.getuid()
    assert line["pid"] == os.getpid()
    assert (line["socket"], line["method"], line["path"], line["query"]) == ("here", "POST", "/change", "a=b")
    assert line["status"] == 403
    assert "for reading only" in line["error"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("path", "name", "pattern"),
    [
        ("/_ping", "", "/_ping"),
        ("/containers/abc/start", "abc", "/containers/{name}/start"),
        ("/containers/abc", "abc", "/containers/{name}"),
        ("/images/registry/a/b/json", "registry/a/b", "/images/{name}/json"),
        ("/images/a%20b/json", "a b", "/images/{name}/json"),
    ],
)
def test_a_route_is_named_without_names(path: str, name: str, pattern: str) -> None:
    request = Request.__new__(Request)
    request.path, request.name = path, name
    assert route(request) == pattern


def test_a_log_that_was_moved_away_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    audit = Audit(str(path), "here")
    assert talk(tmp_path, (audit,), "POST /change") == [200]
    path.rename(tmp_path / "audit.1")
    assert talk(tmp_path, (audit,), "POST /change") == [200]
    assert len(path.read_text().splitlines()) == 1


def test_a_log_that_cannot_be_written_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert talk(tmp_path, (Audit(f"{tmp_path}/none/audit", "here"),), "POST /change") == [200]
    assert "was not written: No such file or directory" in caplog.text


def test_a_request_whose_body_breaks_off_is_written_down(tmp_path: Path) -> None:
    path = tmp_path / "audit"

    async def run() -> None:
        server = Server(None, ROUTES)
        registry = CollectorRegistry()
        guards = (RequestMetrics(registry), Audit(str(path), "here"))
        await server.listen_unix(f"{tmp_path}/s.sock", door=Door(name="here", guards=guards))
        reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/s.sock")
        writer.write(b"POST /change HTTP/1.1\r\nHost: d\r\nContent-Length: 4\r\n\r\nbo")
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await server.close()
        labels = {"method": "POST", "route": "/change", "status": "400"}
        assert registry.get_sample_value("sampan_requests_total", labels) == 1

    asyncio.run(run())
    (line,) = map(json.loads, path.read_text().splitlines())
    assert (line["path"], line["status"]) == ("/change", 400)
    assert "the client went away before its request was complete" in line["error"]


def test_every_request_of_a_pipeline_is_written_down(tmp_path: Path) -> None:
    path = tmp_path / "audit"

    async def run() -> None:
        server = Server(None, ROUTES)
        await server.listen_unix(f"{tmp_path}/s.sock", door=Door(guards=(Audit(str(path), "here"),)))
        reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/s.sock")
        writer.write(b"POST /change HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n" * 20)
        writer.write_eof()
        await reader.read()
        writer.close()
        await server.close()

    asyncio.run(run())
    assert len(path.read_text().splitlines()) == 20


def test_secrets_and_newlines_of_a_query_are_not_written_down(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    query = (
        "build%61rgs=%7B%22T%22:%22hush%22%7D&remote=https://me:hush@host/x.git&t=a%0Ab&changes=ENV+A=hush"
    )
    talk(tmp_path, (Audit(str(path), "here"),), f"POST /change?{query}")
    (line,) = path.read_text().splitlines()
    assert "hush" not in line
    assert json.loads(line)["query"] == "buildargs=...&remote=https%3A%2F%2Fhost%2Fx.git&t=a%0Ab&changes=..."


def test_a_volume_s_export_makes_containers_stand_still(tmp_path: Path) -> None:
    export = "GET /sampan-volumes/x/export"
    requests = (export, f"{export}?pause=1", f"{export}?pause=0")
    assert talk(tmp_path, (ReadersOnly(),), *requests) == [403, 403, 200]


def test_a_route_is_counted_by_the_name_that_was_asked_for(tmp_path: Path) -> None:
    registry = CollectorRegistry()

    class Renames(ReadersOnly):
        async def before(self, request: Request) -> None:
            request.name = "id"

    talk(tmp_path, (RequestMetrics(registry), Renames()), "GET /containers/a/b/attach/ws")
    labels = {"method": "GET", "route": "/containers/{name}/attach/ws", "status": "200"}
    assert registry.get_sample_value("sampan_requests_total", labels) == 1
