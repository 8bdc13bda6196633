"""The rows of images and their names."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sampan.images.indexes import ImageIndex
    from sampan.images.model import Image
    from sampan.spec.reference import Reference

SELECT_IMAGES = "SELECT id, manifest, loaded_ns, tagged_ns FROM images"
SELECT_NAMES = "SELECT reference, image_id FROM image_references"


def insert_image(connection: sqlite3.Connection, image: Image) -> None:
    """Write an image; what it had before of manifest and last tag gives way."""
    connection.execute(
        "INSERT INTO images (id, manifest, loaded_ns, tagged_ns) VALUES (?, ?, ?, ?) ON CONFLICT (id)"
        " DO UPDATE SET manifest = excluded.manifest, tagged_ns = excluded.tagged_ns",
        (image.id, image.manifest, image.loaded_ns, image.tagged_ns),
    )


def insert_names(
    connection: sqlite3.Connection, names: Iterable[Reference], image_id: str, index: ImageIndex | None
) -> None:
    """Give names to an image, and have them lead to ``index`` or to none."""
    digest = None if index is None else index.digest
    connection.executemany(
        "INSERT INTO image_references (reference, image_id, index_digest) VALUES (?, ?, ?)"
        " ON CONFLICT (reference)"
        " DO UPDATE SET image_id = excluded.image_id, index_digest = excluded.index_digest",
        [(name.canonical, image_id, digest) for name in names],
    )
