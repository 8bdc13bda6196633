"""What builds remember: which layer a step came to, by what went into it.

A key is a digest of the files that the step began with and of all that the step says and reads; times are in
none. The layers of what is remembered stay; forgetting lets them go, when nothing else needs them.

Law: a row is written with the rows of its layers, so that what is remembered is there.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec

from sampan.spec.digest import Digest

if TYPE_CHECKING:
    from sampan.images.catalog import Catalog
    from sampan.state import Database


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """One step's outcome: the chain that its files are, and the time that it gives to an image.

    Times are ns since the epoch.
    """

    key: str
    chain_id: Digest | None
    created_ns: int
    used_ns: int
    words: str


_INSERT = (
    "INSERT OR REPLACE INTO build_steps (key, chain_id, created_ns, used_ns, words) VALUES (?, ?, ?, ?, ?)"
)


def key_of(*parts: object) -> str:
    """The key of a step: ``parts`` are plain values, whose order counts."""
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


class BuildCache:
    """In memory, written through."""

    def __init__(self, database: Database, catalog: Catalog, clock: Callable[[], int] = time.time_ns) -> None:
        self._database = database
        self._catalog = catalog
        self._clock = clock
        self._entries: dict[str, Remembered] = {}
        catalog.garbage.also_needs(self._chains)

    def load(self) -> None:
        """Read what earlier daemons remembered; before the catalogue recovers, and sweeps."""
        rows = self._database.read(
            lambda db: db.execute(
                "SELECT key, chain_id, created_ns, used_ns, words FROM build_steps"
            ).fetchall()
        )
        for key, chain_id, created_ns, used_ns, words in rows:
            self._entries[key] = Remembered(
                key=key,
                chain_id=None if chain_id is None else Digest(chain_id),
                created_ns=created_ns,
                used_ns=used_ns,
                words=words,
            )

    def __iter__(self) -> Iterator[Remembered]:
        """Every step once."""
        return iter([entry for entry in self._entries.values() if entry.words])

    def get(self, key: str, short: str = "") -> Remembered | None:
        """What the step came to, if its layers are all here; it can be had by ``short`` too from now on."""
        found = self._entries.get(key)
        if found is None or not self._is_here(found.chain_id):
            return None
        used = msgspec.structs.replace(found, used_ns=self._clock())
        self._entries[key] = used
        self._database.post(
            lambda db: db.execute("UPDATE build_steps SET used_ns = ? WHERE key = ?", (used.used_ns, key))
        )
        if short:
            alias = msgspec.structs.replace(used, key=short, words="")
            self._entries[short] = alias
            self._database.post(lambda db: db.execute(_INSERT, msgspec.structs.astuple(alias)))
        return used

    def whole(self, entry: Remembered) -> Remembered:
        """The step of which ``entry`` may be a second key."""
        if entry.words:
            return entry
        same = (entry.chain_id, entry.created_ns)
        found = (
            one for one in self._entries.values() if one.words and (one.chain_id, one.created_ns) == same
        )
        return next(found, entry)

    async def put(
        self, key: str, chain_id: Digest | None, words: str, created_ns: int, short: str = ""
    ) -> Remembered:
        """Remember a step whose layers are held; ``short`` is a second key for it, which has no words.

        ``created_ns`` is the time that it gives to an image.
        """
        entry = Remembered(
            key=key, chain_id=chain_id, created_ns=created_ns, used_ns=self._clock(), words=words
        )
        layers = self._catalog.layers
        chain = [layer.chain_id for layer in layers.chain(chain_id)]

        entries = [entry]
        if short:
            entries.append(msgspec.structs.replace(entry, key=short, words=""))

        def work(db: sqlite3.Connection) -> None:
            layers.insert(db, chain)
            db.executemany(_INSERT, [msgspec.structs.astuple(one) for one in entries])

        await self._database.write(work, durable=False)
        self._entries.update({one.key: one for one in entries})
        return entry

    async def forget(self, keys: Iterable[str]) -> int:
        """Forget steps, and the second keys of what they came to: how many bytes of files went with them."""
        gone = [entry for key in keys if (entry := self._entries.pop(key, None)) is not None]
        chains = {entry.chain_id for entry in gone}
        keys = [entry.key for entry in gone]
        keys += [key for key, entry in self._entries.items() if not entry.words and entry.chain_id in chains]
        for key in keys:
            self._entries.pop(key, None)
        await self._database.write(
            lambda db: db.executemany("DELETE FROM build_steps WHERE key = ?", [(key,) for key in keys])
        )
        spare = await self._catalog.garbage.sweep()
        return sum(layer.size + layer.blob_size for layer in spare)

    def _is_here(self, chain_id: Digest | None) -> bool:
        return chain_id is None or self._catalog.layers.get(chain_id) is not None

    def _chains(self) -> Iterable[Digest]:
        return [entry.chain_id for entry in self._entries.values() if entry.chain_id is not None]
