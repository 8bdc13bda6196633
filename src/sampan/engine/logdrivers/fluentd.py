"""The fluentd driver: the forward protocol (version 1) over TCP or a Unix socket.

Records go in "forward mode", many in one message: ``[tag, [[time, record], …], {"chunk": …}]``. When it is
asked for (``fluentd-request-ack``) the answer ``{"ack": …}`` is awaited: then nothing that was sent is lost.
https://github.com/fluent/fluentd/wiki/Forward-Protocol-Specification-v1
"""

from __future__ import annotations

import base64
import os
from struct import Struct
from typing import Any
from urllib.parse import urlsplit

import msgspec

from sampan.engine.logdrivers import dial, options
from sampan.engine.logdrivers.options import Options
from sampan.engine.logdrivers.subject import Subject, tag
from sampan.errors import InvalidArgument
from sampan.wire.jsonlog import parse_time
from sampan.wire.logblocks import Entry

_OWN = "address async async-connect async-reconnect-interval buffer-limit max-retries request-ack retry-wait"
KNOWN = options.COMMON | {f"fluentd-{name}" for name in f"{_OWN} sub-second-precision write-timeout".split()}

_HOST, _PORT = "127.0.0.1", "24224"
_SOURCES = {1: "stdout", 2: "stderr"}
_EVENT_TIME = Struct(">II")
_INTERVALS = (0.1, 10.0)  # seconds: what async-reconnect-interval may be


def check(given: Options) -> None:
    options.known(given, KNOWN, "fluentd")
    _address(given)
    if text := given.get("fluentd-buffer-limit", ""):
        options.size(text)
    options.seconds(given, "fluentd-retry-wait", 0)
    options.seconds(given, "fluentd-write-timeout", 0)
    options.unsigned(given, "fluentd-max-retries", 0)
    if "fluentd-async" in given and "fluentd-async-connect" in given:
        raise InvalidArgument(
            "conflicting options: cannot specify both 'fluentd-async' and 'fluentd-async-connect'"
        )
    for name in ("async", "async-connect", "request-ack", "sub-second-precision"):
        options.boolean(given, f"fluentd-{name}")
    interval = options.seconds(given, "fluentd-async-reconnect-interval", 0)
    if interval and not _INTERVALS[0] <= interval <= _INTERVALS[1]:
        raise InvalidArgument(
            f"invalid fluentd-async-reconnect-interval: value should be between {_INTERVALS[0] * 1000:.0f}ms"
            f" and {_INTERVALS[1]:.0f}s"
        )


def _address(given: Options) -> tuple[str, str]:
    """(host, port), or ("", path) for a Unix socket."""
    text = given.get("fluentd-address", "")
    if not text:
        return _HOST, _PORT
    if text.startswith("unix://"):
        path = urlsplit(text).path
        if not path:
            raise InvalidArgument(f"invalid fluentd-address {text}: path is empty")
        return "", path
    rest = text.removeprefix("tcp://")
    if rest.count(":") > 1 and not rest.startswith("["):
        raise InvalidArgument(f"invalid fluentd-address {text}: address {text}: too many colons in address")
    host, port = dial.host_port(rest.partition("/")[0], _PORT)
    if not port.isdecimal():
        raise InvalidArgument(
            f'invalid fluentd-address {text}: strconv.ParseUint: parsing "{port}": invalid syntax'
        )
    return host or _HOST, port


def _asynchronous(given: Options) -> bool:
    return options.boolean(given, "fluentd-async") or options.boolean(given, "fluentd-async-connect")


class Fluentd:
    """A collector that speaks the forward protocol."""

    def __init__(self, subject: Subject, given: Options) -> None:
        self.at_once = _asynchronous(given)
        self.retry_wait = options.seconds(given, "fluentd-retry-wait", 1.0)
        self._host, self._where = _address(given)
        self._tag = tag(subject, given)
        self._precise = options.boolean(given, "fluentd-sub-second-precision")
        self._acknowledged = options.boolean(given, "fluentd-request-ack")
        self._base = {
            "container_id": subject.id,
            "container_name": subject.name,
            **subject.attributes,
        }
        self._connection: dial.Connection | None = None
        self._encode = msgspec.msgpack.Encoder().encode

    async def connect(self) -> None:
        self.close()
        if self._host:
            self._connection = await dial.stream(self._host, self._where)
        else:
            self._connection = await dial.local(self._where, "unix")

    async def send(self, entries: list[Entry]) -> None:
        connection = self._connection
        if connection is None or not connection.alive():
            raise dial.Unreachable("the collector has closed the connection")
        choice: dict[str, Any] = {"size": len(entries)}
        if self._acknowledged:
            choice["chunk"] = base64.b64encode(os.urandom(16)).decode()
        events = [(self._time(entry[1]), self._record(entry)) for entry in entries]
        await connection.send(self._encode((self._tag, events, choice)))
        if self._acknowledged:
            await self._await_acknowledgement(connection, choice["chunk"])

    async def _await_acknowledgement(self, connection: dial.Connection, chunk: str) -> None:
        answer = b""
        while True:
            answer += await connection.receive()
            try:
                said = msgspec.msgpack.decode(answer)
            except msgspec.DecodeError:  # not all of it yet
                if len(answer) > 4096:
                    raise dial.Unreachable("the collector's answer is no acknowledgement") from None
                continue
            if not isinstance(said, dict) or said.get("ack") != chunk:
                raise dial.Unreachable("the collector acknowledged something else")
            return

    def _time(self, when: bytes) -> object:
        seconds, rest = divmod(parse_time(when.decode()) or 0, 1_000_000_000)
        return msgspec.msgpack.Ext(0, _EVENT_TIME.pack(seconds, rest)) if self._precise else seconds

    def _record(self, entry: Entry) -> dict[str, str]:
        stream, _, data = entry
        text = data.decode("utf-8", "replace")
        record = {**self._base, "source": _SOURCES[stream], "log": text.removesuffix("\n")}
        if not text.endswith("\n"):
            record["partial_message"] = "true"
        return record

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
