"""The local driver: a volume is a directory of the data root, and a row that says so.

    volumes/NAME/_data       the data, or where it is mounted (see ``mounting.py``)
    volumes/NAME/renaming    the name that it is being given
    volumes/.making-NAME     being created, or filled
    volumes/.removing-NAME   being removed: the user has asked for it
    volumes/.copying-…       a passing copy that is to be read, see ``copying``
    volumes/.populat…        see ``populate.py``

Laws:
- Create: make the directory under its passing name, fill it, sync, commit the row, rename. Remove: rename
  away, commit the row's deletion, delete the data. Rename: note the new name, commit it, rename the
  directory. A name cannot begin with a dot, so passing names meet no volume.
- Recovery never deletes what may be a user's data: a directory without a row (the database was lost or
  restored from a copy) becomes a volume again; only passing names of ours are cleaned up, and a removal that
  was not committed is taken back. A row without a directory gets an empty one when it is next mounted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping

from sampan.errors import InvalidArgument
from sampan.state import Database
from sampan.volumes import records as rows
from sampan.volumes.populate import finish
from sampan.volumes.records import VolumeRecord
from sampan.volumes.tree import remove_tree, sync_file_system

logger = logging.getLogger(__name__)

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
MAKING, REMOVING, COPYING = ".making-", ".removing-", ".copying-"
_RENAMING = "renaming"
_LONGEST_NAME = 255 - len(REMOVING) - 8  # a file name with any of the passing prefixes


def check_name(name: str) -> None:
    """Raise InvalidArgument in Docker's words for what cannot name a local volume."""
    if len(name) == 1:
        raise InvalidArgument(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    if not NAME.fullmatch(name):
        raise InvalidArgument(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
            "use absolute path"
        )
    if len(name) > _LONGEST_NAME:
        raise InvalidArgument(f"create {name}: volume name is too long, at most {_LONGEST_NAME} characters")


class LocalVolumes:
    """Directories and rows under one data root. The caller serialises changes to one name."""

    def __init__(self, *, directory: str, database: Database) -> None:
        self._directory = directory
        self._database = database

    def mountpoint(self, name: str) -> str:
        return os.path.join(self._directory, name, "_data")

    @property
    def directory(self) -> str:
        return self._directory

    async def recover(self) -> list[VolumeRecord]:
        """Finish or undo what a crash left, re-adopt what has no row; every record, oldest first.

        Blocks for as long as half-finished removals and copies take: for the start of the daemon.
        """
        os.makedirs(self._directory, mode=0o701, exist_ok=True)
        records = {record.name: record for record in self._database.read(rows.read_all)}
        for entry in sorted(os.listdir(self._directory)):
            path = os.path.join(self._directory, entry)
            if entry.startswith(MAKING):
                self._settle(path, entry.removeprefix(MAKING), known=records)
            elif entry.startswith(REMOVING):
                name = entry.removeprefix(REMOVING)
                if name in records:
                    os.rename(path, os.path.join(self._directory, name))
                else:
                    _discard(path)
            elif entry.startswith(COPYING):
                _discard(path)
            elif NAME.fullmatch(entry):
                self._finish_renaming(entry, known=records)
        lost = [name for name in self._named_directories() if name not in records]
        for name in lost:
            created = os.stat(os.path.join(self._directory, name)).st_mtime_ns
            records[name] = VolumeRecord(name=name, created_ns=created)
        if lost:
            adopted = [records[name] for name in lost]
            await self._database.write(lambda connection: rows.insert_all(connection, adopted))
            logger.warning("volumes found without a record: %s", ", ".join(lost))
        finish(self._directory)
        return sorted(records.values(), key=lambda record: record.created_ns)

    async def create(
        self,
        name: str,
        labels: Mapping[str, str] | None,
        options: Mapping[str, str] | None = None,
        *,
        fill: Callable[[str], Awaitable[None]] | None = None,
    ) -> VolumeRecord:
        """Durable when it returns, with what ``fill`` put into the directory that it is given.

        The name is valid and free. A failure, and a crash, leave nothing of it.
        """
        record = VolumeRecord(
            name=name,
            created_ns=time.time_ns(),
            labels=dict(labels) if labels is not None else None,
            options=dict(options) if options else None,
        )
        making, place = os.path.join(self._directory, MAKING + name), os.path.join(self._directory, name)
        data = os.path.join(making, "_data")
        os.makedirs(data, mode=0o755)
        # The mode of a volume is 0755 and of the directory around it 0701, whatever the daemon's umask.
        os.chmod(data, 0o755)
        os.chmod(making, 0o701)
        try:
            if fill is not None:
                await fill(data)
                await asyncio.to_thread(sync_file_system, data)
            _sync(making)
            _sync(self._directory)
            await self._database.write(lambda connection: rows.insert(connection, record))
        except BaseException:
            await asyncio.to_thread(remove_tree, making)
            raise
        os.rename(making, place)
        return record

    async def rename(self, name: str, new: str) -> None:
        """Give the volume another name, which is valid and free. Durable when it returns."""
        note = os.path.join(self._directory, name, _RENAMING)
        self.ensure_directory(name)
        with open(note, "w") as file:
            file.write(new)
            file.flush()
            os.fsync(file.fileno())
        _sync(os.path.dirname(note))
        try:
            await self._database.write(lambda connection: rows.rename(connection, name, new))
        except BaseException:
            os.unlink(note)
            raise
        place = os.path.join(self._directory, new)
        os.rename(os.path.join(self._directory, name), place)
        os.unlink(os.path.join(place, _RENAMING))

    @contextlib.contextmanager
    def copying(self) -> Iterator[str]:
        """An empty directory on the volumes' file system, gone afterwards, and after a crash."""
        path = os.path.join(self._directory, f"{COPYING}{secrets.token_hex(8)}")
        os.mkdir(path, 0o700)
        try:
            yield path
        finally:
            remove_tree(path)

    async def record(self, record: VolumeRecord) -> None:
        """Commit the row of a volume that a plugin keeps."""
        await self._database.write(lambda connection: rows.insert(connection, record))

    async def forget(self, name: str) -> None:
        """Delete the row of a volume that a plugin kept."""
        await self._database.write(lambda connection: rows.delete(connection, name))

    async def remove(self, name: str) -> None:
        """Gone for every caller when it returns; the directory may already be missing."""
        place, removing = os.path.join(self._directory, name), os.path.join(self._directory, REMOVING + name)
        with contextlib.suppress(FileNotFoundError):
            os.rename(place, removing)
            # Otherwise a loss of power may leave it under its name, without a row: a volume to be kept.
            _sync(self._directory)
        try:
            await self._database.write(lambda connection: rows.delete(connection, name))
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.rename(removing, place)
            raise

    def discard(self, name: str) -> None:
        """Delete the data of a removed volume. Blocks; OSError if some of it cannot be deleted."""
        remove_tree(os.path.join(self._directory, REMOVING + name))

    def ensure_directory(self, name: str) -> str:
        """The directory to mount, made anew if somebody deleted it."""
        path = self.mountpoint(name)
        if not os.path.isdir(path):
            os.makedirs(path, mode=0o755, exist_ok=True)
            os.chmod(path, 0o755)
            os.chmod(os.path.dirname(path), 0o701)
        return path

    def _settle(self, path: str, name: str, *, known: Mapping[str, VolumeRecord]) -> None:
        place = os.path.join(self._directory, name)
        if name in known and not os.path.exists(place):
            os.rename(path, place)
        else:
            remove_tree(path)

    def _finish_renaming(self, name: str, *, known: Mapping[str, VolumeRecord]) -> None:
        note = os.path.join(self._directory, name, _RENAMING)
        try:
            with open(note) as file:
                new = file.read()
        except (FileNotFoundError, NotADirectoryError):
            return
        place = os.path.join(self._directory, new)
        if NAME.fullmatch(new) and new in known and name not in known and not os.path.exists(place):
            os.rename(os.path.join(self._directory, name), place)
            name = new
        os.unlink(os.path.join(self._directory, name, _RENAMING))

    def _named_directories(self) -> list[str]:
        return [
            entry
            for entry in sorted(os.listdir(self._directory))
            if NAME.fullmatch(entry) and os.path.isdir(self.mountpoint(entry))
        ]


def _discard(path: str) -> None:
    try:
        remove_tree(path)
    except OSError as error:
        # Something is mounted there. The start of the daemon does not hang on it.
        logger.warning("a removed volume cannot be deleted: %s: %s", path, error)


def _sync(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
