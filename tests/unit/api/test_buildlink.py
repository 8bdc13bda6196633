"""A build's session with both ends real, on one socket; and each end with a peer that means harm."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sampan.api.buildlink import PIPE, Gone, Link
from sampan.cli.buildcontext import watched
from sampan.cli.buildsession import Answers, Conversation
from sampan.engine.buildsession import Hello
from sampan.engine.heldfiles import HeldFiles, Receiver
from sampan.errors import Failure, InvalidArgument
from sampan.wire import sessions
from sampan.wire.sessions import ASK, DATA, END, FAIL, HELLO, NOTE, Splitter, frame


class Kept:
    """A result that is taken."""

    def __init__(self) -> None:
        self.data = b""

    def take(self, pieces: Iterator[bytes]) -> None:
        self.data = b"".join(pieces)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "context"
    (place / "sub").mkdir(parents=True)
    (place / "a").write_text("first")
    (place / "sub/b").write_bytes(b"x" * 700_000)
    return place


def answers(folder: Path, **more: Any) -> Answers:
    return Answers(contexts={"": watched(str(folder), [])}, **more)


@contextmanager
def client(given: Answers, hello: dict[str, Any] | None = None) -> Iterator[tuple[socket.socket, list[Any]]]:
    """A client at work in a thread: the engine's end, and what it is told."""
    ours, theirs = socket.socketpair()
    told: list[Any] = []

    def talk() -> None:
        conversation = Conversation(theirs.detach(), b"", hello or {}, given)
        try:
            told.extend(conversation.messages())
        except Failure as error:
            told.append(str(error))
        finally:
            conversation.close()

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield ours, told
    finally:
        ours.close()
        thread.join(20)
        assert not thread.is_alive()


def conversing(given: Answers, scene: Callable[[Link], Awaitable[None]], **hello: Any) -> list[Any]:
    """Have the engine's end do ``scene``; what the client was told."""
    with client(given, hello) as (sock, told):

        async def talk() -> None:
            link = await Link.over(sock.dup(), b"")
            try:
                await link.greeted()
                await scene(link)
                link.finish()
            finally:
                await link.close()

        asyncio.run(talk())
        sock.shutdown(socket.SHUT_RDWR)
    return told


def test_greeting_and_progress(folder: Path) -> None:
    async def scene(link: Link) -> None:
        assert link.hello == Hello(dockerfile="FROM x", explain=True, contexts={"lib": "local"})
        for number in range(100):
            await link.tell({"stream": str(number)})

    told = conversing(
        answers(folder), scene, dockerfile="FROM x", explain=True, contexts={"lib": "local"}, unknown=1
    )
    assert told == [{"stream": str(number)} for number in range(100)]


def test_files_are_listed_digested_and_fetched(folder: Path, tmp_path: Path) -> None:
    held = HeldFiles(str(tmp_path / "held"), "boot")
    held.prepare()

    async def scene(link: Link) -> None:
        entries = await link.entries("", ["."])
        files = [entry for entry in entries if entry.kind == "f"]
        assert sorted(entry.path for entry in entries) == ["a", "sub", "sub/b"]
        numbers = [entry.number for entry in files]
        expected = [hashlib.sha256((folder / entry.path).read_bytes()).hexdigest() for entry in files]
        receiver = Receiver(held, files)
        async for pieces in link.fetch("", numbers):
            receiver.feed(pieces)
        receiver.finish()
        assert [receiver.found[number] for number in numbers] == [(digest, True) for digest in expected]
        os.unlink(folder / "a")
        gone = {"a": ""}
        assert await link.digests("", numbers) == [
            gone.get(entry.path, digest) for entry, digest in zip(files, expected, strict=True)
        ]

    conversing(answers(folder), scene)


def test_secrets_and_results(folder: Path) -> None:
    results = [Kept(), Kept()]

    async def scene(link: Link) -> None:
        assert await link.secret("x") == b"hidden"
        assert await link.secret("empty") == b""
        assert await link.secret("y") is None
        for number, data in ((1, b"second"), (0, b"z" * 3_000_000)):
            pipe = await link.output(number)
            await pipe.write(data)
            pipe.end()
            assert await pipe.read() == b""
            pipe.close()

    given = answers(folder, secrets={"x": lambda: b"hidden", "empty": lambda: b""}, outputs=list(results))
    conversing(given, scene)
    assert [one.data for one in results] == [b"z" * 3_000_000, b"second"]


