"""The daemon's log: text and JSON, and the number of the request that a line belongs to."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from sampan.api.current import REQUEST
from sampan.daemon.logs import JsonLines, Logfmt


def record(message: str = 'a "b"', **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord(
        {"name": "sampan.engine", "levelno": logging.WARNING, "msg": message, "created": 0.5, "msecs": 0}
    )
    vars(made).update(extra)
    return made


def test_text() -> None:
    line = Logfmt().format(record(container="c1"))
    assert line == r'time="1970-01-01T00:00:00.000Z" level=warning msg="a \"b\"" module=engine container=c1'


@pytest.mark.parametrize(
    "sign", ["\n", "\r", "\x1b[2J", "\x9b", "\x85", "\u2028", "\u202e", "\x00", "\x7f", "\ud800"]
)
def test_what_strangers_say_stays_in_its_line(sign: str) -> None:
    """Escapes of terminals, ends of lines of all kinds, text that runs the other way."""
    for formatter in (Logfmt(), JsonLines()):
        line = formatter.format(record(f"no such container: x{sign}time=now level=error", name=f"a{sign}"))
        assert line.isprintable()
        line.encode()
        assert len(line.splitlines()) == 1


def test_json() -> None:
    line = json.loads(JsonLines().format(record("one\ntwo", container="c1")))
    assert line == {
        "time": "1970-01-01T00:00:00.000Z",
        "level": "warning",
        "msg": "one\ntwo",
        "module": "engine",
        "container": "c1",
    }


@pytest.mark.parametrize("formatter", [Logfmt(), JsonLines()])
def test_what_a_request_began_names_it(formatter: logging.Formatter) -> None:
    async def later() -> str:
        await asyncio.sleep(0)
        return formatter.format(record())

    async def answering(number: int) -> str:
        REQUEST.set(number)
        return await asyncio.create_task(later())

    async def both() -> list[str]:
        return list(
            await asyncio.gather(asyncio.create_task(answering(7)), asyncio.create_task(answering(8)))
        )

    first, second = asyncio.run(both())
    assert "request" not in formatter.format(record())
    for line, number in ((first, "7"), (second, "8")):
        assert f"request={number}" in line or json.loads(line)["request"] == number
