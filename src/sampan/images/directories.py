"""The directories of layers: numbers allotted, filled by unpacking, given looks, removed, synced.

Theory: a layer's files lie in ``<number>/fs``; numbers are short because the kernel takes the paths of all of
a container's layers in one page.

Laws:
- A number is given out once in a daemon's life. Until it is ``kept``, and again once it is ``released``, its
  directory is nobody's layer; the next start removes what no row names.
- Removals go on in the background; ``drain`` waits for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass

from sampan.errors import Internal
from sampan.images import unpacking
from sampan.images.blobs import Pace, Part
from sampan.linux import inodeflags, tree
from sampan.linux.process import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, openat2
from sampan.sandbox.unpack import Limits
from sampan.wire import compression

log = logging.getLogger(__name__)

_FOLLOWERS = 4
"""Archives that are unpacked while they come from elsewhere, at once."""


@dataclass(slots=True, kw_only=True)
class Early:
    """A layer that is unpacked into the directory of ``number`` while its archive still arrives."""

    number: int
    task: asyncio.Task[unpacking.Answer]
    taken: bool = False


class Directories:
    """Those below ``root``. ``clear`` once before any number is asked for."""

    def __init__(
        self, root: str, *, limits: Limits, run: unpacking.Run | None, plain_marks: bool = False
    ) -> None:
        """``limits`` hold for each layer; ``run`` unpacks, without it by an interpreter for each."""
        self._plain_marks = plain_marks
        self.root = root
        self.limits = limits
        self._run = run
        self._workers = asyncio.Semaphore(max(2, os.cpu_count() or 1))
        self._followers = asyncio.Semaphore(_FOLLOWERS)
        self.unpacking = 0
        """How many layers are being unpacked, or wait for their turn."""
        self._next = 1
        self._unsettled: set[int] = set()
        """The directories that are no layer's yet, or not any more."""
        self._removals: set[asyncio.Task[None]] = set()
        os.makedirs(root, mode=0o711, exist_ok=True)
        spread(root)

    def place(self, number: int) -> str:
        """The directory of that number, absolute."""
        return f"{self.root}/{number}"

    def path(self, number: int) -> str:
        """The files in the directory of that number, absolute."""
        return f"{self.root}/{number}/fs"

    # ------------------------------------------------------------------ numbers

    def allot(self) -> int:
        """A new number, which is nobody's layer yet."""
        number, self._next = self._next, self._next + 1
        self._unsettled.add(number)
        return number

    def keep(self, number: int) -> None:
        """From now on it is a layer's."""
        self._unsettled.discard(number)

    def is_kept(self, number: int) -> bool:
        return number not in self._unsettled

    def release(self, number: int) -> None:
        """It is no layer's any more, but not to be removed yet."""
        self._unsettled.add(number)

    def strays(self, known: Iterable[int]) -> list[int]:
        """Directories that are none of ``known`` and that nobody makes or removes."""
        passed = {*known, *self._unsettled}
        return [number for number in self._numbers() if number not in passed]

    def _numbers(self) -> list[int]:
        return [int(name) for name in os.listdir(self.root) if name.isdigit()]

    # ------------------------------------------------------------------ filling

    async def unpack(
        self, number: int, archive: int, kind: str, pace: int | None = None, *, slow: bool = False
    ) -> unpacking.Answer:
        """Unpack an archive, open for reading, into the directory of ``number``, which is made.

        ``kind`` is its compression, "" for none; then the answer has no digest. A ``slow`` archive is mostly
        waited for, and keeps no other from being unpacked meanwhile. As ``unpacking.unpack``.
        """
        directory = self.path(number)
        os.mkdir(f"{self.root}/{number}", 0o700)
        os.mkdir(directory, 0o755)
        self.unpacking += 1
        try:
            async with self._followers if slow else self._workers:
                return await unpacking.unpack(
                    archive,
                    directory,
                    compression=kind,
                    hashed=bool(kind),
                    limits=self.limits,
                    plain_marks=self._plain_marks,
                    run=self._run,
                    pace=pace,
                )
        finally:
            self.unpacking -= 1

    def adopt(self, number: int, directory: str) -> None:
        """Move a directory of the same file system, with a layer's files, here."""
        os.mkdir(f"{self.root}/{number}", 0o700)
        os.rename(directory, self.path(number))

    async def complete(self, number: int, below: Iterable[int], implied: list[str]) -> None:
        """Make the files of ``number`` what they are to be over the layers ``below``, topmost first.

        ``implied`` are the directories that no member of the archive described.
        """
        dress_implied(self.path(number), [self.path(one) for one in below], implied)

    # ------------------------------------------------------------------ ahead of need

    @property
    def follows(self) -> bool:
        """Whether a layer can be unpacked while its archive arrives."""
        return self._run is not None

    def begin_early(self, part: Part, kind: str, pace: Pace, *, slow: bool = False) -> Early:
        """Begin to unpack a part that is still written; ``end_early`` it. Takes ``pace.reading``."""
        number = self.allot()
        task = asyncio.create_task(self._follow(number, part, kind, pace, slow=slow))
        return Early(number=number, task=task)

    async def end_early(self, early: Iterable[Early]) -> None:
        """Remove what nobody took."""
        spare = [one for one in early if not one.taken]
        for one in spare:
            one.task.cancel()
        await asyncio.gather(*(one.task for one in spare), return_exceptions=True)
        self.discard(one.number for one in spare)

    async def _follow(
        self, number: int, part: Part, kind: str, pace: Pace, *, slow: bool
    ) -> unpacking.Answer:
        try:
            archive = part.open()
            try:
                answer = await self.unpack(number, archive, kind, pace.reading, slow=slow)
            finally:
                os.close(archive)
        finally:
            os.close(pace.reading)
        await asyncio.to_thread(part.sync)
        return answer

    # ------------------------------------------------------------------ removing

    def discard(self, numbers: Iterable[int]) -> None:
        """Remove directories in the background. Those that are gone already are passed over."""
        numbers = tuple(numbers)
        if not numbers:
            return
        self._unsettled.update(numbers)
        task = asyncio.create_task(asyncio.to_thread(remove_directories, self.root, numbers))
        self._removals.add(task)

        def gone(done: asyncio.Task[None]) -> None:
            self._removals.discard(done)
            self._unsettled.difference_update(numbers)
            if not done.cancelled() and (error := done.exception()) is not None:
                log.warning("layers' directories stay until the engine starts again: %s", error)

        task.add_done_callback(gone)

    async def remove(self, number: int) -> None:
        """Remove one and wait until it is gone."""
        await asyncio.to_thread(remove_directories, self.root, (number,))

    async def drain(self) -> None:
        """Wait for removals that are under way."""
        while self._removals:
            await asyncio.gather(*self._removals, return_exceptions=True)
            await asyncio.sleep(0)  # Python 3.12 answers at once for what is done, before its callbacks ran

    async def clear(self, known: Iterable[int]) -> None:
        """Remove what an earlier life left and is none of ``known``; numbers go on after all there were."""
        # A row may be there without its directory, which a loss of power took: its number is taken too.
        numbers, kept = self._numbers(), {*known}
        self._next = max((*numbers, *kept), default=0) + 1
        await asyncio.to_thread(remove_directories, self.root, tuple({*numbers} - kept))


