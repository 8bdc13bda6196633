"""Contexts by name: what ``--build-context`` puts in the place of an image, a stage or a ``--from``.

A folder of the client, an address, an image (``docker-image://``) or an OCI layout in a folder of the client.
Each is opened when it is first used, and closed with the build.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sampan.engine import remotes
from sampan.engine.buildcontext import filled, working
from sampan.engine.buildsession import SessionContext
from sampan.errors import InvalidArgument
from sampan.images import loading
from sampan.images.model import Image
from sampan.spec import reference as references
from sampan.wire import tar

if TYPE_CHECKING:
    from sampan.engine.builds import AnyContext, BuildOptions
    from sampan.engine.buildsession import Session
    from sampan.engine.heldfiles import HeldFiles
    from sampan.images import unpacking
    from sampan.images.catalog import Catalog, NewImage
    from sampan.images.holds import Hold

IMAGE = "docker-image://"
_LAYOUT = "oci-layout:"
_LOCAL = "local"


class NamedContexts:
    """The ones that ``session`` names; none without one."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        held: HeldFiles,
        run: unpacking.Run | None,
        session: Session | None,
        options: BuildOptions,
        stack: AsyncExitStack,
    ) -> None:
        self._catalog = catalog
        self._held = held
        self._run = run
        self._session = session
        self._options = options
        self._stack = stack
        given: Mapping[str, str] = session.hello.contexts if session is not None else {}
        self._given = {_plain(name): (name, value) for name, value in given.items()}
        self._contexts: dict[str, AnyContext] = {}
        self._images: dict[str, Image] = {}
        self._turn = asyncio.Lock()

    def image(self, name: str) -> str:
        """The name of the image that is meant by ``name``; itself if it is no context of that kind."""
        value = self._given.get(_plain(name), ("", ""))[1]
        return value.removeprefix(IMAGE) if value.startswith(IMAGE) else name

    def __contains__(self, name: str) -> bool:
        return _plain(name) in self._given

    async def files(self, name: str) -> AnyContext | None:
        """The files that are called so; None for an image, and where nothing is."""
        called, value = self._given.get(_plain(name), ("", ""))
        if not value or value.startswith((IMAGE, _LAYOUT)):
            return None
        async with self._turn:
            found = self._contexts.get(called)
            if found is None:
                found = self._contexts[called] = await self._opened(called, value)
        return found

    async def _opened(self, called: str, value: str) -> AnyContext:
        blobs, session = self._catalog.blobs, self._session
        if value != _LOCAL:
            options = dataclasses.replace(self._options, remote=value, dockerfile="Dockerfile")
            return await self._stack.enter_async_context(filled(blobs, remotes.fill(options), self._run))
        assert session is not None
        self._stack.enter_context(self._held.session())
        workspace = await self._stack.enter_async_context(working(blobs))
        return SessionContext(workspace, session, self._held, called)

    async def layout(self, name: str) -> Image | None:
        """The image of the OCI layout that is called so; None where nothing is."""
        called, value = self._given.get(_plain(name), ("", ""))
        if not value.startswith(_LAYOUT):
            return None
        async with self._turn:
            found = self._images.get(called)
            if found is None:
                context = await self._opened(called, _LOCAL)
                assert isinstance(context, SessionContext)
                found = self._images[called] = await self._loaded(context, value.removeprefix(_LAYOUT))
        return found

    async def _loaded(self, context: SessionContext, which: str) -> Image:
        """The image of a layout; it is kept without a name."""

        async def keep(new: Sequence[NewImage], hold: Hold) -> list[Image]:
            return await self._catalog.add([replace(one, names=()) for one in new], hold)

        found = await loading.load(self._catalog, _archive(context), lambda _progress: None, keep)
        for new, image in found:
            tags = [name.tag for name in new.names]
            if not which or which in tags or which == f"@{image.id}" or which == f"@{image.manifest}":
                return image
        raise InvalidArgument(f"the OCI layout has no image {which}")


async def _archive(context: SessionContext) -> AsyncIterator[bytes]:
    """The files of a context, as they are loaded."""
    root = await context.files()
    for entry in await context.entries((".",)):
        if entry.kind == "f":
            yield tar.header(tar.Member(name=os.fsencode(entry.path), size=entry.size))
            with open(f"{root}/{entry.path}", "rb") as file:
                while data := await asyncio.to_thread(file.read, 1 << 20):
                    yield data
            yield bytes(tar.padding(entry.size))
    yield tar.END


def _plain(name: str) -> str:
    """A name as it is compared: images with their tags."""
    try:
        return references.parse(name).tagged().familiar
    except InvalidArgument:
        return name.lower()
