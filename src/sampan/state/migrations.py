"""The tables, as numbered steps. Law: a step that was released never changes; a new one is appended.

A database's ``user_version`` is the number of steps it has had, counted from 1.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One step: applied whole, in one transaction, or not at all."""

    name: str
    statements: tuple[str, ...]


CONTAINERS = Migration(
    name="containers",
    statements=(
        """CREATE TABLE containers (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            image_id TEXT NOT NULL,
            document BLOB NOT NULL
        ) STRICT, WITHOUT ROWID""",
    ),
)

MIGRATIONS: tuple[Migration, ...] = (CONTAINERS,)
