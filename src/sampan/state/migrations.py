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

NETWORKS_AND_VOLUMES = Migration(
    name="networks and volumes",
    statements=(
        "CREATE TABLE bridges (name TEXT PRIMARY KEY, subnet TEXT NOT NULL) STRICT, WITHOUT ROWID",
        """CREATE TABLE networks (
            name TEXT PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            created_ns INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE volumes (
            name TEXT PRIMARY KEY,
            created_ns INTEGER NOT NULL,
            labels TEXT
        ) STRICT, WITHOUT ROWID""",
    ),
)

IMAGES = Migration(
    name="images",
    statements=(
        # id: digest of the configuration blob. manifest: digest of the manifest it came with, if any.
        """CREATE TABLE images (
            id TEXT PRIMARY KEY,
            manifest TEXT,
            loaded_ns INTEGER NOT NULL,
            tagged_ns INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID""",
        # reference: canonical, with a tag or a digest.
        """CREATE TABLE image_references (
            reference TEXT PRIMARY KEY,
            image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE
        ) STRICT, WITHOUT ROWID""",
        # id names the directory. boot: the boot during which it was unpacked without waiting for the disk.
        """CREATE TABLE layers (
            id INTEGER PRIMARY KEY,
            chain_id TEXT NOT NULL UNIQUE,
            diff_id TEXT NOT NULL,
            parent TEXT,
            blob TEXT NOT NULL,
            media_type TEXT NOT NULL,
            blob_size INTEGER NOT NULL,
            size INTEGER NOT NULL,
            max_uid INTEGER NOT NULL,
            max_gid INTEGER NOT NULL,
            boot TEXT
        ) STRICT""",
    ),
)

COMPRESSED_LAYERS = Migration(
    name="compressed layers",
    statements=(
        # blob: a plain tar. digest and size: of what it was compressed to for a registry.
        """CREATE TABLE compressed (
            blob TEXT PRIMARY KEY,
            digest TEXT NOT NULL,
            size INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID""",
    ),
)

BUILD_STEPS = Migration(
    name="build steps",
    statements=(
        # chain_id: of the files that the step came to; null for no files at all.
        """CREATE TABLE build_steps (
            key TEXT PRIMARY KEY,
            chain_id TEXT,
            created_ns INTEGER NOT NULL,
            used_ns INTEGER NOT NULL,
            words TEXT NOT NULL
        ) STRICT, WITHOUT ROWID""",
    ),
)

USER_NETWORKS = Migration(
    name="user-defined networks",
    statements=(
        """CREATE TABLE user_networks (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            bridge TEXT NOT NULL UNIQUE,
            document BLOB NOT NULL
        ) STRICT, WITHOUT ROWID""",
    ),
)

VOLUME_OPTIONS = Migration(
    name="volume options",
    statements=("ALTER TABLE volumes ADD COLUMN options TEXT",),
)

VOLUME_DRIVERS = Migration(
    name="volume drivers",
    # driver: the plugin that keeps the volume; null for the local driver.
    statements=("ALTER TABLE volumes ADD COLUMN driver TEXT",),
)

IMAGE_INDEXES = Migration(
    name="image indexes",
    statements=(
        # digest: of the index blob. image_id: the image that a name with the index means by itself.
        """CREATE TABLE image_indexes (
            digest TEXT PRIMARY KEY,
            image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE
        ) STRICT, WITHOUT ROWID""",
        # The images of an index that are here, by the digests of the manifests that it lists.
        """CREATE TABLE image_index_parts (
            index_digest TEXT NOT NULL REFERENCES image_indexes (digest) ON DELETE CASCADE,
            manifest TEXT NOT NULL,
            image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
            PRIMARY KEY (index_digest, manifest)
        ) STRICT, WITHOUT ROWID""",
        # Which index the reference leads to, of those of its image; null for none.
        "ALTER TABLE image_references ADD COLUMN index_digest TEXT",
    ),
)

MIGRATIONS: tuple[Migration, ...] = (
    CONTAINERS,
    NETWORKS_AND_VOLUMES,
    IMAGES,
    COMPRESSED_LAYERS,
    BUILD_STEPS,
    USER_NETWORKS,
    VOLUME_OPTIONS,
    VOLUME_DRIVERS,
    IMAGE_INDEXES,
)
