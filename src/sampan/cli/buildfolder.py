"""A folder as the context of a build that asks for its files: what is listed, digested and sent of it.

Laws:
- Only what was listed can be asked for, by number; only what lies in the folder and is not ignored is listed:
  links are followed within the folder, as if it were the root of everything.
- A file is opened without following a link, and only sent if it is the inode that was listed.
- One that shrinks while it is read is filled up with zeros, one that grows is cut; sockets and devices are no
  part of a context.
"""

from __future__ import annotations

import os
import stat
import time

from sampan.errors import Failure
from sampan.wire import sessions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 18
_LINKS = 64
_FOUND = "\0"
"""Begins a name that a pattern meant: it is no pattern again."""
_FRESH = 2_000_000_000  # ns: a file may change again within the same tick of its file system's clock
_CAPABILITY = "security.capability"
_KINDS = {stat.S_IFDIR: "d", stat.S_IFREG: "f", stat.S_IFLNK: "l", stat.S_IFIFO: "p"}


class Listed:
    """A file that was listed."""

    __slots__ = ("identity", "path", "size")

    def __init__(self, path: str, there: os.stat_result) -> None:
        self.path = path
        self.size = there.st_size
        self.identity = there.st_dev, there.st_ino


class Folder:
    """``ignores`` and ``skips`` tell of paths in ``root`` whether they, or all that is in them, stay out."""

    def __init__(self, root: str, ignores: Callable[[str], bool], skips: Callable[[str], bool]) -> None:
        self._root = root
        self._ignores = ignores
        self._skips = skips
        self._numbers: dict[str, int] = {}
        self._listed: list[Listed] = []
        self.sent = 0
        """Bytes of files."""

    # ------------------------------------------------------------------ list

    def entries(self, paths: Sequence[str]) -> Iterator[bytes]:
        """The entries of what ``paths`` mean, in pieces."""
        self._shown: set[str] = {""}
        self._gathered: list[str] = []
        self._now = time.time_ns()
        for path in paths:
            for found in self._meant(path):
                yield from self._below(found)
        yield self._taken()

    def _taken(self) -> bytes:
        data = "".join(self._gathered).encode("utf-8", "surrogateescape")
        self._gathered.clear()
        return data

    def _meant(self, path: str) -> Iterator[str]:
        """The paths that a pattern means; the links on the way are shown, and where they lead."""
        waiting: list[tuple[str, list[str], int]] = [("", path.split("/"), 0)]
        while waiting:
            base, parts, links = waiting.pop()
            while parts and parts[0] in ("", "."):
                parts = parts[1:]
            if not parts or parts[0] == "**":
                yield base
            elif parts[0] == "..":
                waiting.append((os.path.dirname(base), parts[1:], links))
            elif parts[0][0] != _FOUND and any(character in parts[0] for character in "*?[\\"):
                found = self._matching(base, parts[0])
                waiting += [(base, [_FOUND + name, *parts[1:]], links) for name in found]
            else:
                name = parts[0].removeprefix(_FOUND)
                inner = f"{base}/{name}" if base else name
                there = self._look(inner)
                if there is None:
                    continue
                if not stat.S_ISLNK(there.st_mode):
                    waiting.append((inner, parts[1:], links))
                elif links < _LINKS and not self._ignores(inner):
                    target = self._show(inner, there)
                    start = "" if target.startswith("/") else base
                    waiting.append((start, [*target.split("/"), *parts[1:]], links + 1))

    def _matching(self, folder: str, pattern: str) -> list[str]:
        import re

        from sampan.wire.ignore import translate

        there = self._look(folder)
        if there is None or not stat.S_ISDIR(there.st_mode):
            return []
        try:
            names = os.listdir(f"{self._root}/{folder}")
        except OSError as error:
            raise _failure(f"{self._root}/{folder}", error) from None
        try:
            expression = re.compile(translate(pattern.replace("**", "*")), re.DOTALL)
        except re.error:
            return []  # the engine says so
        return [name for name in names if expression.fullmatch(name)]

    def _look(self, path: str) -> os.stat_result | None:
        try:
            return os.lstat(f"{self._root}/{path}")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _failure(f"{self._root}/{path}", error) from None

    def _below(self, path: str) -> Iterator[bytes]:
        """Show what is at ``path``, and all that is in it."""
        there = self._look(path)
        if there is None:
            return
        if not stat.S_ISDIR(there.st_mode):
            if not self._ignores(path):
                self._show(path, there)
            return
        if path and self._ignores(path):
            if self._skips(path):
                return
        elif path:
            self._show(path, there)
        yield from self._contents(path)

    def _contents(self, path: str) -> Iterator[bytes]:
        place = f"{self._root}/{path}" if path else self._root
        try:
            with os.scandir(place) as entries:
                found = list(entries)
        except OSError as error:
            raise _failure(place, error) from None
        for entry in found:
            inner = f"{path}/{entry.name}" if path else entry.name
            ignored = self._ignores(inner)
            if entry.is_dir(follow_symlinks=False):
                if ignored and self._skips(inner):
                    continue
                if not ignored:
                    self._show_entry(inner, entry)
                yield from self._contents(inner)
            elif not ignored:
                self._show_entry(inner, entry)
        if len(self._gathered) > 1000:
            yield self._taken()

    def _show_entry(self, path: str, entry: os.DirEntry[str]) -> None:
        try:
            self._show(path, entry.stat(follow_symlinks=False))
        except FileNotFoundError:
            return  # removed since it was listed

    def _show(self, path: str, there: os.stat_result) -> str:
        """Show an entry, after the folders that it is in; what it says if it is a link."""
        kind = _KINDS.get(there.st_mode & 0o170000)
        if kind is None:
            return ""
        link = os.readlink(f"{self._root}/{path}") if kind == "l" else ""
        if path in self._shown:
            return link
        self._shown.add(path)
        parent = path.rpartition("/")[0]
        if parent not in self._shown:
            self._show(parent, os.lstat(f"{self._root}/{parent}"))
        stamp = capability = ""
        if kind == "f":
            if there.st_ctime_ns < self._now - _FRESH:
                stamp = f"{there.st_dev:x}.{there.st_ino:x}.{there.st_ctime_ns:x}.{there.st_mtime_ns:x}"
            if there.st_mode & 0o111:
                capability = self._capability(path)
        number = self._numbers.get(path)
        if number is None:
            number = self._numbers[path] = len(self._listed)
            self._listed.append(Listed(path, there))
        seconds = there.st_mtime_ns // 1_000_000_000
        size = self._listed[number].size if kind == "f" else 0
        self._gathered.append(
            f"{number}\0{kind}\0{there.st_mode & 0o7777:o}\0{size}\0{seconds}\0{stamp}\0{capability}\0"
            f"{path}\0{link}\0"
        )
        return link

    def _capability(self, path: str) -> str:
        try:
            return os.getxattr(f"{self._root}/{path}", _CAPABILITY, follow_symlinks=False).hex()
        except OSError:
            return ""

    # ------------------------------------------------------------------ read

    def _open(self, listed: Listed) -> int:
        """A descriptor of the inode that was listed; -1 if it is gone."""
        path = f"{self._root}/{listed.path}"
        try:
            fd = os.open(path, _FILE)
        except (FileNotFoundError, NotADirectoryError):
            return -1
        except OSError as error:
            if os.path.islink(path):
                return -1
            raise _failure(path, error) from None
        there = os.fstat(fd)
        if not stat.S_ISREG(there.st_mode) or (there.st_dev, there.st_ino) != listed.identity:
            os.close(fd)
            return -1
        return fd

    def _asked(self, number: object) -> Listed:
        if not isinstance(number, int) or not 0 <= number < len(self._listed):
            raise Failure("the engine asks for a file that is not in the context")
        return self._listed[number]

    def digests(self, numbers: Sequence[object]) -> Iterator[bytes]:
        """Of each of these files, zeros for those that are gone."""
        from hashlib import sha256

        gathered = bytearray()
        for number in numbers:
            listed = self._asked(number)
            fd = self._open(listed)
            if fd < 0:
                gathered += bytes(sessions.DIGEST)
                continue
            hasher = sha256()
            try:
                for piece in _read(fd, listed.size):
                    hasher.update(piece)
            finally:
                os.close(fd)
            gathered += hasher.digest()
            if len(gathered) >= _PIECE:
                yield bytes(gathered)
                gathered.clear()
        yield bytes(gathered)

    def fetch(self, numbers: Sequence[object]) -> Iterator[bytes]:
        """These files, packed, in pieces."""
        gathered: list[bytes] = []
        size = 0
        for number in numbers:
            listed = self._asked(number)
            fd = self._open(listed)
            if fd < 0:
                gathered.append(sessions.FILE.pack(number, sessions.GONE))
                continue
            try:
                before = os.fstat(fd)
                gathered.append(sessions.FILE.pack(number, listed.size))
                for piece in _read(fd, listed.size):
                    gathered.append(piece)
                    size += len(piece)
                    if size >= _PIECE:
                        yield b"".join(gathered)
                        gathered.clear()
                        size = 0
                after = os.fstat(fd)
            finally:
                os.close(fd)
            steady = before.st_ctime_ns == after.st_ctime_ns and after.st_size == listed.size
            gathered.append(b"\1" if steady else b"\0")
            self.sent += listed.size
            if len(gathered) >= 3000:
                yield b"".join(gathered)
                gathered.clear()
                size = 0
        yield b"".join(gathered)


def _read(fd: int, size: int) -> Iterator[bytes]:
    """So many bytes of a file."""
    while size:
        piece = os.read(fd, min(size, _PIECE)) or bytes(min(size, _PIECE))
        size -= len(piece)
        yield piece


def _failure(path: str, error: OSError) -> Failure:
    return Failure(f"error checking context: open {path}: {os.strerror(error.errno or 0).lower()}")
