"""The context of a build: the files that the client sent, unpacked where nothing of theirs can lead out.

It is unpacked when a step first needs its files: a build whose steps are all remembered needs only the
Dockerfile, which is looked up in the archive. Paths of the context are resolved inside it, whatever links it
holds. Law: it is gone when the build is over.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
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

log = logging.getLogger(__name__)

_RESOLVE = p.RESOLVE_IN_ROOT | p.RESOLVE_NO_MAGICLINKS
_IGNORED = ".dockerignore"
_HEAD = 512
_REMOVALS: set[asyncio.Task[bool | None]] = set()
"""Those under way. What a daemon that ends leaves, the next one clears away."""
_BLOCK = 512
_PREFIX = _BLOCK - 345
_UNCLEAR = frozenset(b"gSM")
"""Kinds of members whose names or sizes are not what headers say."""
_PRELUDES = frozenset(b"xLK")
_LONG_NAME = ord("L")
_PLAIN = frozenset(b"0\0")


class Context:
    """What ``sent`` holds, an archive. ``empty`` is a directory of nothing; ``workspace`` is for what steps
    need on their way. ``digest`` is the archive's: equal ones hold equal files.
    """

    def __init__(self, workspace: str, sent: Part, run: unpacking.Run | None) -> None:
        self.workspace = workspace
        self.digest = sent.digest
        self.empty = f"{workspace}/empty"
        self._directory = f"{workspace}/context"
        self._sent = sent
        self._run = run
        self._unpacked = False
        self._unpacking = asyncio.Lock()
        self._count = 0
        self.ignored: tuple[str, ...] = ()
        for path in (self._directory, self.empty):
            os.mkdir(path, 0o755)

    links = 1
    """How many names a file of it has when no layer has it."""

    async def origin(self, _sources: Iterable[str]) -> str:
        """What tells its files from those of other contexts."""
        return f"context {self.digest}"

    async def files(self, _sources: Iterable[str] = ()) -> str:
        """The directory of the files. InvalidArgument for an archive that is none."""
        async with self._unpacking:
            if not self._unpacked:
                if self._sent.size:
                    await unpacked(self._sent.path, self._directory, self._run)
                self._sent.remove()
                self._unpacked = True
        return self._directory

    def place(self) -> str:
        """A new empty directory."""
        self._count += 1
        path = f"{self.workspace}/{self._count}"
        os.mkdir(path, 0o755)
        return path

    async def read_dockerfile(self, name: str) -> str:
        """The text of the Dockerfile, and with it which files are ignored."""
        candidates = (f"{name}{_IGNORED}", _IGNORED)
        found = await asyncio.to_thread(_peek, self._sent, (name, *candidates))
        if found is None or name not in found:
            await self.files()
            found = await asyncio.to_thread(self._read_all, (name, *candidates))
        if name not in found:
            raise InvalidArgument(f"Cannot locate specified Dockerfile: {name}")
        text = next((found[candidate] for candidate in candidates if candidate in found), b"")
        self.ignored = tuple(ignore.read(text.decode(errors="replace")))
        return found[name].decode(errors="replace")

    def _read_all(self, names: tuple[str, ...]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for name in names:
            with suppress(OSError):
                found[name] = self._read(name)
        return found

    def _read(self, path: str) -> bytes:
        fd = _open(self._directory, path)
        with os.fdopen(fd, "rb") as file:
            data = file.read(SIZE_LIMIT + 1)
        if len(data) > SIZE_LIMIT:
            raise InvalidArgument(f"{path} is larger than {SIZE_LIMIT} bytes")
        return data


def _peek(sent: Part, names: tuple[str, ...]) -> dict[str, bytes] | None:
    """Files of a plain archive by name; None if it has to be unpacked to be understood."""
    wanted = {name.encode(): name for name in names}
    found: dict[str, bytes] = {}
    size = sent.size
    fd = sent.open()
    try:
        if size < _BLOCK or size % _BLOCK:
            return None
        with mmap.mmap(fd, size, prot=mmap.PROT_READ) as archive:
            at, renamed = 0, False
            while at < size and archive[at]:
                length, kind = archive[at + 124 : at + 136].strip(b"\0 "), archive[at + 156]
                if archive[at + 257 : at + 262] != b"ustar" or kind in _UNCLEAR or not length.isdigit():
                    return None
                name = archive[at : at + 100].partition(b"\0")[0].removeprefix(b"./")
                start, end = at + _BLOCK, at + _BLOCK + int(length, 8)
                at = start + -(-int(length, 8) // _BLOCK) * _BLOCK
                if kind in _PRELUDES:
                    data = archive[start:end]
                    if b" size=" in data:
                        return None
                    renamed = renamed or kind == _LONG_NAME or b" path=" in data
                    continue
                if not renamed and archive[start - _PREFIX] == 0 and (known := wanted.get(name)) is not None:
                    if kind not in _PLAIN or end - start > SIZE_LIMIT:
                        return None
                    found[known] = archive[start:end]
                renamed = False
    except ValueError:
        return None
    finally:
        os.close(fd)
    return found


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


Fill = Callable[[Part, str], Awaitable[None]]
"""Writes an archive to a part, with a directory to work in."""


@asynccontextmanager
async def filled(blobs: BlobStore, fill: Fill, run: unpacking.Run | None = None) -> AsyncIterator[Context]:
    """The context in what ``fill`` writes: a tar, compressed or not. ``run`` unpacks."""
    async with working(blobs) as workspace:
        part = Part(f"{workspace}/sent")
        try:
            await fill(part, workspace)
            if not compression.detect(part.head):
                # Docker's client does not fill up the last file when it adds some to an archive.
                part.write(bytes(-part.size % _BLOCK))
        finally:
            part.close()
        yield Context(workspace, part, run)


@asynccontextmanager
async def working(blobs: BlobStore) -> AsyncIterator[str]:
    """A directory for a build.

    Its files are removed in the background: whoever waits for the build does not wait for that.
    """
    held = blobs.workspace()
    workspace = held.__enter__()
    try:
        yield workspace
    finally:
        removal = asyncio.create_task(asyncio.to_thread(held.__exit__, None, None, None))
        _REMOVALS.add(removal)
        removal.add_done_callback(_removed)


def _removed(removal: asyncio.Task[bool | None]) -> None:
    _REMOVALS.discard(removal)
    if not removal.cancelled() and (error := removal.exception()) is not None:
        log.warning("a build's files stay until the engine starts again: %s", error)


def sent_by(body: AsyncIterable[bytes]) -> Fill:
    """What a request's body holds."""

    async def fill(part: Part, _workspace: str) -> None:
        await pump(body, lambda pieces: _write(part, pieces))

    return fill


async def unpacked(path: str, directory: str, run: unpacking.Run | None) -> None:
    """Unpack the archive in the file ``path`` into an empty directory, in a confined process."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        await unpack_from(fd, directory, run)
    finally:
        os.close(fd)


async def unpack_from(fd: int, directory: str, run: unpacking.Run | None) -> None:
    """The same of a descriptor, from its beginning."""
    kind = compression.detect(await asyncio.to_thread(os.pread, fd, compression.MAGIC_LENGTH, 0))
    os.lseek(fd, 0, os.SEEK_SET)
    await unpacking.unpack(fd, directory, compression=kind, hashed=False, run=run)


def _write(part: Part, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        part.write(piece)
