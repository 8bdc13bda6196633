"""Authorization plugins: real ones on sockets, asked about requests and answers."""

from __future__ import annotations

import asyncio
import base64
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from sampan import errors
from sampan.api.authorization import MAX_BODY, Authorization
from sampan.api.doors import Door, Guard
from sampan.api.request import Request
from sampan.api.responses import Answer, json_response
from sampan.api.routing import Route
from sampan.api.server import Server
from sampan.plugins.discovery import Places

Judge = Callable[[str, dict[str, Any]], dict[str, Any]]


class Unix(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class Plugin:
    """A plugin that answers as ``judge`` says; ``asked`` holds what it was asked."""

    def __init__(self, path: Path, judge: Judge, implements: str = "authz") -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        plugin = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                method = self.path.rpartition("/")[2]
                if method == "Plugin.Activate":
                    verdict: dict[str, Any] = {"Implements": [implements]}
                else:
                    question = json.loads(raw)
                    plugin.asked.append((method, question))
                    verdict = judge(method, question)
                body = json.dumps(verdict).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                """Nothing is said."""

            def address_string(self) -> str:
                return "unix"

        self._server = Unix(str(path), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def allow(_method: str, _question: dict[str, Any]) -> dict[str, Any]:
    return {"Allow": True}


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Callable[..., Plugin]]:
    made: list[Plugin] = []

    def make(judge: Judge = allow, *, name: str = "judge", implements: str = "authz") -> Plugin:
        made.append(Plugin(tmp_path / f"{name}.sock", judge, implements))
        return made[-1]

    yield make
    for each in made:
        each.close()


async def echo(request: Request, engine: list[bytes]) -> Answer:
    engine.append(await request.read())
    return json_response({"secret": "word"})


ROUTES = (Route("POST", "/things/{name}", echo), Route("GET", "/things/{name}", echo))


def talk(tmp_path: Path, request: bytes, *names: str) -> tuple[int, bytes, list[bytes]]:
    """(status, body, bodies that handlers saw) of one request at a door that asks the plugins ``names``."""
    seen: list[bytes] = []

    async def run() -> tuple[int, bytes]:
        places = Places(sockets=str(tmp_path), specs=())
        guards: tuple[Guard, ...] = (Authorization(names, places),)
        server = Server(seen, ROUTES)
        await server.listen_unix(f"{tmp_path}/api", door=Door(name="here", guards=guards))
        reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/api")
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        writer.close()
        await server.close()
        return int(head.split(b" ")[1]), body

    return (*asyncio.run(run()), seen)


def post(body: bytes, kind: str = "application/json") -> bytes:
    head = f"POST /v1.41/things/a%20b?x=1 HTTP/1.1\r\nHost: d\r\nContent-Type: {kind}\r\n"
    return f"{head}X-Registry-Auth: password\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def test_a_plugin_sees_what_is_asked_and_what_is_answered(
    tmp_path: Path, plugin: Callable[..., Plugin]
) -> None:
    judge = plugin()
    status, body, seen = talk(tmp_path, post(b'{"a": 1}'), "judge")
    assert (status, json.loads(body), seen) == (200, {"secret": "word"}, [b'{"a": 1}'])
    (first, question), (second, answered) = judge.asked
    assert (first, second) == ("AuthZPlugin.AuthZReq", "AuthZPlugin.AuthZRes")
    assert question["RequestMethod"] == "POST"
    assert question["RequestUri"] == "/v1.41/things/a%20b?x=1"
    assert base64.b64decode(question["RequestBody"]) == b'{"a": 1}'
    assert question["RequestHeaders"]["Content-Type"] == "application/json"
    assert "password" not in json.dumps(question)
    assert answered["ResponseStatusCode"] == 200
    assert json.loads(base64.b64decode(answered["ResponseBody"])) == {"secret": "word"}


def test_what_it_denies_is_not_begun(tmp_path: Path, plugin: Callable[..., Plugin]) -> None:
    plugin(lambda _method, _question: {"Allow": False, "Msg": "not today"})
    status, body, seen = talk(tmp_path, post(b"{}"), "judge")
    assert (status, seen) == (403, [])
    assert json.loads(body) == {"message": "authorization denied by plugin judge: not today"}


def test_an_answer_that_it_denies_is_not_sent(tmp_path: Path, plugin: Callable[..., Plugin]) -> None:
    plugin(lambda method, _question: {"Allow": method.endswith("Req"), "Msg": "hush"})
    status, body, seen = talk(tmp_path, post(b"{}"), "judge")
    assert (status, seen) == (403, [b"{}"])
    assert b"secret" not in body


@pytest.mark.parametrize("verdict", [{"Err": "broken"}, {"Allow": "yes"}, {}])
def test_whatever_is_no_yes_is_a_no(
    tmp_path: Path, plugin: Callable[..., Plugin], verdict: dict[str, Any]
) -> None:
    plugin(lambda _method, _question: verdict)
    status, _, seen = talk(tmp_path, post(b"{}"), "judge")
    assert status in (403, 500)
    assert seen == []


def test_every_plugin_has_to_allow(tmp_path: Path, plugin: Callable[..., Plugin]) -> None:
    first = plugin(name="first")
    plugin(lambda _method, _question: {"Allow": False}, name="second")
    status, _, seen = talk(tmp_path, post(b"{}"), "first", "second")
    assert (status, seen, len(first.asked)) == (403, [], 1)


def test_one_that_is_gone_allows_nothing(tmp_path: Path) -> None:
    status, body, seen = talk(tmp_path, post(b"{}"), "judge")
    assert (status, seen) == (500, [])
    assert b"plugin judge failed with error" in body


def test_a_body_that_cannot_be_shown_is_refused(tmp_path: Path, plugin: Callable[..., Plugin]) -> None:
    judge = plugin()
    status, _, seen = talk(tmp_path, post(b'"' + b"a" * MAX_BODY + b'"'), "judge")
    assert (status, seen, judge.asked) == (400, [], [])


@pytest.mark.parametrize(
    "body",
    [
        b'{"HostConfig": {"Privileged": true, "privileged": false}}',
        b'{"Privileged": true, "Privileged": false}',
        b'{"hostconfig": {}, "HostConfig": {"Privileged": true}}',
        b'{"a": %s, "Privileged": true, "privileged": false}' % (b"1" * 5000),
        b"[" * 100_000,
    ],
)
def test_a_body_of_two_meanings_is_refused(
    tmp_path: Path, plugin: Callable[..., Plugin], body: bytes
) -> None:
    judge = plugin(allow)
    status, _, begun = talk(tmp_path, post(body), "judge")
    assert (status, begun, judge.asked) == (400, [], [])


def test_an_archive_is_judged_by_its_request(tmp_path: Path, plugin: Callable[..., Plugin]) -> None:
    judge = plugin()
    assert talk(tmp_path, post(b"tar" * 1000, "application/x-tar"), "judge")[2] == [b"tar" * 1000]
    assert "RequestBody" not in judge.asked[0][1]


def test_what_is_no_judge_is_refused_at_the_start(tmp_path: Path, plugin: Callable[..., Plugin]) -> None:
    plugin(implements="VolumeDriver")
    places = Places(sockets=str(tmp_path), specs=())
    for name, words in (("judge", "does not implement authz"), ("none", "not found; start it first")):
        with pytest.raises(errors.InvalidArgument, match=words):
            asyncio.run(Authorization([name], places).ready())
