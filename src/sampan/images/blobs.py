"""Content-addressed blobs: files whose names are the digests of their bytes.

Laws: a blob becomes visible by one rename, after its bytes were hashed and reached the disk; so a name under
``sha256/`` is always the truth. Everything unfinished lies in the store's temporary directory, which is
emptied at start, but for parts of blobs that can be had again byte for byte: those lie in ``partial/`` and
are gone on with, unless nobody did for a day. All methods block; callers on the event loop use a thread for
large blobs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator

from sampan.errors import Internal, InvalidArgument
from sampan.linux import tree, writeback
from sampan.spec import digest as digests
from sampan.spec.digest import Digest

PARTIAL_LIFE = 24 * 60 * 60.0  # seconds
_BLOCK = 1 << 20
_SEND = 8 << 20


class BlobStore:
    """Blobs below ``root``; ``temporary`` must be on the same file system and belong to images alone."""

    def __init__(self, root: str, temporary: str) -> None:
        self._directory = f"{root}/sha256"
        self._temporary = temporary
        self._partial = f"{root}/partial"
        os.makedirs(self._directory, mode=0o711, exist_ok=True)
        os.makedirs(self._partial, mode=0o700, exist_ok=True)
        os.makedirs(temporary, mode=0o700, exist_ok=True)

    def clear(self) -> None:
        """Remove what an earlier life left unfinished and nobody will finish. Before anything else."""
        for entry in os.scandir(self._partial):
            if time.time() - entry.stat(follow_symlinks=False).st_mtime > PARTIAL_LIFE:
                os.unlink(entry.path)
        fd = os.open(self._temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in os.listdir(fd):
                tree.remove_tree(fd, name)
        finally:
            os.close(fd)

    def path(self, digest: str) -> str:
        """Where the blob lies, or would."""
        return f"{self._directory}/{digests.hex_of(digest)}"

    def has(self, digest: str) -> bool:
        return os.path.exists(self.path(digest))

    def size(self, digest: str) -> int:
        """Bytes; Internal if the blob is missing."""
        with _missing_is_internal(digest):
            return os.stat(self.path(digest)).st_size

    def read(self, digest: str) -> bytes:
        """The bytes of a small blob, verified; Internal if it is missing or damaged."""
        with _missing_is_internal(digest), open(self.path(digest), "rb") as file:
            data = file.read()
        if digests.of(data) != digest:
            raise Internal(f"blob {digest} is damaged")
        return data

    def open(self, digest: str) -> int:
        """A reading descriptor, the caller's to close; Internal if the blob is missing."""
        with _missing_is_internal(digest):
            return os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)

    def digests(self) -> Iterator[Digest]:
        """Every blob that is there."""
        for name in os.listdir(self._directory):
            if len(name) == digests.HEX_LENGTH:
                yield Digest(f"sha256:{name}")

    def put(self, data: bytes) -> Digest:
        """Store a document; it is on the disk when this returns."""
        digest = digests.of(data)
        if not self.has(digest):
            with self.workspace() as place:
                part = Part(f"{place}/blob")
                part.write(data)
                part.close()
                self.adopt(part)
        return digest

    def adopt(self, part: Part) -> Digest:
        """Make a finished part a blob, which is on the disk when this returns. Idempotent."""
        target = self.path(part.digest)
        if part.path == target:
            return part.digest
        # Even if the blob is there: this file takes the other's place, which may not be on the disk itself.
        part.sync()
        part.move(target)
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return part.digest

    def retire(self, digest: str) -> str | None:
        """Take the blob out of the store at once: where its file waits to be unlinked, None if not here."""
        place = tempfile.mktemp(prefix="retired-", dir=self._temporary)  # the directory is ours alone
        try:
            os.rename(self.path(digest), place)
        except FileNotFoundError:
            return None
        return place

    def discard(self, digest: str) -> None:
        """Take away a blob that is damaged. Succeeds if it is gone."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(digest))

    def partial(self, digest: str) -> Part:
        """The part of a blob that is fetched, with what an earlier attempt left. One holder at a time."""
        return Part(f"{self._partial}/{digests.hex_of(digest)}", resume=True)

    @contextlib.contextmanager
    def workspace(self) -> Iterator[str]:
        """A directory for parts, gone with all that is left in it when the context ends."""
        with tempfile.TemporaryDirectory(dir=self._temporary) as place:
            yield place


class Pace:
    """Tells a process that reads a file how far it has been written: see ``sandbox.source``.

    ``reading`` is that process's end of the pipe, to be closed by whoever gave it away.
    """

    def __init__(self) -> None:
        self.reading, self._writing = os.pipe2(os.O_CLOEXEC)
        self._told = 0

    def tell(self, size: int) -> None:
        if size - self._told >= _BLOCK:
            self._send(size)

    def end(self, size: int) -> None:
        self._send(size)
        os.close(self._writing)

    def _send(self, size: int) -> None:
        self._told = size
        with contextlib.suppress(BrokenPipeError):  # nobody wants to know any more
            os.write(self._writing, size.to_bytes(8, "little"))


class Part:
    """A file that may become a blob: written and hashed piece by piece, then closed."""

    def __init__(self, path: str, *, resume: bool = False) -> None:
        """A new file at ``path``; with ``resume``, or what is there already, hashed again."""
        self.path = path
        self.size = 0
        self.head = b""
        """The first bytes, enough to tell a compression."""
        self._hash = hashlib.sha256()
        self._digest: Digest | None = None
        self._synced = False
        self._sent = 0  # bytes that are on their way to the disk, so that ``sync`` finds little to wait for
        self._place = threading.Lock()  # held while the file has no certain name
        self.follower: Pace | None = None
        """Whoever reads the file while it grows; ``follow``."""
        exclusive = 0 if resume else os.O_EXCL
        self._fd = os.open(path, os.O_CREAT | exclusive | os.O_RDWR | os.O_CLOEXEC, 0o600)
        while block := os.read(self._fd, _BLOCK):
            self._count(block)

    @property
    def digest(self) -> Digest:
        """Of all bytes; only after ``close``."""
        if self._digest is None:
            raise Internal(f"{self.path} is not finished")
        return self._digest

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``. OSError naming the file."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.path) from error
        self._count(data)
        if self.size - self._sent >= _SEND:
            writeback.begin(self._fd, self._sent, self.size - self._sent)
            self._sent = self.size
        if self.follower is not None:
            self.follower.tell(self.size)

    def follow(self) -> Pace:
        """Have somebody read the file while it grows: how far it is, from now on."""
        self.follower = Pace()
        self.follower.tell(self.size)
        return self.follower

    def _count(self, data: bytes | memoryview) -> None:
        if len(self.head) < 8:
            self.head += bytes(data[: 8 - len(self.head)])
        self._hash.update(data)
        self.size += len(data)

    def restart(self) -> None:
        """Forget every byte that was written. Whoever follows is left behind."""
        if self.follower is not None:
            self.follower.end(self.size)
            self.follower = None
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self.size, self.head, self._hash, self._sent = 0, b"", hashlib.sha256(), 0

    def remove(self) -> None:
        """Take the file away: it is not what was wanted."""
        with self._place, contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def close(self) -> None:
        """No more bytes come. Idempotent."""
        if self._digest is None:
            self._digest = Digest(f"sha256:{self._hash.hexdigest()}")
            os.close(self._fd)
            if self.follower is not None:
                self.follower.end(self.size)

    def open(self) -> int:
        """A reading descriptor, the caller's to close."""
        with self._place:
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)

    def move(self, target: str) -> None:
        """Give the file another name on the same file system."""
        with self._place:
            os.rename(self.path, target)
            self.path = target

    def sync(self) -> None:
        """Wait until the bytes are on the disk. Idempotent.

        OSError naming the file when they are not. The file is gone then: the kernel tells of a failed write
        once and takes the pages for clean afterwards, so that whoever tried again would be told of success.
        """
        if self._synced:
            return
        fd = self.open()
        try:
            os.fsync(fd)
        except OSError as error:
            self.remove()
            raise OSError(error.errno, error.strerror, self.path) from error
        finally:
            os.close(fd)
        self._synced = True

    def read(self, limit: int) -> bytes:
        """The bytes of a small part; InvalidArgument if there are more than ``limit``."""
        if self.size > limit:
            raise InvalidArgument(f"document of {self.size} bytes is larger than the limit of {limit}")
        with os.fdopen(self.open(), "rb") as file:
            return file.read()


@contextlib.contextmanager
def _missing_is_internal(digest: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise Internal(f"blob {digest} is missing") from error
