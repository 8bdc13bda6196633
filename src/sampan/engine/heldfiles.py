"""Files of contexts that the engine holds, by their contents: what was sent once need not be sent again.

``files/`` has each file once for each look (mode, time, capability): the name tells digest, size and look, so
that a file can be linked into a context just as it is. ``folders/`` has an index for each folder that clients
build: path, the client's stamp of the file, its digest. A stamp changes whenever a file does.

Laws:
- A file appears under its name by one rename, after its bytes were hashed by this engine.
- What is held is a cache: it is emptied when the host was restarted, for its files are never synced, and the
  folders that were built longest ago go when it grows beyond its limit; never while a session is open.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import msgspec

from sampan.errors import InvalidArgument
from sampan.images.directories import spread
from sampan.wire import sessions

LIMIT = 4 << 30  # bytes
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CAPABILITY = "security.capability"
_PIECE = 1 << 20
_TOGETHER = 4000
"""Files that are made in one directory: the next goes to another part of the disk, see ``spread``."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a context as its client describes it. ``seconds`` is its time; ``stamp`` is empty where the
    client cannot vouch for it."""

    number: int
    kind: str
    mode: int
    size: int
    seconds: int
    stamp: str
    capability: str
    path: str
    link: str

    def held_as(self, digest: str) -> str:
        """The name of the file with these contents and this look."""
        extra = f".{self.capability}" if self.capability else ""
        return f"{digest}.{self.size}.{self.mode:o}.{self.seconds}{extra}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """``size`` in bytes, ``used_ns`` since the epoch."""

    size: int
    used_ns: int
    in_use: bool


Index = dict[str, tuple[str, str]]
"""(stamp, digest) by path."""

_INDEX = msgspec.msgpack.Decoder(Index)


class HeldFiles:
    """Everything below ``root``, which need not be there. Methods block: callers use threads."""

    def __init__(self, root: str, boot_id: str, limit: int = LIMIT) -> None:
        self._root = root
        self._files = f"{root}/files"
        self._folders = f"{root}/folders"
        self._boot_id = boot_id
        self._limit = limit
        self._names: dict[str, int] = {}
        self._by_digest: dict[str, str] = {}
        self._sizes: set[int] = set()
        self._ready = False
        self._open = 0
        self._partial = 0
        self._place = ""

    @contextmanager
    def session(self) -> Iterator[None]:
        """While inside nothing that is held goes away."""
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    def clear(self) -> None:
        """Remove what an earlier daemon was receiving."""
        shutil.rmtree(f"{self._root}/partial", ignore_errors=True)

    def prepare(self) -> None:
        """Read what is there; before anything else. Idempotent."""
        if self._ready:
            return
        mark = f"{self._root}/boot"
        with suppress(OSError), open(mark, encoding="ascii") as file:
            if file.read() != self._boot_id:
                shutil.rmtree(self._root, ignore_errors=True)
        self.clear()
        for path in (self._files, self._folders, f"{self._root}/partial"):
            os.makedirs(path, mode=0o700, exist_ok=True)
        spread(f"{self._root}/partial")
        with open(mark, "w", encoding="ascii") as file:
            file.write(self._boot_id)
        for name in os.listdir(self._files):
            self._know(name)
        self._ready = True

    def _know(self, name: str) -> None:
        digest, size, *_ = name.split(".")
        self._names[name] = int(size)
        self._by_digest[digest] = name
        self._sizes.add(int(size))

    # ------------------------------------------------------------------ files

    def may_have(self, entry: Entry) -> bool:
        """Whether it is worth while to ask for the file's digest."""
        return entry.size in self._sizes

    def has(self, entry: Entry, digest: str) -> bool:
        """Whether the file is here; one that differs by its look alone is made of the one that is."""
        name = entry.held_as(digest)
        if name in self._names:
            return True
        other = self._by_digest.get(digest)
        if other is None or self._names[other] != entry.size:
            return False
        place = self.place()
        try:
            with open(f"{self._files}/{other}", "rb") as source, open(place, "xb") as target:
                shutil.copyfileobj(source, target, _PIECE)
            fd = os.open(place, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        self.keep(fd, place, entry, digest)
        return True

    def place(self) -> str:
        """A path for a file that is not complete."""
        if self._partial % _TOGETHER == 0:
            self._place = f"{self._root}/partial/{self._partial}-{time.monotonic_ns()}"
            os.mkdir(self._place, 0o700)
        self._partial += 1
        return f"{self._place}/{self._partial}"

    def keep(self, fd: int, place: str, entry: Entry, digest: str) -> None:
        """The file at ``place`` is complete: ``fd`` writes to it, and is closed."""
        name = entry.held_as(digest)
        try:
            os.fchmod(fd, entry.mode)
            if entry.capability:
                os.setxattr(fd, _CAPABILITY, bytes.fromhex(entry.capability))
            os.utime(fd, (entry.seconds, entry.seconds))
        finally:
            os.close(fd)
        os.rename(place, f"{self._files}/{name}")
        self._know(name)

    def link(self, entry: Entry, digest: str, path: str) -> None:
        """Have the file at ``path``, where nothing is."""
        place = f"{self._files}/{entry.held_as(digest)}"
        try:
            os.link(place, path)
        except OSError:  # it has as many links as the file system allows
            shutil.copy2(place, path)

    # ------------------------------------------------------------------ folders

    def index(self, folder: str) -> Index:
        """What is known of a folder's files, and still held by look or by digest."""
        try:
            with open(f"{self._folders}/{_key(folder)}", "rb") as file:
                return _INDEX.decode(file.read())
        except (OSError, msgspec.MsgspecError):
            return {}

    def remember(self, folder: str, index: Index) -> None:
        """Keep the index of a folder."""
        place = self.place()
        with open(place, "xb") as file:
            file.write(msgspec.msgpack.encode(index))
        os.rename(place, f"{self._folders}/{_key(folder)}")

    def used(self, folder: str, seconds: float | None = None) -> None:
        """It was built at this time, or just now."""
        with suppress(OSError):
            os.utime(f"{self._folders}/{_key(folder)}", None if seconds is None else (seconds, seconds))

    # ------------------------------------------------------------------ what it takes

    def usage(self) -> Usage:
        """What it takes of the disk, but for files that layers have too."""
        self.prepare()
        own, used = 0, 0
        for entry in os.scandir(self._files):
            there = entry.stat(follow_symlinks=False)
            own += there.st_size if there.st_nlink == 1 else 0
        for entry in os.scandir(self._folders):
            used = max(used, entry.stat().st_mtime_ns)
        return Usage(size=own, used_ns=used, in_use=self._open > 0)

    @property
    def size(self) -> int:
        """Bytes of all that is held."""
        return sum(self._names.values())

    def trim(self, limit: int | None = None) -> int:
        """Let go of what was built longest ago until the rest fits: the bytes that went. None: our limit."""
        wanted = self._limit if limit is None else limit
        if self._open or not self._ready or self.size <= wanted:
            return 0
        before = self.usage().size
        folders = sorted(os.scandir(self._folders), key=lambda one: one.stat().st_mtime_ns, reverse=True)
        needed: set[str] = set()
        for one in folders:
            digests = set(self._digests(one.path))
            if self._sum(needed | digests) > wanted:
                os.unlink(one.path)
            else:
                needed |= digests
        for name in list(self._names):
            if name.split(".")[0] not in needed:
                with suppress(FileNotFoundError):
                    os.unlink(f"{self._files}/{name}")
                del self._names[name]
        self._by_digest = {name.split(".")[0]: name for name in self._names}
        self._sizes = set(self._names.values())
        return before - self.usage().size

    def _digests(self, path: str) -> Iterable[str]:
        try:
            with open(path, "rb") as file:
                return [digest for _, digest in _INDEX.decode(file.read()).values()]
        except (OSError, msgspec.MsgspecError):
            return ()

    def _sum(self, digests: set[str]) -> int:
        return sum(size for name, size in self._names.items() if name.split(".")[0] in digests)


def _key(folder: str) -> str:
    return hashlib.sha256(folder.encode("utf-8", "surrogateescape")).hexdigest()


class Receiver:
    """Takes what ``fetch`` brings: the files ``wanted``, in their order. ``found`` is the digest and whether
    the file stayed the same while it was read, by number; files that are gone are not in it."""

    def __init__(self, held: HeldFiles, wanted: Iterable[Entry]) -> None:
        self._held = held
        self._wanted = iter(wanted)
        self._rest = b""
        self._entry: Entry | None = None
        self._left = 0
        self._fd = -1
        self._place = ""
        self._hasher = hashlib.sha256()
        self.found: dict[int, tuple[str, bool]] = {}
        self.received = 0
        """Bytes of files."""

    def feed(self, pieces: Iterable[bytes]) -> None:
        """Take more of it. InvalidArgument for what was not asked for."""
        for piece in pieces:
            data = self._rest + piece if self._rest else piece
            self._rest = b""
            at = 0
            while at < len(data):
                before = at
                at = self._take(data, at)
                if at == before:
                    self._rest = data[at:]
                    break

    def _take(self, data: bytes, at: int) -> int:
        """Take one thing that begins at ``at``; where the next begins, ``at`` if it is not complete."""
        if self._entry is None:
            return self._begin(data, at)
        if self._left:
            piece = data[at : at + self._left]
            self._hasher.update(piece)
            _write(self._fd, piece)
            self._left -= len(piece)
            return at + len(piece)
        entry, fd, self._fd, self._entry = self._entry, self._fd, -1, None
        digest = self._hasher.hexdigest()
        self._held.keep(fd, self._place, entry, digest)
        self.found[entry.number] = digest, data[at] == 1
        return at + 1

    def _begin(self, data: bytes, at: int) -> int:
        if len(data) - at < sessions.FILE.size:
            return at
        number, size = sessions.FILE.unpack_from(data, at)
        entry = next(self._wanted, None)
        if entry is None or number != entry.number or size not in (entry.size, sessions.GONE):
            raise InvalidArgument("the client sends a file that it was not asked for")
        at += sessions.FILE.size
        if size == sessions.GONE:
            return at
        self._entry, self._left = entry, size
        self._hasher = hashlib.sha256()
        self._place = self._held.place()
        self._fd = os.open(self._place, _NEW, 0o600)
        self.received += size
        return at

    def finish(self) -> None:
        """It has all come. InvalidArgument if it has not."""
        if self._entry is not None or self._rest or next(self._wanted, None) is not None:
            raise InvalidArgument("the client ended before all files were sent")

    def close(self) -> None:
        """Remove what is not complete."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            with suppress(OSError):
                os.unlink(self._place)


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


class Tree:
    """A context put together of held files below the empty directory ``root``. Idempotent for each path."""

    def __init__(self, held: HeldFiles, root: str) -> None:
        self._held = held
        self.root = root
        self._placed: set[str] = set()
        self._directories: dict[str, int] = {"": 0}

    def place(self, entries: Iterable[Entry], digests: dict[int, str]) -> None:
        """Have these entries, those above others first. InvalidArgument for a path that is none of a tree."""
        fresh: dict[str, int] = {}
        for entry in entries:
            if entry.path in self._placed:
                continue
            self._placed.add(entry.path)
            parent = entry.path.rpartition("/")[0]
            if parent not in self._directories:
                raise InvalidArgument(f"the client lists {entry.path} without its folder")
            path = f"{self.root}/{entry.path}"
            if entry.kind == "d":
                os.mkdir(path)
                os.chmod(path, entry.mode)
                self._directories[entry.path] = fresh[entry.path] = entry.seconds
            elif entry.kind == "l":
                os.symlink(entry.link, path)
                os.utime(path, (entry.seconds, entry.seconds), follow_symlinks=False)
            elif entry.kind == "p":
                os.mknod(path, stat.S_IFIFO | entry.mode)
                os.chmod(path, entry.mode)
                os.utime(path, (entry.seconds, entry.seconds))
            elif (digest := digests.get(entry.number)) is not None:
                self._held.link(entry, digest, path)
            fresh.setdefault(parent, self._directories[parent])
        for folder, seconds in fresh.items():
            if folder:
                os.utime(f"{self.root}/{folder}", (seconds, seconds))
