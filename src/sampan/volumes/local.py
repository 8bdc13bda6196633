"""The local driver: a volume is a directory of the data root, and a row that says so.

    volumes/NAME/_data       the data
    volumes/.making-NAME     being created: empty by construction
    volumes/.removing-NAME   being removed: the user has asked for it
    volumes/.populat…        see ``populate.py``

Laws:
- Create: make the directory under its passing name, sync, commit the row, rename. Remove: rename away, commit
  the row's deletion, delete the data. A name cannot begin with a dot, so passing names meet no volume.
- Recovery never deletes what may be a user's data: a directory without a row (the database was lost or
  restored from a copy) becomes a volume again; only passing names of ours are cleaned up, and a removal that
  was not committed is taken back. A row without a directory gets an empty one when it is next mounted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
import time
from collections.abc import Iterable, Mapping

import msgspec

from sampan.errors import InvalidArgument
from sampan.state import Database
from sampan.volumes.populate import finish
from sampan.volumes.tree import remove_tree

logger = logging.getLogger(__name__)

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
MAKING, REMOVING = ".making-", ".removing-"
_LONGEST_NAME = 255 - len(REMOVING) - 8  # a file name with any of the passing prefixes

_labels_decoder = msgspec.json.Decoder(dict[str, str])


class VolumeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A volume as the driver knows it. ``labels`` and ``options`` are None if none were ever given."""

    name: str
    created_ns: int
    labels: dict[str, str] | None = None
    options: dict[str, str] | None = None


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
        """Finish or undo what a crash left, re-adopt what has no row; every volume, oldest first.

        Blocks for as long as half-finished removals and copies take: for the start of the daemon.
        """
        os.makedirs(self._directory, mode=0o701, exist_ok=True)
        records = {record.name: record for record in self._database.read(_read_all)}
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
        lost = [name for name in self._named_directories() if name not in records]
        for name in lost:
            created = os.stat(os.path.join(self._directory, name)).st_mtime_ns
            records[name] = VolumeRecord(name=name, created_ns=created)
        if lost:
            adopted = [records[name] for name in lost]
            await self._database.write(lambda connection: _insert_all(connection, adopted))
            logger.warning("volumes found without a record: %s", ", ".join(lost))
        finish(self._directory)
        return sorted(records.values(), key=lambda record: record.created_ns)

    async def create(
        self, name: str, labels: Mapping[str, str] | None, options: Mapping[str, str] | None = None
    ) -> VolumeRecord:
        """Durable when it returns. The name is valid and free."""
        record = VolumeRecord(
            name=name,
            created_ns=time.time_ns(),
            labels=dict(labels) if labels is not None else None,
            options=dict(options) if options else None,
        )
        making, place = os.path.join(self._directory, MAKING + name), os.path.join(self._directory, name)
        os.makedirs(os.path.join(making, "_data"), mode=0o755)
        # The mode of a volume is 0755 and of the directory around it 0701, whatever the daemon's umask.
        os.chmod(os.path.join(making, "_data"), 0o755)
        os.chmod(making, 0o701)
        _sync(making)
        try:
            await self._database.write(lambda connection: _insert(connection, record))
        except BaseException:
            remove_tree(making)
            raise
        os.rename(making, place)
        return record

    async def remove(self, name: str) -> None:
        """Gone for every caller when it returns; the directory may already be missing."""
        place, removing = os.path.join(self._directory, name), os.path.join(self._directory, REMOVING + name)
        with contextlib.suppress(FileNotFoundError):
            os.rename(place, removing)
        try:
            await self._database.write(lambda connection: _delete(connection, name))
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


def _read_all(connection: sqlite3.Connection) -> list[VolumeRecord]:
    rows = connection.execute("SELECT name, created_ns, labels, options FROM volumes")
    return [
        VolumeRecord(
            name=name,
            created_ns=created_ns,
            labels=_labels_decoder.decode(labels) if labels is not None else None,
            options=_labels_decoder.decode(options) if options is not None else None,
        )
        for name, created_ns, labels, options in rows
    ]


def _insert(connection: sqlite3.Connection, record: VolumeRecord) -> None:
    texts = (
        msgspec.json.encode(given).decode() if given is not None else None
        for given in (record.labels, record.options)
    )
    connection.execute(
        "INSERT INTO volumes (name, created_ns, labels, options) VALUES (?, ?, ?, ?)",
        (record.name, record.created_ns, *texts),
    )


def _insert_all(connection: sqlite3.Connection, records: Iterable[VolumeRecord]) -> None:
    for record in records:
        _insert(connection, record)


def _delete(connection: sqlite3.Connection, name: str) -> None:
    connection.execute("DELETE FROM volumes WHERE name = ?", (name,))
