"""Sending records on: position, retries, what was sent, what is dropped. Real files, a fake collector."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from tests import collectors
from tests.collectors import collecting

from sampan.engine import logpacking, logsources
from sampan.engine.logdrivers.dial import Unreachable
from sampan.engine.logdrivers.journald import Journald, field_name
from sampan.engine.logdrivers.subject import Subject
from sampan.engine.shipping import Progress, Shipment
from sampan.engine.watching import Watching
from sampan.sandbox.logfile import SENT, LogWriter
from sampan.sandbox.messages import LogFile
from sampan.wire.logblocks import Entry

SUBJECT = Subject(
    id="f00d" * 16,
    name="/web",
    command=("sh", "-c", "true"),
    image_id="sha256:" + "ab" * 32,
    image_name="busybox:1",
    created="2026-11-24T00:00:00Z",
    environment=(),
    labels={},
    hostname="harbour",
    attributes={"com.example/role": "front", "_x": "y"},
)


class FakeCollector:
    """Takes records unless it is ``away``; ``gate`` holds up the taking."""

    at_once = True
    retry_wait = 0.001

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.away = False
        self.refused = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def connect(self) -> None:
        if self.away:
            self.refused.set()
            raise Unreachable("it is away")

    async def send(self, entries: list[Entry]) -> None:
        await self.gate.wait()
        await self.connect()
        self.taken += [entry[2].decode().strip() for entry in entries]

    def close(self) -> None:
        pass


class World:
    """One log, its writer and what sends it on."""

    def __init__(self, folder: Path, **log: Any) -> None:
        self.path = str(folder / "c.log")
        self._watching = Watching()
        self.patience: list[bool] = []
        self.full = 0
        self.collector = FakeCollector()
        self.writer = LogWriter(LogFile(path=self.path, **log), on_full=self._is_full)

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self._watching.close()

    def _is_full(self) -> None:
        self.full += 1

    def write(self, *numbers: int) -> None:
        for number in numbers:
            self.writer.write(1, f"{number}\n".encode())

    def shipment(self, limit: int | None = None) -> Shipment:
        return Shipment(
            self.path,
            self.collector,
            limit=limit,
            watching=self._watching,
            be_patient=self.patience.append,
        )

    async def send_all(self) -> None:
        shipment = self.shipment()
        shipment.finish()
        await shipment.run()


async def test_everything_is_sent_once_across_daemons_and_rotations(tmp_path: Path) -> None:
    with World(tmp_path, max_size=500, max_files=100) as world:
        for start in range(0, 50, 10):
            world.write(*range(start, start + 10))
            await world.send_all()
        assert world.collector.taken == [str(number) for number in range(50)]


async def test_a_lost_position_means_sending_again(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        world.write(1, 2)
        await world.send_all()
        Path(f"{world.path}.sent").write_text("{")
        await world.send_all()
        assert world.collector.taken == ["1", "2", "1", "2"]


async def test_a_daemon_that_dies_before_it_wrote_its_position_sends_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with World(tmp_path) as world:
        world.write(1)
        await world.send_all()
        world.write(2)
        with monkeypatch.context() as patched:
            patched.setattr(Progress, "write", lambda *_: None)
            await world.send_all()
        world.write(3)
        await world.send_all()
        assert world.collector.taken == ["1", "2", "2", "3"]


async def test_a_collector_that_is_away_is_tried_until_it_is_back(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        world.collector.away = True
        shipment = world.shipment()
        running = asyncio.create_task(shipment.run())
        world.write(1, 2)
        await world.collector.refused.wait()
        await shipment.troubled.wait()
        world.collector.away = False
        shipment.finish()
        await running
        assert world.collector.taken == ["1", "2"]
        assert world.patience == [True]


async def test_a_patient_log_keeps_what_was_not_sent(tmp_path: Path) -> None:
    with World(tmp_path, max_size=200, max_files=2, patient=True) as world:
        world.write(*range(20))
        assert world.full > 0
        assert len(logsources.files(world.path)) == 2
        shipment = world.shipment()
        running = asyncio.create_task(shipment.run())
        shipment.full()
        while not world.patience:
            await asyncio.sleep(0)
        assert world.patience == [True]
        assert os.stat(f"{world.path}.1").st_mode & 0o777 == SENT
        full = world.full
        world.writer.relent(patient=True)
        world.write(20)
        assert world.full == full
        shipment.finish()
        await running
        assert world.collector.taken == [str(number) for number in range(21)]


async def test_a_keeper_does_not_wait_for_a_collector_that_is_away(tmp_path: Path) -> None:
    with World(tmp_path, max_size=200, max_files=2, patient=True) as world:
        world.collector.away = True
        world.write(*range(20))
        shipment = world.shipment()
        running = asyncio.create_task(shipment.run())
        shipment.full()
        await shipment.troubled.wait()
        assert world.patience == [False]
        running.cancel()


async def test_a_single_file_is_given_free_when_it_was_sent(tmp_path: Path) -> None:
    with World(tmp_path, max_size=200, max_files=1, patient=True) as world:
        world.write(*range(10))
        shipment = world.shipment()
        running = asyncio.create_task(shipment.run())
        shipment.full()
        while not world.patience:
            await asyncio.sleep(0)
        world.writer.relent(patient=True)
        world.write(10)
        shipment.finish()
        await running
        assert world.collector.taken == [str(number) for number in range(11)]


async def test_what_does_not_fit_a_buffer_is_dropped(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        shipment = world.shipment(limit=300)
        running = asyncio.create_task(shipment.run())
        world.collector.gate.clear()
        world.write(0)
        while shipment._reader.place == 0:
            await asyncio.sleep(0)
        world.write(*range(1, 10000))
        world.collector.gate.set()
        shipment.finish()
        await running
        assert world.collector.taken[:2] == ["0", "1"]
        assert len(world.collector.taken) < 9000
        world.write(10000)
        await world.send_all()
        assert world.collector.taken[-1] == "10000"


async def test_compressing_beside_a_writer_and_a_sender(tmp_path: Path) -> None:
    with World(tmp_path, max_size=500, max_files=100, compressed=True) as world:
        for start in range(0, 60, 10):
            world.write(*range(start, start + 10))
            await world.send_all()
            await logpacking.pack(world.path)
        assert world.collector.taken == [str(number) for number in range(60)]
        names = [os.path.basename(name) for name in logsources.files(world.path)]
        assert names[-1] == "c.log"
        assert all(name.endswith(".gz") for name in names[:-1])
        assert all(os.stat(f"{tmp_path}/{name}").st_mode & 0o777 == SENT for name in names[:-1])
        Path(f"{world.path}.sent").unlink()
        await world.send_all()
        assert world.collector.taken[60:] == world.collector.taken[:60]


async def test_the_journal_gets_fields_and_files() -> None:
    with collecting("unixgram") as journal:
        collector = Journald(SUBJECT, {"tag": "t"}, path=journal.address)
        await collector.connect()
        time = b"2026-11-24T05:58:53.123456789Z"
        await collector.send(
            [(1, time, b"one\n"), (2, time, b"two\nlines"), (1, time, b"x" * (1 << 20) + b"\n")]
        )
        collector.close()
        journal.wait(lambda c: len(c.datagrams) == 3)
        one, two, long = map(collectors.journal_fields, journal.datagrams)
    assert one == {
        "CONTAINER_ID": "f00df00df00d",
        "CONTAINER_ID_FULL": "f00d" * 16,
        "CONTAINER_NAME": "web",
        "CONTAINER_TAG": "t",
        "IMAGE_NAME": "busybox:1",
        "SYSLOG_IDENTIFIER": "t",
        "COM_EXAMPLE_ROLE": "front",
        "X": "y",
        "PRIORITY": "6",
        "SYSLOG_TIMESTAMP": time.decode(),
        "MESSAGE": "one",
    }
    assert (two["PRIORITY"], two["MESSAGE"], two["CONTAINER_PARTIAL_MESSAGE"]) == ("3", "two\nlines", "true")
    assert long["MESSAGE"] == "x" * (1 << 20)
    with pytest.raises(Unreachable, match="journald is not enabled on this host"):
        await Journald(SUBJECT, {}, path="/nowhere").connect()


def test_names_of_journal_fields() -> None:
    assert [field_name(name) for name in ("a.b-c", "__x", "1")] == ["A_B_C", "X", "1"]
