"""The gzip form of layers that are kept as plain tars: made for a registry, remembered by digest, not kept.

Law: the same tar gives the same bytes as long as the library is the same; what was remembered only saves the
work of making them again for a registry that has them. A form that has come out otherwise is just uploaded.
"""

from __future__ import annotations

import os
from typing import Any

from sampan.images.blobs import BlobStore, Part
from sampan.spec.digest import Digest
from sampan.state import Database

_LEVEL = 1
_BLOCK = 1 << 20


class CompressedForms:
    """Digest and size of the gzip form by the digest of the plain blob."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs

    def known(self, blob: Digest) -> tuple[Digest, int] | None:
        """What the form was when it was last made."""
        row = self._database.read(
            lambda db: db.execute("SELECT digest, size FROM compressed WHERE blob = ?", (blob,)).fetchone()
        )
        return None if row is None else (Digest(row[0]), row[1])

    def make(self, blob: Digest, path: str) -> Part:
        """Compress into a new file at ``path``. Blocks; ``remember`` it afterwards."""
        part = Part(path)
        compressor = _compressor()
        source = self._blobs.open(blob)
        try:
            while block := os.read(source, _BLOCK):
                part.write(compressor.compress(block))
            part.write(compressor.flush())
        finally:
            os.close(source)
            part.close()
        return part

    async def remember(self, blob: Digest, part: Part) -> None:
        row = (blob, part.digest, part.size)
        await self._database.write(
            lambda db: db.execute(
                "INSERT INTO compressed (blob, digest, size) VALUES (?, ?, ?) ON CONFLICT (blob)"
                " DO UPDATE SET digest = excluded.digest, size = excluded.size",
                row,
            ),
            durable=False,
        )


def _compressor() -> Any:
    from isal import isal_zlib

    return isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, 31)
