"""What of a container is followed over time: its log, its streams, its exit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from urllib.parse import quote_plus

from sampan.api.params import timestamp
from sampan.api.request import Request
from sampan.api.responses import (
    HIJACKED,
    JSON,
    MULTIPLEXED_STREAM,
    RAW_STREAM,
    Answer,
    Rendered,
    Stream,
    json_line,
)
from sampan.api.routing import Route
from sampan.engine.facade import Engine
from sampan.engine.logfiles import log_attributes
from sampan.engine.model import Container, ExitStatus, LogQuery
from sampan.errors import Failure, InvalidArgument
from sampan.sandbox import detach
from sampan.sandbox.messages import AttachOptions
from sampan.wire import stdcopy
from sampan.wire.logblocks import Entry, Text

CONDITIONS = frozenset(("not-running", "next-exit", "removed"))


def wait(request: Request, engine: Engine) -> Answer:
    """POST /containers/{id}/wait?condition=

    The head is sent when the wait is registered: `docker run` starts the container on seeing it.
    """
    condition = request.query.text("condition") or "not-running"
    if condition not in CONDITIONS:
        raise InvalidArgument(f'invalid condition: "{condition}"')
    return Stream(_exit(engine.containers.wait(request.name, condition)), JSON)


async def _exit(ended: asyncio.Future[ExitStatus]) -> AsyncIterator[bytes]:
    status = await ended
    document: dict[str, object] = {"StatusCode": status.code}
    if status.error:
        document["Error"] = {"Message": status.error}
    yield json_line(document)


def logs(request: Request, engine: Engine) -> Answer:
    """GET /containers/{id}/logs"""
    query = request.query
    stdout, stderr = query.flag("stdout"), query.flag("stderr")
    if not (stdout or stderr):
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    wanted = LogQuery(
        follow=query.flag("follow"),
        stdout=stdout,
        stderr=stderr,
        since=timestamp(query.text("since")),
        until=timestamp(query.text("until")),
        tail=_tail(query.text("tail")),
    )
    container = engine.containers.get(request.name)
    form = _Form(framed=not container.config.tty, merged=request.header("user-agent").startswith(_COPIERS))
    details = _details(container) if query.flag("details") else b""
    found = engine.containers.logs(request.name, wanted)
    content_type = MULTIPLEXED_STREAM if form.framed and request.version >= (1, 42) else RAW_STREAM
    if query.flag("timestamps") or details or wanted.since or wanted.until:
        lines = form.lines(timestamps=query.flag("timestamps"), details=details)
        return Stream(Rendered(aiter(found), lines, form.last_words), content_type)
    return Stream(Rendered(found.texts(), form.texts, form.last_words), content_type)


def _tail(given: str) -> int | None:
    """How many lines; "all", nothing and what is no number mean all of them, as in Docker."""
    return int(given) if given.isascii() and given.isdigit() and len(given) < 19 else None


def _details(container: Container) -> bytes:
    """What ``--details`` puts before each line: the attributes, then a blank that is there without any."""
    pairs = log_attributes(container)
    return (",".join(f"{quote_plus(key)}={quote_plus(pairs[key])}" for key in sorted(pairs)) + " ").encode()


_COPIERS = ("Docker-Client/", "Sampan-Client")
"""Clients that copy frames and do not look at them. Others, docker-py among them, take a frame for a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """How a log is sent. ``framed``: as frames; ``merged``: one frame may hold many records."""

    framed: bool
    merged: bool

    def texts(self, texts: list[Text]) -> bytes:
        """Output without times."""
        if self.merged or not self.framed:
            return self._joined(texts)
        return b"".join([frame for stream, text in texts for frame in _line_frames(stream, text)])

    def lines(self, *, timestamps: bool, details: bytes) -> Callable[[list[Entry]], bytes]:
        """How records become bytes when something stands before each of them."""

        def write(entries: list[Entry]) -> bytes:
            if timestamps:
                return self._joined(
                    [(stream, b"%b %b%b" % (time, details, data)) for stream, time, data in entries]
                )
            return self._joined([(stream, details + data) for stream, _, data in entries])

        return write

    def _joined(self, texts: list[Text]) -> bytes:
        if not self.framed:
            return b"".join([text for _, text in texts])
        if self.merged:
            runs = groupby(texts, itemgetter(0))
            texts = [(stream, b"".join([text for _, text in run])) for stream, run in runs]
        return b"".join([stdcopy.frame(stream, text) for stream, text in texts])

    def last_words(self, failure: Failure) -> bytes:
        """The head is out when reading fails: Docker tells it in the stream."""
        text = f"Error grabbing logs: {failure}\n".encode()
        return stdcopy.frame(stdcopy.STDERR, text) if self.framed else text


def _line_frames(stream: int, text: bytes) -> list[bytes]:
    *lines, rest = text.split(b"\n")
    frames = [stdcopy.frame(stream, line + b"\n") for line in lines]
    return [*frames, stdcopy.frame(stream, rest)] if rest else frames


async def attach(request: Request, engine: Engine) -> Answer:
    """POST /containers/{id}/attach"""
    query = request.query
    framed = not engine.containers.get(request.name).config.tty
    if keys := query.text("detachKeys"):
        detach.parse(keys)
    options = AttachOptions(
        stdin=query.flag("stdin"),
        stdout=query.flag("stdout"),
        stderr=query.flag("stderr"),
        stream=query.flag("stream"),
        logs=query.flag("logs"),
        detach_keys=keys or None,
        multiplex=framed,
    )
    await engine.containers.attach(request.name, options, request.hijacker(multiplexed=framed))
    return HIJACKED


async def attach_websocket(request: Request, engine: Engine) -> Answer:
    """GET /containers/{id}/attach/ws

    Output is not framed by streams. Before 1.42 all three were attached, whatever was asked for.
    """
    query = request.query
    container = engine.containers.get(request.name)
    everything = request.version < (1, 42)
    if keys := query.text("detachKeys"):
        detach.parse(keys)
    options = AttachOptions(
        stdin=everything or query.flag("stdin"),
        stdout=everything or query.flag("stdout"),
        stderr=everything or query.flag("stderr"),
        stream=query.flag("stream"),
        logs=query.flag("logs"),
        detach_keys=keys or None,
        multiplex=False,
        websocket=True,
    )
    await engine.containers.attach(container.id, options, request.websocket_hijacker())
    return HIJACKED


ROUTES = (
    Route("POST", "/containers/{id}/wait", wait),
    Route("GET", "/containers/{id}/logs", logs),
    Route("POST", "/containers/{id}/attach", attach),
    Route("GET", "/containers/{id}/attach/ws", attach_websocket),
)
