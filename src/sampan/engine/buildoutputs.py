"""What a build comes to besides a kept image: its files, or an archive of the image, sent to the client.

Law: a result counts as delivered when the client says that it has all of it.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from sampan.errors import Failure, InvalidArgument
from sampan.images.model import Span
from sampan.images.saving import Selected, save

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sampan.engine.buildsession import Session
    from sampan.engine.buildsteps import BuildSteps
    from sampan.images.catalog import Catalog
    from sampan.images.model import Image
    from sampan.spec.reference import Reference

_PIECE = 1 << 20
_FILES = ("local", "tar")
_ARCHIVES = ("oci", "docker")


class Outputs:
    """Delivers results."""

    def __init__(self, *, catalog: Catalog, steps: BuildSteps) -> None:
        self._catalog = catalog
        self._steps = steps

    async def deliver(self, session: Session, image: Image, names: Sequence[Reference]) -> None:
        """Send everything that the client takes, one after the other. The image's layers are held."""
        for number, wanted in enumerate(session.hello.outputs):
            if wanted.kind in _FILES:
                pieces = self._steps.packed(image.chain)
            elif wanted.kind in _ARCHIVES:
                pieces = _bytes(save(self._catalog, [Selected(image, tuple(names))]))
            else:
                raise InvalidArgument(f"unknown kind of output: {wanted.kind}")
            pipe = await session.output(number)
            try:
                async for piece in pieces:
                    await pipe.write(piece)
                pipe.end()
                if await pipe.read():
                    raise Failure("the client answers a result with something else")
            finally:
                pipe.close()


async def _bytes(source: AsyncIterator[bytes | Span]) -> AsyncIterator[bytes]:
    """Spans of files as their bytes."""
    async for piece in source:
        if not isinstance(piece, Span):
            yield piece
            continue
        at = 0
        while at < piece.size:
            data = await asyncio.to_thread(os.pread, piece.fd, min(_PIECE, piece.size - at), at)
            if not data:
                raise Failure("a layer's archive is shorter than it was")
            at += len(data)
            yield data
