"""Reading logs: rotated files, tails, filters, following."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from tests.fakes.engine import FakeStream, World, settle

from sampan import errors
from sampan.engine import logs
from sampan.engine.model import LogConfig, LogQuery
from sampan.errors import NotFound
from sampan.sandbox.messages import AttachOptions
from sampan.wire import logblocks, logrecords, stdcopy
from sampan.wire.logblocks import Entry

BOTH = LogQuery(stdout=True, stderr=True)
SECOND = 1_000_000_000
START = 1_700_000_000


def record(number: int, *, stream: int = 1) -> bytes:
    """Record ``number`` is written ``number`` seconds after the start."""
    minutes, seconds = divmod(number, 60)
    time = f"2023-11-14T22:{13 + (20 + seconds) // 60 + minutes:02d}:{(20 + seconds) % 60:02d}.000000000Z"
    return logrecords.record(stream, time, f"line {number}\n".encode())


def write(path: str, numbers: range, *, mode: str = "wb") -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, mode) as file:
        file.write(b"".join(record(n, stream=1 + n % 2) for n in numbers))


def rotate(path: str) -> None:
    if os.path.exists(f"{path}.1"):
        os.rename(f"{path}.1", f"{path}.2")
    os.rename(path, f"{path}.1")


def numbers_of(entries: list[Entry]) -> list[int]:
    return [int(data.split()[1]) for _, _, data in entries]


async def read(world: World, ref: str, query: LogQuery = BOTH) -> list[int]:
    return [number async for found in world.containers.logs(ref, query) for number in numbers_of(found)]


@pytest.fixture(params=[256 << 10, 7, 64])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every law holds whatever the size of the blocks that are read."""
    monkeypatch.setattr(logs, "_BLOCK", request.param)


@pytest.fixture
def rotated(tmp_path: Path, block: None) -> str:
    """Thirty records in three files."""
    path = str(tmp_path / "log" / "c.log")
    write(f"{path}.2", range(10))
    write(f"{path}.1", range(10, 20))
    write(path, range(20, 30))
    return path


def drain(reader: logs.LogReader) -> list[int]:
    found: list[int] = []
    while (batch := reader.read()) is not None:
        found.extend(numbers_of(logblocks.entries(batch)))
    return found


@pytest.mark.parametrize("tail", [None, 0, 1, 5, 9, 10, 11, 19, 20, 21, 29, 30, 31, 1000])
def test_the_tail_spans_rotated_files(rotated: str, tail: int | None) -> None:
    reader = logs.LogReader(rotated)
    reader.seek(tail)
    everything = list(range(30))
    assert drain(reader) == (everything if tail is None else everything[max(0, 30 - tail) :])
    reader.close()


def test_a_line_that_is_not_finished_is_read_when_it_is(tmp_path: Path, block: None) -> None:
    path = str(tmp_path / "c.log")
    whole = record(1)
    with open(path, "wb") as file:
        file.write(record(0) + whole[:20])
    reader = logs.LogReader(path)
    reader.seek(None)
    assert drain(reader) == [0]
    with open(path, "ab") as file:
        file.write(whole[20:])
    assert drain(reader) == [1]
    reader.close()


def test_damaged_lines_are_passed_over(tmp_path: Path, block: None) -> None:
    path = str(tmp_path / "c.log")
    with open(path, "wb") as file:
        file.write(record(0) + b"\0\0\0\xff garbage\n" + record(1) + b"\n")
    reader = logs.LogReader(path)
    reader.seek(None)
    assert drain(reader) == [0, 1]
    reader.close()


def test_rotation_while_reading_loses_and_repeats_nothing(tmp_path: Path, block: None) -> None:
    path = str(tmp_path / "log" / "c.log")
    write(path, range(5))
    reader = logs.LogReader(path)
    reader.seek(None)
    assert drain(reader) == [0, 1, 2, 3, 4]
    write(path, range(5, 7), mode="ab")
    rotate(path)
    write(path, range(7, 9))
    rotate(path)
    write(path, range(9, 10))
    assert drain(reader) == [5, 6, 7, 8, 9]
    reader.close()


def test_a_file_rotated_out_altogether_is_followed_by_the_oldest_left(tmp_path: Path) -> None:
    path = str(tmp_path / "log" / "c.log")
    write(path, range(2))
    reader = logs.LogReader(path)
    reader.seek(None)
    assert drain(reader) == [0, 1]
    os.unlink(path)
    write(f"{path}.1", range(5, 6))
    write(path, range(6, 7))
    assert drain(reader) == [5, 6]
    reader.close()