def test_an_agent_is_reached_through_the_client(folder: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "agent")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            while data := sock.recv(100):
                sock.sendall(data.upper())

    thread = threading.Thread(target=serve)
    thread.start()

    async def scene(link: Link) -> None:
        assert await link.agent("other") is None
        pipe = await link.agent("default")
        assert pipe is not None
        for text in (b"one", b"two"):
            await pipe.write(text)
            assert await pipe.read() == text.upper()
        pipe.end()
        pipe.close()

    conversing(answers(folder, agents={"default": path}), scene)
    thread.join(10)
    listener.close()


def test_an_engine_that_goes_has_not_built(folder: Path) -> None:
    with client(answers(folder)) as (sock, told):
        sock.sendall(frame(NOTE, 0, b'{"stream":"x"}'))
        sock.shutdown(socket.SHUT_RDWR)
    assert told == [{"stream": "x"}, "unexpected EOF"]


# ---------------------------------------------------------------------- an engine that means harm


def asked(given: Answers, question: Any) -> tuple[int, bytes]:
    """How a client answers a question: the kind of its first frame on the channel, and its payload."""
    with client(given) as (sock, _):
        sock.sendall(
            frame(ASK, 9, question if isinstance(question, bytes) else json.dumps(question).encode())
        )
        splitter = Splitter()
        while data := sock.recv(1 << 16):
            for kind, channel, payload in splitter.feed(data):
                if channel == 9:
                    return kind, payload
    return 0, b""


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({"service": "fetch", "context": "", "numbers": [0]}, "not in the context"),
        ({"service": "fetch", "context": "", "numbers": ["/etc/shadow"]}, "not in the context"),
        ({"service": "digests", "context": "", "numbers": [-1]}, "not in the context"),
        ({"service": "list", "context": "/etc", "paths": ["."]}, "not named"),
        ({"service": "fetch", "context": "../x", "numbers": [0]}, "not named"),
        ({"service": "secret", "id": "/etc/shadow"}, "not found"),
        ({"service": "secret"}, "not found"),
        ({"service": "agent", "id": "/run/other.sock"}, "not found"),
        ({"service": "output", "number": 0}, "not asked for"),
        ({"service": "output", "number": "../x"}, "not asked for"),
        ({"service": "shell"}, "no terminal"),
        ({"service": "archive"}, "no archive"),
        ({"service": "run", "command": "sh"}, "no such service"),
        ({}, "no such service"),
    ],
)
def test_a_client_gives_only_what_was_named(folder: Path, question: Any, words: str) -> None:
    given = answers(folder, secrets={"x": lambda: b"hidden"}, agents={"default": "/nowhere"})
    kind, payload = asked(given, question)
    assert kind == FAIL
    assert words in payload.decode()


@pytest.mark.parametrize(
    "path", ["../outside", "/etc/shadow", "../../etc/shadow", "sub/../../outside", "out/x"]
)
def test_a_client_shows_nothing_outside_its_folder(folder: Path, tmp_path: Path, path: str) -> None:
    (tmp_path / "outside").write_text("secret")
    (folder / "out").symlink_to("/etc")
    kind, payload = asked(answers(folder), {"service": "list", "context": "", "paths": [path]})
    shown = payload.decode().split("\0")[7 :: sessions.FIELDS] if kind == DATA else []
    assert set(shown) <= {"out"}


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 100,
        frame(ASK, 1, b"[]"),
        frame(ASK, 1, b"{"),
        frame(NOTE, 0, b"\xff"),
        frame(ASK, 1, b'{"service":"list","context":""}'),
        frame(ASK, 1, b'{"service":"fetch","context":"","numbers":7}'),
    ],
)
def test_an_engine_that_talks_nonsense_is_left(folder: Path, data: bytes) -> None:
    with client(answers(folder)) as (sock, told):
        sock.sendall(data)
        while sock.recv(1 << 16):
            pass
    assert told == ["the engine does not speak as a build's session does"]


