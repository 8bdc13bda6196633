"""HTTP on a real socket: framing, order, bounds, and clients that behave badly."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.fakes.api import Serve

from sampan import errors
from sampan.api.errors import BodyAborted
from sampan.api.request import Request
from sampan.api.responses import TEXT, Answer, Stream, json_response, text
from sampan.api.routing import Route
from sampan.api.service import LINGERING
from sampan.images.model import Span


def echo_path(request: Request, _engine: object) -> Answer:
    return json_response({"name": request.name, "query": request.raw_query})


async def echo_body(request: Request, _engine: object) -> Answer:
    return text(await request.read(10_000_000))


async def count_body(request: Request, _engine: object) -> Answer:
    total = 0
    async for piece in request.body():
        total += len(piece)
    return json_response(total)


def refuse(_request: Request, _engine: object) -> Answer:
    raise errors.Conflict("not\nnow")


async def break_down(_request: Request, _engine: object) -> Answer:
    raise KeyError("secret")


def lines(request: Request, _engine: object) -> Answer:
    async def source() -> AsyncIterator[bytes]:
        for number in range(request.query.required_integer("n")):
            yield b"%d\n" % number

    return Stream(source(), TEXT)


BASIC = (
    Route("GET", "/things/{name}/json", echo_path),
    Route("POST", "/echo", echo_body),
    Route("POST", "/count", count_body),
    Route("GET", "/refuse", refuse),
    Route("GET", "/break", break_down),
    Route("GET", "/lines", lines),
    Route("HEAD", "/lines", lines),
)


def test_keeps_the_connection_and_answers_in_order(serve: Serve) -> None:
    with serve(routes=BASIC).client() as client:
        for name in ("one", "two"):
            client.request(f"GET /things/{name}/json")
            assert client.document() == (200, {"name": name, "query": ""})


def test_pipelined_requests_of_every_kind_are_answered_in_order(serve: Serve) -> None:
    get = b"GET /things/%d/json HTTP/1.1\r\nHost: d\r\n\r\n"
    post = b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 3\r\n\r\nabc"
    chunks = (
        b"POST /echo HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"1;x=y\r\nd\r\n2\r\nef\r\n0\r\nA: b\r\n\r\n"
    )
    with serve(routes=BASIC).client() as client:
        client.send(
            b"".join([get % 1, post, chunks, b"\r\n", get % 2]) + b"".join(get % n for n in range(200))
        )
        assert client.document()[1]["name"] == "1"
        assert client.answer()[1] == b"abc"
        assert client.answer()[1] == b"def"
        assert client.document()[1]["name"] == "2"
        assert [client.document()[1]["name"] for _ in range(200)] == [str(n) for n in range(200)]


def test_a_request_split_at_every_byte_is_one_request(serve: Serve) -> None:
    data = b"POST /echo HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    with serve(routes=BASIC).client() as client:
        for value in data:
            client.send(bytes((value,)))
        assert client.answer()[1] == b"abc"


def test_headers_are_dockers(serve: Serve) -> None:
    with serve().client() as client:
        client.request("GET /_ping")
        head, body = client.answer()
        assert body == b"OK"
        assert head.fields["api-version"] == "1.56"
        assert head.fields["server"].startswith("Sampan/")
        assert head.fields["server"].endswith(" (linux)")
        assert head.fields["ostype"] == "linux"
        assert head.fields["docker-experimental"] == "false"
        assert head.fields["builder-version"] == "1"
        assert head.fields["swarm"] == "inactive"
        assert head.fields["cache-control"] == "no-cache, no-store, must-revalidate"
        assert head.fields["date"].endswith(" GMT")
        client.request("HEAD /_ping")
        head = client.head()
        assert (head.status, head.content_length) == (200, 0)
        client.request("GET /_ping")
        assert client.answer()[1] == b"OK"


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        ("GET /nope", 404, "page not found"),
        ("PUT /_ping", 404, "page not found"),
        ("GET /v1.41/nope", 404, "page not found"),
        ("GET /vx/info", 404, "page not found"),
        (
            "GET /v1.12/_ping",
            400,
            "client version 1.12 is too old. Minimum supported API version is 1.24, "
            "please upgrade your client to a newer version",
        ),
        ("GET /v1.99/_ping", 400, "client version 1.99 is too new. Maximum supported API version is 1.56"),
        (
            "GET /services",
            503,
            'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect '
            "this node to swarm and try again.",
        ),
    ],
)
def test_what_is_not_there_says_so_as_docker_does(serve: Serve, line: str, status: int, message: str) -> None:
    assert serve().get(line) == (status, {"message": message})


def test_names_may_contain_slashes_and_escapes(serve: Serve) -> None:
    served = serve(routes=BASIC)
    assert served.get("GET /v1.24/things/a/b%2fc:d/json?x=1")[1] == {"name": "a/b/c:d", "query": "x=1"}
    assert served.get("GET http://docker/things/a/json")[1]["name"] == "a"


def test_a_failure_is_one_line_with_its_status(serve: Serve) -> None:
    assert serve(routes=BASIC).get("GET /refuse") == (409, {"message": "not now"})


def test_an_unexpected_error_is_logged_under_the_number_that_the_client_is_told(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    status, document = serve(routes=BASIC).get("GET /break")
    assert status == 500
    assert "secret" not in document["message"]
    assert "request 1 " in document["message"]
    assert "secret" in caplog.text


def test_expect_continue(serve: Serve) -> None:
    with serve(routes=BASIC).client() as client:
        client.send(b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert client.head().status == 100
        client.send(b"hi")
        assert client.answer()[1] == b"hi"


def test_a_refused_expectation_closes_instead_of_guessing_whether_the_body_comes(serve: Serve) -> None:
    with serve(routes=BASIC).client() as client:
        client.send(b"POST /nope HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        head, _ = client.answer()
        assert (head.status, head.fields["connection"]) == (404, "close")
        assert client.rest() == b""


def test_a_large_body_passes_in_pieces(serve: Serve) -> None:
    with serve(routes=BASIC).client() as client:
        size = 8 * 1024 * 1024
        client.request("POST /count", bytes(size))
        assert client.document() == (200, size)


def test_a_body_that_nobody_reads_is_held_back_not_stored(serve: Serve) -> None:
    begun, go = threading.Event(), asyncio.Event()

    async def later(request: Request, _engine: object) -> Answer:
        begun.set()
        await go.wait()
        return text(b"%d" % len(await request.read(100_000_000)))

    served = serve(routes=(Route("POST", "/later", later),))
    with served.client() as client:
        size = 64 * 1024 * 1024
        client.send(b"POST /later HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n\r\n" % size)
        assert begun.wait(10)
        client.sock.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < size:
                sent += client.sock.send(bytes(65536))
        assert sent < 4 * 1024 * 1024  # the kernel's buffers and ours, not the body
        client.sock.settimeout(10)
        served.call(go.set)
        client.send(bytes(size - sent))
        assert client.answer()[1] == b"%d" % size


def test_an_unread_small_body_does_not_cost_the_connection(serve: Serve) -> None:
    with serve(routes=BASIC).client() as client:
        client.send(b"POST /nope HTTP/1.1\r\nHost: d\r\nContent-Length: 10\r\n\r\n12345")
        assert client.answer()[0].status == 404
        client.send(b"67890GET /refuse HTTP/1.1\r\nHost: d\r\n\r\n")
        assert client.answer()[0].status == 409


def test_an_unread_large_body_is_answered_then_closed(serve: Serve) -> None:
    with serve(routes=BASIC).client() as client:
        client.send(b"POST /nope HTTP/1.1\r\nHost: d\r\nContent-Length: 999999999\r\n\r\n" + bytes(100_000))
        head, _ = client.answer()
        assert (head.status, head.fields["connection"]) == (404, "close")


@pytest.mark.parametrize(
    "data",
    [
        b"BOGUS\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST /echo HTTP/1.1\r\nContent-Length: -3\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused_and_closed(serve: Serve, data: bytes) -> None:
    with serve(routes=BASIC).client() as client:
        client.send(data)
        head, _ = client.answer()
        assert (head.status, head.fields["connection"]) == (400, "close")
        assert client.rest() == b""


def test_a_head_has_a_largest_size(serve: Serve) -> None:
    with serve(routes=BASIC).client() as client:
        client.send(b"GET /refuse HTTP/1.1\r\nX: " + b"y" * 300_000)
        assert client.answer()[0].status == 431


def test_garbage_in_place_of_a_chunk_cuts_the_connection(serve: Serve) -> None:
    with serve(routes=BASIC).client() as client:
        client.send(b"POST /echo HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n")
        assert client.rest() == b""


def test_a_client_that_leaves_within_its_body_ends_the_handler(serve: Serve) -> None:
    seen: list[BaseException] = []
    done = threading.Event()

    async def upload(request: Request, _engine: object) -> Answer:
        try:
            return text(await request.read())
        except BodyAborted as error:
            seen.append(error)
            raise
        finally:
            done.set()

    with serve(routes=(Route("POST", "/upload", upload),)).client() as client:
        client.send(b"POST /upload HTTP/1.1\r\nHost: d\r\nContent-Length: 10\r\n\r\n12345")
    assert done.wait(10)
    assert len(seen) == 1


def test_half_closed_clients_get_their_answer(serve: Serve) -> None:
    with serve(routes=BASIC).client() as client:
        client.request("GET /lines?n=3")
        client.sock.shutdown(socket.SHUT_WR)
        assert client.answer()[1] == b"0\n1\n2\n"
        assert client.rest() == b""


def test_http_1_0_is_answered_without_chunks_and_closed(serve: Serve) -> None:
    with serve(routes=BASIC).client() as client:
        client.send(b"GET /lines?n=2 HTTP/1.0\r\n\r\n")
        head = client.head()
        assert not head.chunked
        assert client.rest() == b"0\n1\n"


def test_a_stream_sends_its_head_before_its_first_item(serve: Serve) -> None:
    go = asyncio.Event()

    def wait(_request: Request, _engine: object) -> Answer:
        async def source() -> AsyncIterator[bytes]:
            await go.wait()
            yield b"done"

        return Stream(source(), TEXT)

    served = serve(routes=(Route("POST", "/wait", wait),))
    with served.client() as client:
        client.request("POST /wait")
        head = client.head()
        assert head.status == 200
        served.call(go.set)
        assert client.body(head) == b"done"
        client.request("POST /wait")
        assert client.answer()[1] == b"done"


def test_a_stream_may_read_its_requests_body_as_it_answers(serve: Serve) -> None:
    def load(request: Request, _engine: object) -> Answer:
        async def source() -> AsyncIterator[bytes]:
            async for piece in request.body():
                yield piece.upper()

        return Stream(source(), TEXT)

    with serve(routes=(Route("POST", "/load", load), *BASIC)).client() as client:
        client.send(b"POST /load HTTP/1.1\r\nHost: d\r\nContent-Length: 6\r\n\r\nabc")
        head = client.head()
        assert client.take(8) == b"3\r\nABC\r\n"
        client.send(b"def")
        assert client.body(head) == b"DEF"
        client.request("GET /refuse")
        assert client.document()[0] == 409


def _spans(path: Path, sizes: list[int]) -> Route:
    """A route whose stream is spans of the file, with a line of text after each."""

    def give(_request: Request, _engine: object) -> Answer:
        async def source() -> AsyncIterator[bytes | Span]:
            for size in sizes:
                with path.open("rb") as file:
                    yield Span(fd=file.fileno(), size=size)
                yield b"|"

        return Stream(source(), TEXT)

    return Route("GET", "/spans", give)


def test_spans_of_files_are_sent_among_bytes(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(3 << 20))
    data = path.read_bytes()
    with serve(routes=(_spans(path, [5, len(data)]), *BASIC)).client() as client:
        for _ in range(2):
            client.request("GET /spans")
            assert client.answer()[1] == data[:5] + b"|" + data + b"|"
        client.request("GET /refuse")
        assert client.document()[0] == 409


def test_a_file_that_is_too_short_cuts_the_stream(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    with serve(routes=(_spans(path, [6]),)).client() as client:
        client.request("GET /spans")
        assert client.head().chunked
        assert b"0\r\n\r\n" not in client.rest()


def test_a_client_that_leaves_ends_the_sending_of_a_file(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(8 << 20))
    served = serve(routes=(_spans(path, [8 << 20]), *BASIC))
    with served.client() as client:
        client.request("GET /spans")
        client.take(100_000)
    with served.client() as client:
        client.request("GET /refuse")
        assert client.document()[0] == 409


def test_a_stream_that_fails_is_cut_so_that_nobody_takes_it_for_complete(serve: Serve) -> None:
    def broken(_request: Request, _engine: object) -> Answer:
        async def source() -> AsyncIterator[bytes]:
            yield b"some"
            await asyncio.sleep(0)
            raise OSError("disk")

        return Stream(source(), TEXT)

    with serve(routes=(Route("GET", "/broken", broken),)).client() as client:
        client.request("GET /broken")
        assert client.head().chunked
        assert b"0\r\n\r\n" not in client.rest()


@pytest.mark.parametrize("half_close_first", [False, True])
def test_a_streams_source_is_closed_when_its_client_leaves(serve: Serve, half_close_first: bool) -> None:
    closed = threading.Event()

    def follow(_request: Request, _engine: object) -> Answer:
        async def source() -> AsyncIterator[bytes]:
            try:
                yield b"first"
                await asyncio.Event().wait()
            finally:
                closed.set()

        return Stream(source(), TEXT)

    served = serve(routes=(Route("GET", "/follow", follow), *BASIC))
    with served.client() as client:
        client.request("GET /follow")
        assert client.head().status == 200
        assert client.take(8) == b"5\r\nfirst"
        if half_close_first:
            client.sock.shutdown(socket.SHUT_WR)
            assert served.get("GET /refuse")[0] == 409  # the server has seen that
            assert not closed.is_set()
    assert closed.wait(10)


def test_a_slow_reader_holds_the_source_back(serve: Serve) -> None:
    produced: list[int] = []

    def flood(_request: Request, _engine: object) -> Answer:
        async def source() -> AsyncIterator[bytes]:
            for _ in range(1000):
                produced.append(1)
                yield bytes(65536)

        return Stream(source(), TEXT)

    served = serve(routes=(Route("GET", "/flood", flood), *BASIC))
    with served.client() as client:
        client.request("GET /flood")
        head = client.head()
        assert served.get("GET /refuse")[0] == 409  # the server has had its turns meanwhile
        assert len(produced) < 100
        assert len(client.body(head)) == 1000 * 65536


def test_a_handler_runs_to_its_end_though_its_client_has_left(serve: Serve) -> None:
    begun, finished, go = threading.Event(), threading.Event(), asyncio.Event()

    async def stop(_request: Request, _engine: object) -> Answer:
        begun.set()
        await go.wait()
        finished.set()
        return text(b"")

    served = serve(routes=(Route("POST", "/stop", stop), *BASIC))
    with served.client() as client:
        client.request("POST /stop")
        assert begun.wait(10)
    assert served.get("GET /refuse")[0] == 409
    served.call(go.set)
    assert finished.wait(10)


def test_want_of_descriptors_is_complained_of_once_and_passes(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncio.constants.ACCEPT_RETRY_DELAY", 0.01)
    served = serve(None, BASIC)
    complaint = threading.Event()

    def heard(_record: object) -> bool:
        complaint.set()
        return True

    caplog.handler.addFilter(heard)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket(socket.AF_UNIX) as client, open(os.devnull) as next_free:
        resource.setrlimit(resource.RLIMIT_NOFILE, (next_free.fileno() + 1, hard))
        try:
            client.connect(served.path)
            assert complaint.wait(10)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        client.sendall(b"GET /things/a/json HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    said = [record.getMessage() for record in caplog.records]
    assert said == ["connections have to wait: [Errno 24] Too many open files"]


def test_a_door_holds_no_more_than_its_share_of_the_descriptors(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = 100
    monkeypatch.setattr("sampan.api.server.descriptors_share", lambda: share)
    served = serve(None, BASIC)
    with contextlib.ExitStack() as held:
        idle = [held.enter_context(served.client()) for _ in range(share)]
        refused = [held.enter_context(served.client()) for _ in range(LINGERING)]
        said = "there are 100 connections to this socket: close some of them"
        assert [client.document() for client in refused] == [(503, {"message": said})] * LINGERING
        with served.client() as cut:
            assert cut.rest() == b""
        idle.pop().sock.close()
        for client in refused:
            client.sock.close()
        answers = set[int]()
        while 200 not in answers:
            with served.client() as client:
                client.request("GET /things/a/json")
                answers.add(client.head().status)
        idle[0].request("GET /things/a/json")
        assert idle[0].head().status == 200
    assert answers <= {200, 503}
