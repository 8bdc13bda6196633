"""Volume drivers found and asked, with a real one at the other end of the socket."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tests.volume_driver import VolumeDriver, serving

from sampan.errors import Conflict, Internal, NotFound, Unavailable
from sampan.plugins.calling import Timing
from sampan.plugins.discovery import parse_address
from sampan.volumes.plugins import DriverError, Plugins

QUICK = Timing(patience=0.2, short=5, long=5)


def plugins(tmp_path: Path, timing: Timing = QUICK) -> Plugins:
    return Plugins(sockets=str(tmp_path / "run"), specs=(str(tmp_path / "etc"),), timing=timing)


def test_what_a_driver_is_told_and_tells(tmp_path: Path) -> None:
    async def work(driver: VolumeDriver) -> None:
        found = await plugins(tmp_path).driver("kept")
        await found.create("vol", {"a": "b"})
        assert driver.volumes == {"vol": {"a": "b"}}
        assert await found.scope() == "global"
        assert (await found.get("vol"))["Status"] == {"kept": "well"}
        assert [each["Name"] for each in await found.list()] == ["vol"]
        assert await found.mount("vol", "me") == await found.path("vol") == str(tmp_path / "data" / "vol")
        assert driver.mounts == {"vol": {"me"}}
        await found.unmount("vol", "me")
        assert driver.mounts == {"vol": set()}
        await found.remove("vol")
        with pytest.raises(DriverError, match=r"^no such volume$"):
            await found.get("vol")

    with serving(tmp_path / "run" / "kept.sock", tmp_path / "data") as driver:
        asyncio.run(work(driver))


@pytest.mark.parametrize("place", ["run/kept/kept.sock", "spec", "json", "folder"])
def test_where_a_driver_is_found(tmp_path: Path, place: str) -> None:
    socket = tmp_path / (place if place.startswith("run") else "elsewhere.sock")
    etc = tmp_path / "etc"
    (etc / "kept").mkdir(parents=True)
    if place == "spec":
        (etc / "kept.spec").write_text(f"unix://{socket}\n")
    elif place == "json":
        (etc / "kept.json").write_text(json.dumps({"Name": "kept", "Addr": f"unix://{socket}"}))
    elif place == "folder":
        (etc / "kept" / "kept.spec").write_text(f"unix://{socket}")
    with serving(socket, tmp_path / "data"):
        there = plugins(tmp_path)
        assert there.names() == ["kept"]
        assert [driver.name for driver in asyncio.run(there.drivers())] == ["kept"]


def test_what_is_no_driver_is_not_found(tmp_path: Path) -> None:
    with serving(tmp_path / "run" / "other.sock", tmp_path / "data") as driver:
        driver.implements = ["NetworkDriver"]
        for name in ("other", "missing", "../other", "a\0b"):
            with pytest.raises(NotFound, match="not found"):
                asyncio.run(plugins(tmp_path).driver(name))


def test_a_driver_that_went_away_is_tried_again_and_given_up(tmp_path: Path) -> None:
    async def work() -> None:
        there = plugins(tmp_path)
        with serving(tmp_path / "run" / "kept.sock", tmp_path / "data"):
            found = await there.driver("kept")
        with pytest.raises(
            Unavailable, match=r"Unable to connect to plugin: kept/VolumeDriver.List: no such"
        ):
            await found.list()

    asyncio.run(work())


def test_a_driver_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    async def work() -> None:
        there = plugins(tmp_path, Timing(patience=20, short=5, long=5))
        wanted = asyncio.ensure_future(there.driver("kept", patient=True))
        await asyncio.sleep(0)
        with serving(tmp_path / "run" / "kept.sock", tmp_path / "data"):
            assert (await wanted).name == "kept"

    asyncio.run(work())


def test_a_driver_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    async def work(driver: VolumeDriver) -> None:
        found = await plugins(tmp_path, Timing(patience=0.1, short=0.05, long=0.05)).driver("kept")
        driver.hangs.add("Create")
        with pytest.raises(Unavailable, match="context deadline exceeded"):
            await found.create("vol", None)

    with serving(tmp_path / "run" / "kept.sock", tmp_path / "data") as driver:
        asyncio.run(work(driver))


HOSTILE = [
    b"",
    b"nonsense",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
    b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    b"HTTP/1.1 500 No\r\nContent-Length: 5\r\n\r\nwrong",
]


@pytest.mark.parametrize("said", HOSTILE)
def test_what_is_no_answer_is_a_failure_and_no_crash(tmp_path: Path, said: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()

    async def work() -> None:
        (tmp_path / "run").mkdir()
        server = await asyncio.start_unix_server(answer, tmp_path / "run" / "bad.sock")
        async with server:
            with pytest.raises((Unavailable, Internal, Conflict)):
                await plugins(tmp_path).driver("bad")

    asyncio.run(work())


def test_answers_in_chunks(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"Implements": ["VolumeDriver"]}'
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        writer.close()

    async def work() -> None:
        (tmp_path / "run").mkdir()
        async with await asyncio.start_unix_server(answer, tmp_path / "run" / "ok.sock"):
            assert (await plugins(tmp_path).driver("ok")).name == "ok"

    asyncio.run(work())


def test_addresses() -> None:
    assert parse_address("tcp://localhost:9000", "x").port == 9000
    assert parse_address("https://localhost:9000", "x").tls is not None
    for text in ("", "tcp://", "tcp://host", "ftp://host:1", "unix:", "tcp://host:99999999"):
        with pytest.raises(Internal, match="is no address of a plugin"):
            parse_address(text, "x")


def test_bad_descriptions_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "a.json").write_text("{")
    (tmp_path / "etc" / "b.spec").write_text("nowhere")
    (tmp_path / "etc" / "c.json").write_text('{"Name": "c"}')

    assert asyncio.run(plugins(tmp_path).drivers()) == []
