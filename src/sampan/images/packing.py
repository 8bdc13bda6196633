"""From an upper directory to a layer: what commit does with a container's, and a builder with a step's.

The archive is made by a confined process (``sandbox.packer``) and becomes a blob; the layer is unpacked from
it like any other, so that a layer made here and the same one loaded elsewhere cannot differ. An archive of
some size is unpacked while it is made.

Law: the blob is on the disk before the row that names it, and the layer is, or is known to be made again from
the blob; a crash before that leaves a file in the temporary directory, which the next start empties.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.errors import Internal
from sampan.images.blobs import Pace, Part
from sampan.images.layers import Archive
from sampan.sandbox.trees import Trees
from sampan.spec import digest as digests
from sampan.spec import image as documents

if TYPE_CHECKING:
    from sampan.images.blobs import BlobStore
    from sampan.images.directories import Directories, Early
    from sampan.images.holds import Hold
    from sampan.images.layers import LayerStore
    from sampan.sandbox.messages import RootFilesystem
    from sampan.spec.digest import Digest

_BOOT = "import sys; sys.path[:] = {path!r}; from sampan.sandbox.packer import main; sys.exit(main())"
_PIECE = 1 << 20  # bytes
_WORTHWHILE = 1 << 18
"""Bytes of an archive from which on it is unpacked while it is made."""
_EMPTY = digests.of(bytes(1024))
"""The archive of nothing: no layer is made of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """An upper directory as an archive that is not kept yet."""

    part: Part
    early: Early | None = None
    """Where it is being unpacked already."""

    @property
    def diff_id(self) -> Digest:
        return self.part.digest

    @property
    def empty(self) -> bool:
        """Whether nothing was changed."""
        return self.part.digest == _EMPTY


Pack = Callable[["RootFilesystem", Callable[[int], None]], Awaitable[None]]
"""Packs what a container changed in its root; the other reads the archive from a descriptor, in a thread."""


@asynccontextmanager
async def packed(
    blobs: BlobStore, root: RootFilesystem, directories: Directories | None = None, pack: Pack | None = None
) -> AsyncIterator[Packed]:
    """What a container changed in its root, as an archive, gone when the context ends unless it was
    ``stacked``.

    Complete when the context begins: from then on the directory may change. Internal if the host fails.
    ``directories`` are where it may be unpacked meanwhile; ``pack`` makes it, without it an interpreter that
    is started for it.
    """
    with blobs.workspace() as workspace:
        part = Part(f"{workspace}/layer")
        taking = _Taking(part, directories if directories is not None and directories.follows else None)
        try:
            try:
                await (pack or _pack)(root, taking.take)
            finally:
                part.close()
            yield Packed(part=part, early=taking.early)
        finally:
            await taking.end()


async def stack(
    layers: LayerStore,
    hold: Hold,
    parent: Digest | None,
    layer: Packed,
    report: Callable[[], None] = lambda: None,
) -> Digest:
    """Make it a layer over the chain ``parent``, held by ``hold``; answers with the new chain id.

    ``report`` is called when it begins to be unpacked: a layer that is here already is not made again.
    """
    part = layer.part
    archive = Archive(
        digest=part.digest,
        size=part.size,
        compression="",
        media_type=documents.OCI_LAYER,
        part=part,
        early=layer.early,
    )
    return await layers.obtain_above(hold, parent, part.digest, archive, lambda *_: report())


class _Taking:
    """Writes an archive that is being made to its part, and has it unpacked into one of ``directories``."""

    def __init__(self, part: Part, directories: Directories | None) -> None:
        self._part = part
        self._directories = directories
        self._loop = asyncio.get_running_loop()
        self.early: Early | None = None

    def take(self, fd: int) -> None:
        """Write what comes out of the pipe ``fd``, which is taken; blocks."""
        part, waits = self._part, self._directories is not None
        try:
            while data := os.read(fd, _PIECE):
                part.write(data)
                if waits and part.size >= _WORTHWHILE:
                    waits = False
                    self._loop.call_soon_threadsafe(self._begin, part.follow())
        finally:
            os.close(fd)

    def _begin(self, pace: Pace) -> None:
        assert self._directories is not None
        self.early = self._directories.begin_early(self._part, "", pace)

    async def end(self) -> None:
        """Remove what was unpacked if nobody took it."""
        if self._directories is not None and self.early is not None:
            await self._directories.end_early([self.early])


async def _pack(root: RootFilesystem, take: Callable[[int], None]) -> None:
    """Have it packed by an interpreter that is started for it."""
    directory = f"{root.base}/{root.upper}"
    arguments: tuple[str, ...] = ()
    below = Trees(())
    if root.kind == "tree":
        below = Trees.open(f"{root.base}/{lower}" for lower in root.lowers)
        made = os.stat(f"{root.base}/{root.work}").st_ctime_ns
        arguments = (str(made), *map(str, below.fds))
    with below:
        await _pack_directory(directory, arguments, below.fds, take)


async def _pack_directory(
    directory: str, arguments: tuple[str, ...], below: tuple[int, ...], take: Callable[[int], None]
) -> None:
    read, write = os.pipe2(os.O_CLOEXEC)
    with suppress(OSError):
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _PIECE)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            "-c",
            _BOOT.format(path=[entry for entry in sys.path if os.path.isabs(entry)]),
            *arguments,
            pass_fds=below,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=write,
            stderr=asyncio.subprocess.PIPE,
            cwd=directory,
        )
    except BaseException:
        os.close(read)
        raise
    finally:
        os.close(write)
    taking = asyncio.create_task(asyncio.to_thread(take, read))
    try:
        _, errors = await process.communicate()
        await taking
    except BaseException:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await asyncio.gather(taking, return_exceptions=True)
        raise
    if process.returncode != 0:
        last = errors.decode(errors="replace").strip().rpartition("\n")[2]
        raise Internal(f"packing {directory} failed with status {process.returncode}: {last}")
