"""Containers whose directories a loss of power took: made again by the next start.

Theory: a container's row waits for the disk, its directories do not: they are empty when it is created, and
what it writes and syncs later takes them along. So a row may be there without them, and says all that they
are made of.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from sampan.errors import Failure
from sampan.images.snapshots import part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.engine.model import Container
    from sampan.engine.ports import Catalog, Snapshots
    from sampan.engine.settings import Settings

logger = logging.getLogger(__name__)


class Remaking:
    """Asked once for each container that does not run, when the daemon starts."""

    def __init__(self, *, catalog: Catalog, snapshots: Snapshots, settings: Settings) -> None:
        self._catalog = catalog
        self._snapshots = snapshots
        self._settings = settings

    async def complete(self, container: Container) -> None:
        """Make what is missing. A failure is logged: the container is there, and cannot be started."""
        try:
            os.makedirs(self._settings.paths.container(container.id), mode=0o710, exist_ok=True)
            for key, image_id in _snapshots_of(container):
                if self._snapshots.is_whole(key):
                    continue
                chain_id = self._catalog.find(image_id).chain_id
                await self._snapshots.complete(key, chain_id)
                logger.info("container %s: its directories were lost, and are made again", container.id)
        except (Failure, OSError) as error:
            logger.warning("container %s: its files are lost: %s", container.id, error)


def _snapshots_of(container: Container) -> Iterator[tuple[str, str]]:
    yield container.id, container.image_id
    for number, point in enumerate(container.mounts):
        if point.type == "image":
            yield part(container.id, number), point.source
