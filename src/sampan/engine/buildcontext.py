"""The context of a build: the files that the client sent, unpacked where nothing of theirs can lead out.

Paths of the context are resolved inside it, whatever links it holds. Law: it is gone when the build is over.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sampan.build.dockerfile import SIZE_LIMIT
from sampan.errors import InvalidArgument, NotFound
from sampan.images import unpacking
from sampan.images.blobs import Part
from sampan.images.loading import pump
from sampan.linux import process as p
from sampan.wire import compression, ignore

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sampan.images.blobs import BlobStore

_RESOLVE = p.RESOLVE_IN_ROOT | p.RESOLVE_NO_MAGICLINKS
_IGNORED = ".dockerignore"
_HEAD = 512


class Context:
    """``directory`` holds the files, ``empty`` nothing; ``workspace`` is for what steps need on their way."""

    def __init__(self, workspace: str) -> None:
        self.workspace = workspace
        self.directory = f"{workspace}/context"
        self.empty = f"{workspace}/empty"
        self._count = 0
        self.ignored: tuple[str, ...] = ()
        for path in (self.directory, self.empty):
            os.mkdir(path, 0o755)

    def place(self) -> str:
        """A new empty directory."""
        self._count += 1
        path = f"{self.workspace}/{self._count}"
        os.mkdir(path, 0o755)
        return path

    def read_dockerfile(self, name: str) -> str:
        """The text of the Dockerfile, and with it which files are ignored."""
        try:
            data = self._read(name)
        except OSError:
            raise InvalidArgument(f"Cannot locate specified Dockerfile: {name}") from None
        for candidate in (f"{name}{_IGNORED}", _IGNORED):
            try:
                self.ignored = tuple(ignore.read(self._read(candidate).decode(errors="replace")))
                break
            except OSError:
                continue
        return data.decode(errors="replace")

    def head(self, path: str) -> bytes:
        """The first bytes of a file; none of what is no file."""
        return head(self.directory, path)

    def _read(self, path: str) -> bytes:
        fd = _open(self.directory, path)
        with os.fdopen(fd, "rb") as file:
            data = file.read(SIZE_LIMIT + 1)
        if len(data) > SIZE_LIMIT:
            raise InvalidArgument(f"{path} is larger than {SIZE_LIMIT} bytes")
        return data


def head(directory: str, path: str) -> bytes:
    """The first bytes of a file below ``directory``; none of what is no file."""
    try:
        fd = _open(directory, path)
    except OSError:
        return b""
    try:
        return os.read(fd, _HEAD)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _open(directory: str, path: str) -> int:
    root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return p.openat2(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, resolve=_RESOLVE)
    finally:
        os.close(root)


def open_inside(directory: str, path: str) -> int:
    """A reading descriptor of a file below ``directory``. NotFound when there is none."""
    try:
        return _open(directory, path)
    except OSError:
        raise NotFound(f"file not found in build context or excluded by .dockerignore: {path}") from None


def archive_kind(start: bytes) -> str | None:
    """The compression of an archive that begins so ("" for a plain tar); None for what is no archive."""
    kind = compression.detect(start)
    if kind:
        return kind
    return "" if start[257:262] == b"ustar" else None


@asynccontextmanager
async def received(blobs: BlobStore, body: AsyncIterable[bytes]) -> AsyncIterator[Context]:
    """The context in a request's body: a tar, compressed or not. InvalidArgument for anything else."""
    with blobs.workspace() as workspace:
        part = Part(f"{workspace}/sent")
        try:
            await pump(body, lambda pieces: _write(part, pieces))
        finally:
            part.close()
        context = Context(workspace)
        if part.size:
            await unpacked(part.path, context.directory)
        part.remove()
        yield context


async def unpacked(path: str, directory: str) -> None:
    """Unpack the archive in the file ``path`` into an empty directory, in a confined process."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        await unpack_from(fd, directory)
    finally:
        os.close(fd)


async def unpack_from(fd: int, directory: str) -> None:
    """The same of a descriptor, from its beginning."""
    kind = compression.detect(await asyncio.to_thread(os.pread, fd, compression.MAGIC_LENGTH, 0))
    os.lseek(fd, 0, os.SEEK_SET)
    await unpacking.unpack(fd, directory, compression=kind, hashed=False)


def _write(part: Part, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        part.write(piece)
