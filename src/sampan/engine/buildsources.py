"""What ADD takes from elsewhere: a file at an address, or a repository.

Theory: a source whose content is known beforehand, by a checksum or the whole name of a commit, is fetched
only when no step remembers what it came to. Everything else is fetched first, and then known by its content.
"""

from __future__ import annotations

import asyncio
import posixpath
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sampan.build import gitsource
from sampan.build.gitsource import GitSource, git_source
from sampan.engine import buildcontext
from sampan.errors import InvalidArgument
from sampan.images.blobs import Part
from sampan.wire.quoting import quoted

if TYPE_CHECKING:
    from sampan.build.evaluate import CopyWork
    from sampan.engine.builds import AnyContext
    from sampan.images import unpacking

_WEB = ("http://", "https://")
_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}")
Fetch = Callable[[], Awaitable[str]]


class Fetched:
    """A directory that is made when its files are first needed."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._making = asyncio.Lock()
        self._path = ""

    async def files(self) -> str:
        async with self._making:
            if not self._path:
                self._path = await self._fetch()
        return self._path


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """``sources`` of ``tree`` are to be put in; ``origin`` tells the tree from others, "" if it changes."""

    tree: Fetched
    sources: tuple[str, ...]
    origin: str
    whole: bool
    """The files of a directory, with their modes."""


def remote_source(text: str, work: CopyWork, context: AnyContext, run: unpacking.Run | None) -> Source | None:
    """The source of an ADD that lies elsewhere; None for one of the context. InvalidArgument for bad ones."""
    if not work.step.add:
        return None
    if work.step.checksum and len(work.sources) + len(work.inline) > 1:
        raise InvalidArgument("checksum can't be specified for multiple sources")
    repository = git_source(text)
    if repository is not None:
        return _repository(repository, work, context, run)
    if work.step.keep_git:
        raise InvalidArgument(f"--keep-git-dir is for git repositories: {text} is none")
    if text.startswith(_WEB):
        return _file(text, work, context, run)
    if work.step.checksum:
        raise InvalidArgument("checksum can't be specified for non-HTTP(S) sources")
    return None


def _repository(source: GitSource, work: CopyWork, context: AnyContext, run: unpacking.Run | None) -> Source:
    if work.step.checksum:
        source = replace(source, checksum=gitsource.commit_prefix(work.step.checksum))
    source = replace(source, keep=source.keep or work.step.keep_git)

    async def fetch() -> str:
        from sampan.engine.remotes import write_repository

        place = context.place()
        part = Part(f"{place}.tar")
        try:
            await write_repository(source, part, context.workspace)
        finally:
            part.close()
        await buildcontext.unpacked(part.path, place, run)
        part.remove()
        return place

    origin = f"git {source.url} {source.commit} {source}" if source.commit else ""
    return Source(tree=Fetched(fetch), sources=(".",), origin=origin, whole=True)


def _file(url: str, work: CopyWork, context: AnyContext, run: unpacking.Run | None) -> Source:
    wanted = work.step.checksum
    if wanted and not _CHECKSUM.fullmatch(wanted):
        raise InvalidArgument(
            f"invalid checksum digest format: {quoted(wanted)}; it is sha256: and 64 digits"
        )
    name = posixpath.basename(url.partition("#")[0].partition("?")[0].rstrip("/")) or "index"

    async def fetch() -> str:
        from sampan.registry.download import fetch as download

        place = context.place()
        digest = await asyncio.to_thread(download, url, f"{place}/{name}")
        if wanted and wanted != digest:
            raise InvalidArgument(f"digest mismatch for {url}: got {digest}, expected {wanted}")
        if not work.step.unpack:
            return place
        inside = context.place()
        await buildcontext.unpacked(f"{place}/{name}", inside, run)
        return inside

    whole = bool(work.step.unpack)
    sources = (".",) if whole else (name,)
    origin = f"url {url} {wanted} {whole}" if wanted else ""
    return Source(tree=Fetched(fetch), sources=sources, origin=origin, whole=whole)
