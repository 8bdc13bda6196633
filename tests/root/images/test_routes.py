"""The image routes over a real store: shapes, statuses and words, for old and new clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sampan.api.doors import Caller
from sampan.api.errors import error_response
from sampan.api.request import ClientStream, Request
from sampan.api.responses import Response, Stream
from sampan.api.routes.images import ROUTES
from sampan.api.routing import Router, split_version
from sampan.errors import Failure
from tests import archives
from tests.root.images.stores import Store, opened, read

pytestmark = pytest.mark.root

ONE = archives.layer(one=b"1")
SIMPLE = archives.pack(archives.docker_files([ONE], ["a/b:1"], config={"Cmd": ["x"], "Labels": {"k": "v"}}))
Answered = tuple[int, Any]


class Upload:
    """A body that has arrived."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read_body(self) -> bytes:
        body, self._body = self._body, b""
        return body

    def hijack(self, head: bytes) -> ClientStream:
        raise AssertionError("no image route hijacks")

    @property
    def caller(self) -> Caller:
        return Caller()


async def ask(store: Store, line: str, body: bytes = b"") -> Answered:
    """(status, document) of a request such as ``GET /v1.41/images/json``; a stream's lines as a list."""
    method, _, target = line.partition(" ")
    path, _, query = target.partition("?")
    version, path = split_version(path)
    handler, name = Router(ROUTES).find(method, path)
    request = Request(
        Upload(body),
        number=1,
        method=method,
        path=path,
        raw_query=query,
        headers={},
        version=version,
        name=name,
        body_length=len(body),
    )
    try:
        answer = handler(request, SimpleNamespace(images=store.images))
        if isinstance(answer, Awaitable):
            answer = await answer
    except Failure as failure:
        answer = error_response(failure, 1)
    if isinstance(answer, Stream):
        data = b"".join([read(piece) async for piece in answer.source])
        if answer.content_type == "application/x-tar":
            return answer.status, data
        return answer.status, [json.loads(one) for one in data.splitlines()]
    assert isinstance(answer, Response)
    return answer.status, json.loads(answer.body) if answer.body else None


def play(root: Path, scene: Callable[[Store], Awaitable[None]]) -> None:
    async def act() -> None:
        async with opened(root) as store:
            await scene(store)

    asyncio.run(act())


def test_an_image_from_load_to_removal(tmp_path: Path) -> None:
    async def scene(store: Store) -> None:
        assert await ask(store, "POST /images/load?quiet=1", SIMPLE) == (
            200,
            [{"stream": "Loaded image: a/b:1\n"}],
        )
        _, (listed,) = await ask(store, "GET /images/json")
        assert listed["RepoTags"] == ["a/b:1"]
        assert (listed["Size"], listed["Labels"], listed["Created"]) == (1, {"k": "v"}, 1704067200)
        assert "VirtualSize" not in listed
        _, shown = await ask(store, "GET /images/a/b:1/json")
        assert shown["Id"] == listed["Id"]
        assert (shown["Config"]["Cmd"], shown["Architecture"]) == (["x"], "amd64")
        assert "Hostname" not in shown["Config"]
        assert await ask(store, "POST /images/a/b:1/tag?repo=c&tag=2") == (201, None)
        # Its configuration tells no history, so Docker shows none.
        assert await ask(store, "GET /images/c:2/history") == (200, [])
        status, archive = await ask(store, "GET /images/get?names=c:2&names=a/b:1")
        assert (status, archive[-1024:]) == (200, bytes(1024))
        assert (await ask(store, "GET /images/a/b:1/get"))[0] == 200
        assert await ask(store, "DELETE /images/a/b:1") == (200, [{"Untagged": "a/b:1"}])
        _, gone = await ask(store, "DELETE /images/c:2")
        assert [*gone[0], *gone[1], *gone[2]] == ["Untagged", "Deleted", "Deleted"]

    play(tmp_path / "data", scene)


def test_old_clients_get_the_old_shapes(tmp_path: Path) -> None:
    async def scene(store: Store) -> None:
        await ask(store, "POST /images/load", archives.pack(archives.docker_files([ONE])))
        _, (listed,) = await ask(store, "GET /v1.41/images/json")
        assert listed["RepoTags"] == ["<none>:<none>"]
        assert listed["VirtualSize"] == 1
        _, shown = await ask(store, f"GET /v1.41/images/{listed['Id'][7:19]}/json")
        assert shown["Config"]["Hostname"] == ""
        assert shown["VirtualSize"] == 1

    play(tmp_path / "data", scene)


def test_load_tells_its_progress(tmp_path: Path) -> None:
    async def scene(store: Store) -> None:
        _, (first, last) = await ask(store, "POST /images/load", SIMPLE)
        assert first["status"] == "Loading layer"
        assert first["progressDetail"] == {"current": len(ONE), "total": len(ONE)}
        assert last == {"stream": "Loaded image: a/b:1\n"}

    play(tmp_path / "data", scene)


def test_import_with_changes(tmp_path: Path) -> None:
    async def scene(store: Store) -> None:
        line = (
            "POST /images/create?fromSrc=-&repo=x&tag=1&message=hello&changes=CMD%20y&platform=linux/arm64/v8"
        )
        status, (message,) = await ask(store, line, ONE)
        image = await store.catalog.resolve("x:1")
        assert (status, message) == (200, {"status": image.id})
        document = image.config
        assert (document.architecture, document.variant, document.comment) == ("arm64", "v8", "hello")
        assert document.config.cmd == ("/bin/sh", "-c", "y")

    play(tmp_path / "data", scene)


def test_pull_of_what_can_be_made(tmp_path: Path) -> None:
    async def scene(store: Store) -> None:
        _, messages = await ask(store, "POST /images/create?fromImage=sampan/base&tag=latest")
        assert messages[-1] == {"status": "Status: Image is up to date for sampan/base:latest"}

    play(tmp_path / "data", scene)


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        ("GET /images/nope/json", 404, "No such image: nope:latest"),
        (
            "GET /images/Nope/json",
            400,
            "invalid reference format: repository name (library/Nope) must be lowercase",
        ),
        ("GET /images/nope/history", 404, "No such image: nope:latest"),
        ("GET /images/nope/get", 404, "No such image: nope"),
        ("DELETE /images/nope", 404, "No such image: nope:latest"),
        ("POST /images/nope/tag?repo=a", 404, "No such image: nope:latest"),
        ("POST /images/sampan/base/tag?repo=a", 404, "No such image: sampan/base:latest"),
        ('GET /images/json?filters={"x":["y"]}', 400, "invalid filter 'x'"),
        ("POST /images/create?fromSrc=-&platform=windows", 400, "operating system is not supported"),
        ("POST /images/create?fromSrc=-&changes=RUN%20x", 400, "run is not a valid change command"),
        (
            "POST /images/create?fromSrc=http://x",
            501,
            "importing from a URL is not offered by this engine: http://x",
        ),
        ("POST /images/load", 400, "invalid archive: unexpected end of archive"),
    ],
)
def test_refusals(line: str, status: int, message: str, tmp_path: Path) -> None:
    async def scene(store: Store) -> None:
        assert await ask(store, line) == (status, {"message": message})

    play(tmp_path / "data", scene)
