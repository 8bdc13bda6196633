"""Contexts that the engine fetches itself: a git repository, an archive or a Dockerfile at an address.

Law: an address is asked for once in a build, and what it gave is taken like an archive that was sent.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from sampan.build.dockerfile import SIZE_LIMIT
from sampan.build.gitsource import GitSource, git_source
from sampan.errors import InvalidArgument
from sampan.wire import compression, tar
from sampan.wire.quoting import quoted

if TYPE_CHECKING:
    from sampan.engine.buildcontext import Fill
    from sampan.engine.builds import BuildOptions
    from sampan.images.blobs import Part

_KEEP = "BUILDKIT_CONTEXT_KEEP_GIT_DIR"
_TRUE = frozenset(("1", "t", "true"))
_BLOCK = 512
_PIECE = 1 << 20
_WEB = ("http://", "https://")


def fill(options: BuildOptions) -> Fill:
    """What writes the context at ``options.remote``. InvalidArgument for what is no address of one."""
    remote = options.remote
    source = git_source(remote)
    if source is not None:
        keep = source.keep or options.arguments.get(_KEEP, "").lower() in _TRUE
        return _Repository(source, keep=keep)
    if remote.startswith(_WEB):
        return _File(remote, options.dockerfile)
    raise InvalidArgument(f"remoteURL ({remote}) could not be recognized as URL")


class _Repository:
    """Fetches a repository."""

    def __init__(self, source: GitSource, *, keep: bool) -> None:
        self._source = source
        self._keep = keep

    async def __call__(self, part: Part, workspace: str) -> None:
        from dataclasses import replace

        await write_repository(replace(self._source, keep=self._keep), part, workspace)


async def write_repository(source: GitSource, part: Part, workspace: str) -> str:
    """Write the files of a repository as an archive; the commit that they are of."""
    from sampan.engine.git import Repository

    place = f"{workspace}/repository-{os.path.basename(part.path)}"
    os.mkdir(place, 0o700)
    repository = Repository(place)
    commit = await repository.fetch(source)
    await repository.archive(commit, source, part.write)
    return commit.name


class _File:
    """Fetches an archive, or a Dockerfile that stands alone."""

    def __init__(self, url: str, dockerfile: str) -> None:
        self._url = url
        self._dockerfile = dockerfile

    async def __call__(self, part: Part, workspace: str) -> None:
        from sampan.registry.download import fetch

        path = f"{workspace}/fetched"
        await asyncio.to_thread(fetch, self._url, path)
        await asyncio.to_thread(self._take, part, path)

    def _take(self, part: Part, path: str) -> None:
        with open(path, "rb") as file:
            start = file.read(_BLOCK)
            file.seek(0)
            if compression.detect(start) or start[257:262] == b"ustar":
                while piece := file.read(_PIECE):
                    part.write(piece)
                return
            text = file.read(SIZE_LIMIT + 1)
        if b"\0" in text or len(text) > SIZE_LIMIT:
            raise InvalidArgument(f"what lies at {quoted(self._url)} is neither an archive nor a Dockerfile")
        part.write(single(self._dockerfile, text))


def single(name: str, data: bytes) -> bytes:
    """An archive of one file."""
    member = tar.Member(name=name.encode(), size=len(data))
    return tar.header(member) + data + bytes(tar.padding(len(data))) + bytes(2 * _BLOCK)
