"""What of a container is followed over time: its log, its streams, its exit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from urllib.parse import quote_plus

from sampan import errors
from sampan.api.params import timestamp
from sampan.api.render.times import rfc3339_fixed
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
from sampan.engine.model import Container, ExitStatus, LogQuery, LogRecord
from sampan.errors import Failure, InvalidArgument
from sampan.sandbox import detach
from sampan.sandbox.messages import AttachOptions
from sampan.wire import stdcopy

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
    framed = not container.config.tty
    details = _details(container) if query.flag("details") else b""
    line = _line_writer(framed=framed, timestamps=query.flag("timestamps"), details=details)
    records = engine.containers.logs(request.name, wanted)
    content_type = MULTIPLEXED_STREAM if framed and request.version >= (1, 42) else RAW_STREAM
    return Stream(Rendered(records, line, _last_words(framed=framed)), content_type)


def _tail(given: str) -> int | None:
    """How many lines; "all", nothing and what is no number mean all of them, as in Docker."""
    return int(given) if given.isascii() and given.isdigit() and len(given) < 19 else None


def _details(container: Container) -> bytes:
    """What ``--details`` puts before each line: the attributes, then a blank that is there without any."""
    pairs = log_attributes(container.host.log_config, container.config)
    return (",".join(f"{quote_plus(key)}={quote_plus(pairs[key])}" for key in sorted(pairs)) + " ").encode()


def _line_writer(*, framed: bool, timestamps: bool, details: bytes) -> Callable[[LogRecord], bytes]:
    """How one record becomes bytes."""

    def write(record: LogRecord) -> bytes:
        data = details + record.data
        if timestamps:
            data = rfc3339_fixed(record.time_ns).encode("ascii") + b" " + data
        return stdcopy.frame(record.stream, data) if framed else data

    return write


def _last_words(*, framed: bool) -> Callable[[Failure], bytes]:
    """The head is out when reading fails: Docker tells it in the stream."""

    def tell(failure: Failure) -> bytes:
        text = f"Error grabbing logs: {failure}\n".encode()
        return stdcopy.frame(stdcopy.STDERR, text) if framed else text

    return tell


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


def attach_websocket(_request: Request, _engine: Engine) -> Answer:
    """GET /containers/{id}/attach/ws"""
    raise errors.NotImplemented("attaching over a websocket is not offered")


ROUTES = (
    Route("POST", "/containers/{id}/wait", wait),
    Route("GET", "/containers/{id}/logs", logs),
    Route("POST", "/containers/{id}/attach", attach),
    Route("GET", "/containers/{id}/attach/ws", attach_websocket),
)