# ---------------------------------------------------------------------- a client that means harm


def engine(scene: Callable[[Link, socket.socket], Awaitable[None]]) -> None:
    """The engine's end, with a client that says what the scene has it say."""
    ours, theirs = socket.socketpair()

    async def talk() -> None:
        link = await Link.over(ours, b"")
        try:
            await scene(link, theirs)
        finally:
            theirs.close()
            await link.close()

    asyncio.run(talk())


@pytest.mark.parametrize(
    "data", [frame(HELLO, 0, b"[]"), frame(HELLO, 0, b'{"outputs":3}'), frame(HELLO, 0, b"\xff")]
)
def test_a_greeting_that_makes_no_sense(data: bytes) -> None:
    async def scene(link: Link, sock: socket.socket) -> None:
        sock.sendall(data)
        with pytest.raises(InvalidArgument, match="malformed greeting"):
            await link.greeted()

    engine(scene)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b""])
def test_no_greeting_at_all(data: bytes) -> None:
    async def scene(link: Link, sock: socket.socket) -> None:
        sock.sendall(data)
        sock.close()
        with pytest.raises(Gone):
            await link.greeted()

    engine(scene)


def test_who_goes_while_asked_fails_every_question() -> None:
    async def scene(link: Link, sock: socket.socket) -> None:
        waiting = [
            asyncio.ensure_future(link.secret("x")),
            asyncio.ensure_future(link.entries("", ["."])),
            asyncio.ensure_future(link.agent("default")),
            asyncio.ensure_future(link.shell()),
        ]
        await asyncio.sleep(0)
        sock.close()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(one) for one in outcomes] == [Gone] * 4
        with pytest.raises(Gone):
            await link.secret("later")
        assert link.lost.is_set()

    engine(scene)


@pytest.mark.parametrize(
    ("reply", "ask"),
    [
        (frame(DATA, 1, b"x" * 600_000) + frame(END, 1), lambda link: link.secret("x")),
        (frame(DATA, 1, b"x") + frame(END, 1), lambda link: link.digests("", [1])),
        (frame(DATA, 1, bytes(64)) + frame(END, 1), lambda link: link.digests("", [1])),
        (frame(DATA, 1, b"no\0list\0") + frame(END, 1), lambda link: link.entries("", ["."])),
    ],
)
def test_an_answer_that_is_none_is_refused(reply: bytes, ask: Callable[[Link], Awaitable[object]]) -> None:
    async def scene(link: Link, sock: socket.socket) -> None:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(sock, reply[:0])
        waiting = asyncio.ensure_future(ask(link))
        await asyncio.sleep(0)
        await asyncio.get_running_loop().sock_sendall(sock, reply)
        with pytest.raises(InvalidArgument):
            await waiting

    engine(scene)


def test_a_pipe_that_nobody_reads_is_cut_and_others_go_on() -> None:
    async def scene(link: Link, sock: socket.socket) -> None:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        opening = asyncio.ensure_future(link.agent("default"))
        await asyncio.sleep(0)
        await loop.sock_sendall(sock, frame(NOTE, 1, b"true"))
        pipe = await opening
        assert pipe is not None
        asking = asyncio.ensure_future(link.secret("x"))
        for _ in range(PIPE // 100_000 + 2):
            await loop.sock_sendall(sock, frame(DATA, 1, bytes(100_000)))
        await loop.sock_sendall(sock, frame(DATA, 2, b"hidden") + frame(END, 2))
        assert await asking == b"hidden"
        with pytest.raises(Failure, match="does not keep up"):
            await pipe.read()

    engine(scene)


def test_frames_on_channels_that_nobody_opened_are_dropped() -> None:
    async def scene(link: Link, sock: socket.socket) -> None:
        sock.sendall(frame(DATA, 77, b"x") + frame(END, 77) + frame(HELLO, 5, b"") + frame(HELLO, 0, b"{}"))
        await link.greeted()
        assert link.hello == Hello()

    engine(scene)