def spread(root: str) -> None:
    """Have the file system place layers apart from one another, where it knows how.

    ext4 does not reuse inodes deleted in the last minutes, and looks at each of them again for every file it
    creates nearby: without this, unpacking soon after a removal takes several times as long.
    """
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            inodeflags.add_flag(fd, inodeflags.TOP_DIRECTORY)
    finally:
        os.close(fd)


def dress_implied(directory: str, below: list[str], implied: list[str]) -> None:
    """Give directories that only a member's path named the looks of those they cover in the layers below."""
    if not below:
        return
    lowers = [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in below]
    root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in reversed(implied):
            for lower in lowers:
                looks = _looks(lower, path)
                if looks is not None:
                    _dress(root, path, looks)
                    break
    finally:
        for fd in (*lowers, root):
            os.close(fd)


def _looks(root: int, path: str) -> os.stat_result | None:
    try:
        fd = openat2(root, path, os.O_PATH | os.O_DIRECTORY, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
    except OSError:
        return None
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def _dress(root: int, path: str, looks: os.stat_result) -> None:
    try:
        fd = openat2(root, path, os.O_RDONLY | os.O_DIRECTORY, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
    except OSError:
        return  # replaced by a later member
    try:
        os.fchown(fd, looks.st_uid, looks.st_gid)
        os.fchmod(fd, looks.st_mode & 0o7777)
        os.utime(fd, ns=(looks.st_atime_ns, looks.st_mtime_ns))
    finally:
        os.close(fd)


def remove_directories(root: str, numbers: tuple[int, ...]) -> None:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for number in numbers:
            tree.remove_tree(fd, str(number))
    finally:
        os.close(fd)


def detect_compression(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return compression.detect(file.read(compression.MAGIC_LENGTH))
    except OSError:
        return ""


def sync_file_system(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
            raise Internal(f"sync of {path} failed: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(fd)