def test_a_log_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    path = str(tmp_path / "log" / "c.log")
    reader = logs.LogReader(path)
    reader.seek(10)
    assert reader.read() is None
    write(path, range(1))
    assert drain(reader) == [0]
    reader.close()


async def test_streams_and_times_select(world: World) -> None:
    web = await world.create("sleep")
    write(world.containers.get(web).log_path, range(10))
    assert await read(world, web, LogQuery(stdout=True)) == [0, 2, 4, 6, 8]
    assert await read(world, web, LogQuery(stderr=True)) == [1, 3, 5, 7, 9]
    late = LogQuery(stdout=True, stderr=True, since=(START + 7) * SECOND)
    assert await read(world, web, late) == [7, 8, 9]
    early = LogQuery(stdout=True, stderr=True, until=(START + 2) * SECOND)
    assert await read(world, web, early) == [0, 1, 2]
    assert await read(world, web, LogQuery(stdout=True, stderr=True, tail=2)) == [8, 9]


async def test_following_sees_what_is_written_and_ends_with_the_container(world: World) -> None:
    web = await world.run("sleep")
    path = world.containers.get(web).log_path
    write(path, range(2))
    stream = aiter(world.containers.logs(web, LogQuery(stdout=True, stderr=True, follow=True)))
    assert numbers_of(await anext(stream)) == [0, 1]
    waiting = asyncio.ensure_future(anext(stream))
    await settle()
    assert not waiting.done()
    write(path, range(2, 3), mode="ab")
    assert numbers_of(await waiting) == [2]
    rotate(path)
    write(path, range(3, 4))
    assert numbers_of(await anext(stream)) == [3]
    write(path, range(4, 5), mode="ab")
    world.task(web).end()
    assert [number async for found in stream for number in numbers_of(found)] == [4]
    world.watching.close()


async def test_following_what_does_not_run_is_reading(world: World) -> None:
    web = await world.create("sleep")
    write(world.containers.get(web).log_path, range(2))
    assert await read(world, web, LogQuery(stdout=True, stderr=True, follow=True)) == [0, 1]
    world.watching.close()


async def test_following_ends_at_until(world: World) -> None:
    web = await world.run("sleep")
    write(world.containers.get(web).log_path, range(2))
    query = LogQuery(stdout=True, stderr=True, follow=True, until=(START + 60) * SECOND)
    world.time = (START + 61) * SECOND
    assert await read(world, web, query) == [0, 1]
    world.watching.close()


async def test_a_reader_that_goes_away_leaves_nothing_behind(world: World) -> None:
    web = await world.run("sleep")
    write(world.containers.get(web).log_path, range(2))
    before = len(os.listdir("/proc/self/fd"))
    stream = world.containers.logs(web, LogQuery(stdout=True, stderr=True, follow=True))
    await anext(aiter(stream))
    await stream.aclose()
    world.watching.close()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_two_followers_of_one_log_both_see_everything(world: World) -> None:
    web = await world.run("sleep")
    path = world.containers.get(web).log_path
    query = LogQuery(stdout=True, stderr=True, follow=True)
    reading = [asyncio.create_task(read(world, web, query)) for _ in range(2)]
    await settle()
    write(path, range(3))
    world.task(web).end()
    assert await asyncio.gather(*reading) == [[0, 1, 2], [0, 1, 2]]
    world.watching.close()


async def test_logs_of_nothing_and_of_no_log_are_refused_before_reading(world: World) -> None:
    with pytest.raises(NotFound):
        world.containers.logs("nope", BOTH)
    web = await world.create("sleep", log_config=LogConfig(type="none"))
    with pytest.raises(errors.NotImplemented, match="does not support reading"):
        world.containers.logs(web, BOTH)


async def test_attaching_to_the_log_of_what_does_not_run_replays_it(world: World) -> None:
    web = await world.create("sleep")
    write(world.containers.get(web).log_path, range(1))
    stream = FakeStream()
    options = AttachOptions(stdout=True, stderr=True, logs=True, stream=False)
    await world.containers.attach(web, options, lambda: stream)
    assert stream.received() == stdcopy.frame(1, b"line 0\n")
