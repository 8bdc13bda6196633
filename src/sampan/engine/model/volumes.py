"""A volume as the use cases see it."""

from __future__ import annotations

from typing import Any

import msgspec

LOCAL = "local"
ANONYMOUS_LABEL = "com.docker.volume.anonymous"
SNAPSHOT_LABEL = "io.sampan.snapshot"
"""Of a volume that is a snapshot: the name of the volume it was taken of. It is mounted read-only."""


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """``mountpoint`` is the host's directory of its data; a plugin's may have none until it is used.

    ``status`` is what a plugin tells of it.
    """

    name: str
    mountpoint: str
    created_ns: int
    labels: dict[str, str] | None
    driver: str = LOCAL
    options: dict[str, str] | None = None
    scope: str = LOCAL
    status: dict[str, Any] | None = None

    @property
    def plain(self) -> bool:
        """Whether its directory is all there is to it, and nothing has to be mounted."""
        return self.driver == LOCAL and not self.options

    @property
    def read_only(self) -> bool:
        return self.labels is not None and SNAPSHOT_LABEL in self.labels

    @property
    def anonymous(self) -> bool:
        return self.labels is not None and ANONYMOUS_LABEL in self.labels


class VolumeUsage(msgspec.Struct, frozen=True, kw_only=True):
    """``size`` in bytes of the disk; ``references`` counts the containers that use it."""

    volume: Volume
    size: int
    references: int
