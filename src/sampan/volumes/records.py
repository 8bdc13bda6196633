"""What the database knows of volumes: a row for each, whoever keeps its data."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import msgspec

_decoder = msgspec.json.Decoder(dict[str, str])


class VolumeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A volume of the local driver, or of the plugin ``driver``.

    ``labels`` and ``options`` are None if none were ever given.
    """

    name: str
    created_ns: int
    labels: dict[str, str] | None = None
    options: dict[str, str] | None = None
    driver: str = ""


def read_all(connection: sqlite3.Connection) -> list[VolumeRecord]:
    rows = connection.execute("SELECT name, created_ns, labels, options, driver FROM volumes")
    return [
        VolumeRecord(
            name=name,
            created_ns=created_ns,
            labels=_decoder.decode(labels) if labels is not None else None,
            options=_decoder.decode(options) if options is not None else None,
            driver=driver or "",
        )
        for name, created_ns, labels, options, driver in rows
    ]


def insert(connection: sqlite3.Connection, record: VolumeRecord) -> None:
    texts = (
        msgspec.json.encode(given).decode() if given is not None else None
        for given in (record.labels, record.options)
    )
    connection.execute(
        "INSERT INTO volumes (name, created_ns, labels, options, driver) VALUES (?, ?, ?, ?, ?)",
        (record.name, record.created_ns, *texts, record.driver or None),
    )


def insert_all(connection: sqlite3.Connection, records: Iterable[VolumeRecord]) -> None:
    for record in records:
        insert(connection, record)


def delete(connection: sqlite3.Connection, name: str) -> None:
    connection.execute("DELETE FROM volumes WHERE name = ?", (name,))


def rename(connection: sqlite3.Connection, name: str, new: str) -> None:
    connection.execute("UPDATE volumes SET name = ? WHERE name = ?", (new, name))
