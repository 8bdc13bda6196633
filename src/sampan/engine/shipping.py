"""Sending containers' records on to their collectors, from the local copy that keepers write.

Laws:
- Records are sent in order, each at least once: how far a log was sent is written beside it after each
  batch, and a daemon that comes later goes on there. What a collector took is known as its protocol tells it.
- No collector holds up anything but its own log. One that is away is tried again, ever more seldom.
- In blocking mode a keeper waits, rather than drop what was not sent, as long as the collector takes
  records: its container feels a slow collector once the copy is full. One that is away does not stop the
  container: then the oldest records are lost, as the copy's bounds say.
- In non-blocking mode nobody waits: what comes while ``max-buffer-size`` bytes wait is not sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import zlib
from typing import TYPE_CHECKING

from sampan.engine import logfiles, logpacking, logsources
from sampan.engine.logdrivers import DRIVERS, Collector, dial, options, own_options
from sampan.engine.logdrivers.subject import Subject
from sampan.engine.logs import LogReader
from sampan.errors import Failure, StartFailed
from sampan.sandbox.logfile import SENT
from sampan.wire import logblocks

if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.engine.model import Container
    from sampan.engine.ports import Task
    from sampan.engine.settings import Settings
    from sampan.engine.watching import Watching
    from sampan.sandbox.messages import LogFile
    from sampan.wire.logblocks import Entry

logger = logging.getLogger(__name__)

_START_FAILED = f"failed to create task for container: {logfiles.DRIVER_FAILED}"
_FAILED = 128
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 30.0  # seconds between attempts to reach a collector
_PATIENCE = 10.0  # seconds that the end of a run waits for its last records to be sent


class Progress:
    """How far a log was sent, kept in a file beside it; a lost or torn one means: from the beginning.

    A file of the log is known again by its first line and, where two begin alike, by its inode.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = f"{path}.sent"

    def find(self) -> tuple[str, int] | None:
        """(file, place) to go on at; None to begin with the oldest."""
        try:
            with open(self._file, "rb") as file:
                said = json.loads(file.read())
            head, inode, place = said["head"], said["inode"], said["place"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        found = None
        for name in logsources.files(self._path):
            with contextlib.suppress(FileNotFoundError):
                source = logsources.Source(name, block=logsources.HEAD)
                with contextlib.closing(source):
                    if zlib.crc32(source.head()) == head and (found is None or source.inode == inode):
                        found = name
        return None if found is None else (found, place)

    def write(self, source: logsources.Source, place: int) -> None:
        said = {"head": zlib.crc32(source.head()), "inode": source.inode, "place": place}
        with contextlib.suppress(OSError):  # a full disk: some records will be sent once more
            with open(self._file + ".part", "w") as file:
                json.dump(said, file)
            os.rename(self._file + ".part", self._file)


class Shipment:
    """One log on its way to one collector. ``limit``: see ``options.buffer_limit``."""

    def __init__(
        self,
        path: str,
        collector: Collector,
        *,
        limit: int | None,
        watching: Watching,
        be_patient: Callable[[bool], None],
    ) -> None:
        self._path = path
        self._collector = collector
        self._watching = watching
        self._be_patient = be_patient
        self._reader = LogReader(path, on_done=self._sent)
        self._progress = Progress(path)
        self._queue = _Queue(limit)
        self._over = False
        self._connected = False
        self._keeper_waits = False
        self._watch = watching.directory(os.path.dirname(path))
        self.troubled = asyncio.Event()

    def connected(self) -> None:
        """The collector has been reached already."""
        self._connected = True

    def replace_collector(self, collector: Collector, be_patient: Callable[[bool], None]) -> None:
        """A new run of the same container goes on with what its last one left."""
        self._collector.close()
        self._collector = collector
        self._connected = False
        self._be_patient = be_patient
        self._over = False

    def finish(self) -> None:
        """Nothing more will be written: end when everything was sent."""
        self._over = True
        self._watch.wake()

    def full(self) -> None:
        """The keeper waits with its next file until the oldest one was sent."""
        if self.troubled.is_set():
            self._be_patient(False)
        else:
            self._keeper_waits = True
            self._watch.wake()

    async def run(self) -> None:
        """Send until ``finish`` and the end of the log, or until cancelled."""
        try:
            place = await asyncio.to_thread(self._progress.find)
            if place is None:
                self._reader.seek(None)
            else:
                self._reader.stand(place)
            self._queue.catch_up(self._reader)
            while True:
                over = self._over
                await self._send_all()
                if over and self._over:
                    return
                if self._keeper_waits:
                    self._all_sent()
                await self._watch.changed()
        finally:
            self._watch.close()
            self._reader.close()
            self._collector.close()

    async def _send_all(self) -> None:
        while (block := self._reader.read()) is not None:
            if self._queue.takes(self._reader, len(block)) and (entries := logblocks.entries(block)):
                await self._send(entries)
            if (source := self._reader.source) is not None:
                self._progress.write(source, self._reader.place)
            await asyncio.sleep(0)

    async def _send(self, entries: list[Entry]) -> None:
        wait = getattr(self._collector, "retry_wait", _FIRST_WAIT)
        while True:
            collector = self._collector
            try:
                if not self._connected:
                    await collector.connect()
                    self._connected = True
                await collector.send(entries)
            except dial.Unreachable as error:
                if collector is self._collector:
                    self._connected = False
                    self._trouble(error)
                await asyncio.sleep(wait)
                wait = min(wait * 2, _LONGEST_WAIT)
                continue
            if self.troubled.is_set():
                self.troubled.clear()
                logger.info("the records of %s are sent again", self._path)
                self._be_patient(True)
            return

    def _trouble(self, error: dial.Unreachable) -> None:
        if not self.troubled.is_set():
            logger.warning("the records of %s cannot be sent, and wait: %s", self._path, error)
            self.troubled.set()
        if self._keeper_waits:
            self._keeper_waits = False
            self._be_patient(False)

    def _sent(self, source: logsources.Source) -> None:
        """Every record of a rotated file was sent: mark it, so that the keeper may drop it."""
        for name in logsources.files(self._path)[:-1]:
            if source.is_at(name):
                with contextlib.suppress(OSError):
                    os.chmod(name, SENT)
        self._sent_oldest()

    def _all_sent(self) -> None:
        """The keeper waits for files that an earlier daemon sent, or has no more than one."""
        files = logsources.files(self._path)
        for name in files[:-1] or files:
            with contextlib.suppress(OSError):
                os.chmod(name, SENT)
        self._sent_oldest()

    def _sent_oldest(self) -> None:
        if self._keeper_waits:
            self._keeper_waits = False
            self._be_patient(True)


class _Queue:
    """Which bytes of a log are sent when at most ``limit`` of them may wait; all of them when it is None.

    Counted in bytes from where the reader stood at first. What is there when the sending begins is sent.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._at = self._taken = self._dropped = 0

    def catch_up(self, reader: LogReader) -> None:
        self._taken = self._dropped = reader.left()

    def takes(self, reader: LogReader, size: int) -> bool:
        """Whether the block that was read last is sent."""
        if self._limit is None:
            return True
        if self._at >= self._dropped:
            end = self._at + size + reader.left()
            self._dropped = end
            self._taken = min(end, self._at + self._limit)
        wanted = self._at < self._taken
        self._at += size
        return wanted


class Shipping:
    """The logs of all containers: what keepers are told to write, and what is done with it afterwards."""

    def __init__(self, *, watching: Watching, settings: Settings) -> None:
        self._watching = watching
        self._settings = settings
        self._collectors: dict[str, Collector] = {}  # connected, for a start under way
        self._shipments: dict[str, tuple[Shipment, asyncio.Task[None]]] = {}
        self._packing: dict[str, asyncio.Task[None]] = {}
        self._rotated: set[str] = set()  # have something to compress

    def copy(self, container: Container) -> LogFile | None:
        """What the keeper of a start is to write; see ``logfiles``."""
        return logfiles.local_copy(container, self._path(container.id))

    def _path(self, container_id: str) -> str:
        return self._settings.paths.container_log(container_id)

    async def connect(self, container: Container) -> None:
        """Reach the collector of a container that is about to start, if its driver has one.

        Raises StartFailed in Docker's words when it is out of reach, unless the driver does not wait for it.
        """
        collector = self._collector(container)
        if collector is None:
            return
        if not collector.at_once:
            try:
                await collector.connect()
            except dial.Unreachable as error:
                raise StartFailed(f"{_START_FAILED}: {error}", exit_code=_FAILED) from error
        if (earlier := self._collectors.pop(container.id, None)) is not None:
            earlier.close()
        self._collectors[container.id] = collector

    def _collector(self, container: Container) -> Collector | None:
        config = container.host.log_config
        driver = DRIVERS.get(config.type)
        if driver is None:
            return None
        given = own_options(config.config or {})
        try:
            subject = Subject.of(container, logfiles.named_attributes(given, container.config))
            return driver.collector(subject, given)
        except Failure as error:
            raise StartFailed(f"{_START_FAILED}: {error}", exit_code=_FAILED) from error

    def follow(self, container: Container, task: Task) -> None:
        """The container runs: look after its log until ``finish``."""
        config = container.host.log_config
        if config.type == "none":
            return
        task.on_log = lambda what: self._happened(container, what)
        if config.type in DRIVERS:
            self._ship(container, _patience_of(task))
            _patience_of(task)(options.buffer_limit(config.config or {}) is None)
        self._pack(container)

    def resume(self, container: Container) -> None:
        """Go on with what is not sent yet of a container that does not run."""
        if container.host.log_config.type in DRIVERS and logsources.files(self._path(container.id)):
            self._ship(container, lambda _patient: None)
            self._shipments[container.id][0].finish()

    def _ship(self, container: Container, be_patient: Callable[[bool], None]) -> None:
        collector = self._collectors.pop(container.id, None)
        connected = collector is not None and not collector.at_once
        try:
            collector = collector or self._collector(container)
        except StartFailed as error:  # found good at create: the host has changed
            logger.warning("container %s: %s", container.id, error)
            return
        assert collector is not None
        if container.id in self._shipments:
            shipment = self._shipments[container.id][0]
            shipment.replace_collector(collector, be_patient)
        else:
            shipment = Shipment(
                self._path(container.id),
                collector,
                limit=options.buffer_limit(container.host.log_config.config or {}),
                watching=self._watching,
                be_patient=be_patient,
            )
            task = asyncio.get_running_loop().create_task(shipment.run())
            self._shipments[container.id] = shipment, task
            task.add_done_callback(lambda ended: self._ended(container.id, ended))
        if connected:
            shipment.connected()

    def _ended(self, container_id: str, task: asyncio.Task[None]) -> None:
        if container_id in self._shipments and self._shipments[container_id][1] is task:
            del self._shipments[container_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the log of container %s is not sent any more", container_id, exc_info=error)

    def _happened(self, container: Container, what: str) -> None:
        if what == "rotated":
            self._pack(container)
        elif container.id in self._shipments:
            self._shipments[container.id][0].full()

    def _pack(self, container: Container) -> None:
        copy = self.copy(container)
        if copy is None or not copy.compressed:
            return
        self._rotated.add(container.id)
        if container.id in self._packing:
            return
        task = asyncio.get_running_loop().create_task(self._pack_all(container.id))
        self._packing[container.id] = task

    async def _pack_all(self, container_id: str) -> None:
        try:
            while container_id in self._rotated:
                self._rotated.discard(container_id)
                await logpacking.pack(self._path(container_id))
        except OSError as error:
            logger.warning("the log of container %s could not be compressed: %s", container_id, error)
        finally:
            del self._packing[container_id]

    async def finish(self, container_id: str) -> None:
        """The run has ended, or did not begin: send its last records, as long as the collector takes them.

        What it does not take goes on being tried, until ``forget``.
        """
        if (collector := self._collectors.pop(container_id, None)) is not None:
            collector.close()
        if container_id not in self._shipments:
            return
        shipment, task = self._shipments[container_id]
        shipment.finish()
        trouble = asyncio.ensure_future(shipment.troubled.wait())
        await asyncio.wait((task, trouble), timeout=_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        trouble.cancel()

    async def forget(self, container_id: str) -> None:
        """The container is being removed, and its log with it."""
        tasks = [task for task in (self._packing.get(container_id),) if task is not None]
        if container_id in self._shipments:
            tasks.append(self._shipments[container_id][1])
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """The daemon goes down: what is not sent yet is sent by the next one."""
        for container_id in {*self._shipments, *self._packing}:
            await self.forget(container_id)


def _patience_of(task: Task) -> Callable[[bool], None]:
    """How to tell a container's keeper whether to wait for its collector."""
    asked: set[asyncio.Task[None]] = set()

    def be_patient(patient: bool) -> None:
        asking = asyncio.get_running_loop().create_task(task.log(patient=patient))
        asked.add(asking)
        asking.add_done_callback(asked.discard)

    return be_patient
