"""Persistent state: one SQLite file with one writer."""

from sampan.state.database import Database
from sampan.state.migrations import MIGRATIONS, Migration

__all__ = ["MIGRATIONS", "Database", "Migration"]
