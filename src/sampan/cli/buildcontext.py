"""What ``build`` sends: a folder's files as a tar stream, without those that its ignore file names.

Laws:
- Owners are not sent (they are root's), times are whole seconds: a context is the same from every machine.
- The Dockerfile and the ignore file are always sent: the engine needs them whatever they say of themselves.
- A file that shrinks while it is read is filled up with zeros, one that grows is cut; sockets are left out.

It is written with few imports, since most builds are over in a few milliseconds.
"""

from __future__ import annotations

import os
import stat

from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sampan.cli.buildfolder import Folder

IGNORE_FILE = ".dockerignore"
DOCKERFILE_LIMIT = 1 << 20  # bytes
_BLOCK = 512
_END = bytes(2 * _BLOCK)
_PIECE = 1 << 18  # bytes sent at once
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_CAPABILITY = "security.capability"
_TAIL = b"ustar\x0000" + bytes(_BLOCK - 265)
_OCTAL_LIMIT = 8**11
_NAME_LIMIT = 100

_REGULAR, _LINK, _SYMLINK, _CHARACTER, _DEVICE, _DIRECTORY, _FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_NODES = {stat.S_IFCHR: _CHARACTER, stat.S_IFBLK: _DEVICE, stat.S_IFIFO: _FIFO}


def header(
    name: bytes, kind: bytes, *, mode: int, size: int = 0, seconds: int = 0, link: bytes = b""
) -> bytes:
    """The blocks that announce a member, those for long names included."""
    before = b""
    for mark, text in ((b"L", name), (b"K", link)):
        if len(text) > _NAME_LIMIT:
            text += b"\0"
            before += _block(b"././@LongLink", mark, 0, len(text), 0, b"") + text + bytes(-len(text) % _BLOCK)
    return before + _block(name[:_NAME_LIMIT], kind, mode, size, seconds, link[:_NAME_LIMIT])


def _block(name: bytes, kind: bytes, mode: int, size: int, seconds: int, link: bytes) -> bytes:
    length = b"%011o\0" % size if size < _OCTAL_LIMIT else (size | 1 << 95).to_bytes(12, "big")
    block = b"%b%07o\x000000000\x000000000\0%b%011o\0        %b%b%b" % (
        name.ljust(_NAME_LIMIT, b"\0"),
        mode,
        length,
        seconds if 0 <= seconds < _OCTAL_LIMIT else 0,
        kind,
        link.ljust(_NAME_LIMIT, b"\0"),
        _TAIL,
    )
    return b"%b%06o\0 %b" % (block[:148], sum(block), block[156:])


class Sender:
    """Reads a folder as an archive, in pieces. ``size`` is how much of it there was so far."""

    def __init__(self, folder: str, ignores: Callable[[str], bool], skips: Callable[[str], bool]) -> None:
        self._folder = folder
        self._ignores = ignores
        self._skips = skips
        self._gathered = bytearray()
        self._links: dict[tuple[int, int], bytes] = {}
        self.size = 0

    def pieces(self, extra: dict[str, bytes]) -> Iterator[bytes]:
        """All of it; the files ``extra`` come last and in the place of those of their names."""
        self._left_out = frozenset(extra)
        yield from self._folder_at(self._folder, "")
        for name, data in extra.items():
            self._gathered += header(name.encode(), _REGULAR, mode=0o600, size=len(data))
            self._gathered += data + bytes(-len(data) % _BLOCK)
        self._gathered += _END
        yield self._taken()

    def _taken(self) -> bytes:
        data = bytes(self._gathered)
        self._gathered.clear()
        self.size += len(data)
        return data

    def _folder_at(self, path: str, name: str) -> Iterator[bytes]:
        try:
            with os.scandir(path) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise _failure("open", path, error) from None
        for entry in found:
            inner = f"{name}/{entry.name}" if name else entry.name
            if inner in self._left_out:
                continue
            ignored = self._ignores(inner)
            if entry.is_dir(follow_symlinks=False):
                if not ignored:
                    there = entry.stat(follow_symlinks=False)
                    self._add(os.fsencode(inner) + b"/", _DIRECTORY, there)
                elif self._skips(inner):
                    continue
                yield from self._folder_at(entry.path, inner)
            elif not ignored:
                yield from self._file(entry, os.fsencode(inner))
            if len(self._gathered) >= _PIECE:
                yield self._taken()

    def _add(self, name: bytes, kind: bytes, there: os.stat_result, link: bytes = b"", size: int = 0) -> None:
        seconds = int(there.st_mtime_ns // 1_000_000_000)
        mode = stat.S_IMODE(there.st_mode)
        self._gathered += header(name, kind, mode=mode, size=size, seconds=seconds, link=link)

    def _file(self, entry: os.DirEntry[str], name: bytes) -> Iterator[bytes]:
        try:
            there = entry.stat(follow_symlinks=False)
            if there.st_nlink > 1:
                known = self._links.setdefault((there.st_dev, there.st_ino), name)
                if known != name:
                    self._add(name, _LINK, there, known)
                    return
            if stat.S_ISREG(there.st_mode):
                yield from self._regular(entry.path, name)
            elif stat.S_ISLNK(there.st_mode):
                self._add(name, _SYMLINK, there, os.fsencode(os.readlink(entry.path)))
            elif (kind := _NODES.get(stat.S_IFMT(there.st_mode))) == _FIFO:
                self._add(name, kind, there)
        except FileNotFoundError:
            return  # removed since it was listed
        except OSError as error:
            raise _failure("open", entry.path, error) from None

    def _regular(self, path: str, name: bytes) -> Iterator[bytes]:
        fd = os.open(path, _FILE)
        try:
            there = os.fstat(fd)
            if not stat.S_ISREG(there.st_mode):
                return  # replaced since we looked
            size = there.st_size
            if there.st_mode & 0o111 and (records := _capability(fd)):
                pax = header(b"PaxHeaders/capability", b"x", mode=0o600, size=len(records))
                self._gathered += pax + records + bytes(-len(records) % _BLOCK)
            self._add(name, _REGULAR, there, size=size)
            left = size
            while left:
                data = os.read(fd, min(left, _PIECE)) or bytes(min(left, _PIECE))
                self._gathered += data
                left -= len(data)
                if len(self._gathered) >= _PIECE:
                    yield self._taken()
            self._gathered += bytes(-size % _BLOCK)
        finally:
            os.close(fd)


def _capability(fd: int) -> bytes:
    """The record that carries a program's capabilities; nothing for one that has none."""
    try:
        value = os.getxattr(fd, _CAPABILITY)
    except OSError:
        return b""
    body = b" SCHILY.xattr." + _CAPABILITY.encode() + b"=" + value + b"\n"
    length = len(body) + len(str(len(body)))
    length = len(body) + len(str(length))
    return str(length).encode() + body


def _failure(what: str, path: str, error: OSError) -> Failure:
    return Failure(f"error checking context: {what} {path}: {os.strerror(error.errno or 0).lower()}")


# ------------------------------------------------------------------ which folder, which Dockerfile


class Found:
    """A folder to send. ``dockerfile`` is the Dockerfile's name in it; ``extra`` files come with it."""

    __slots__ = ("dockerfile", "extra", "folder", "patterns")

    def __init__(self, folder: str, dockerfile: str, patterns: list[str], extra: dict[str, bytes]) -> None:
        self.folder = folder
        self.dockerfile = dockerfile
        self.patterns = patterns
        self.extra = extra

    def text(self) -> str:
        """The text of the Dockerfile. Failure if it is too long for any engine."""
        data = self.extra.get(self.dockerfile)
        if data is None:
            data = _read(f"{self.folder}/{self.dockerfile}")
        if len(data) > DOCKERFILE_LIMIT:
            raise Failure(f"{self.shown} is larger than {DOCKERFILE_LIMIT} bytes")
        return data.decode("utf-8", "surrogateescape")

    @property
    def shown(self) -> str:
        """What messages call the Dockerfile."""
        return "Dockerfile" if self.extra else os.path.basename(self.dockerfile)

    @property
    def key(self) -> str:
        """The folder, told from those of other machines."""
        try:
            with open("/etc/machine-id", encoding="ascii") as file:
                return f"{file.read().strip()}:{self.folder}"
        except (OSError, ValueError):
            return self.folder

    def watched(self) -> Folder:
        """The folder, to be asked for its files. Raises InvalidArgument for a malformed pattern."""
        return watched(self.folder, self.patterns)

    def sender(self) -> Sender:
        """Raises InvalidArgument for a malformed pattern."""
        if not self.patterns:
            return Sender(self.folder, _nothing, _nothing)
        from sampan.wire.ignore import Matcher

        matcher = Matcher(self.patterns)
        own = (IGNORE_FILE, self.dockerfile, f"{self.dockerfile}{IGNORE_FILE}")
        needed = [name for name in own if matcher.ignores(name)]
        if needed:
            matcher = Matcher([*self.patterns, *(f"!{name}" for name in needed)])
        return Sender(self.folder, matcher.ignores, matcher.skips)


def ignored_in(folder: str) -> list[str]:
    """The patterns of a folder's own ignore file."""
    return _patterns(f"{folder}/{IGNORE_FILE}")


def watched(folder: str, patterns: list[str]) -> Folder:
    """A folder to be asked for its files, without those that are ignored."""
    from sampan.cli.buildfolder import Folder

    if not patterns:
        return Folder(folder, _nothing, _nothing)
    from sampan.wire.ignore import Matcher

    matcher = Matcher(patterns)
    return Folder(folder, matcher.ignores, matcher.skips)


def _nothing(_path: str) -> bool:
    return False


def find(path: str, file: str, stdin: Callable[[], bytes]) -> Found:
    """The context at ``path`` with the Dockerfile ``file`` ("": the usual one, "-": what ``stdin`` gives).

    Raises Failure in Docker's words.
    """
    if not os.path.lexists(path):
        raise _unprepared(f"path {_quoted(path)} not found")
    folder = os.path.realpath(path)
    if not os.path.isdir(folder):
        raise _unprepared(f"context must be a directory: {path}")
    if file == "-":
        return _with(folder, stdin(), "")
    place = os.path.abspath(file) if file else f"{folder}/Dockerfile"
    if not file and not os.path.lexists(place) and os.path.lexists(f"{folder}/dockerfile"):
        place = f"{folder}/dockerfile"
    real = os.path.realpath(place)
    if not os.path.exists(real):
        raise _unprepared(
            f"unable to evaluate symlinks in Dockerfile path: lstat {place}: no such file or directory"
        )
    name = os.path.relpath(real, folder)
    if name == ".." or name.startswith("../"):
        return _with(folder, _read(real), real)
    own = f"{name}{IGNORE_FILE}"
    ignore = own if os.path.exists(f"{folder}/{own}") else IGNORE_FILE
    return Found(folder, name, _patterns(f"{folder}/{ignore}"), {})


def _with(folder: str, dockerfile: bytes, path: str) -> Found:
    """A context whose Dockerfile is not in it: sent under a name that nothing else has."""
    from binascii import hexlify

    name = f".dockerfile.{hexlify(os.urandom(10)).decode()}"
    own = f"{path}{IGNORE_FILE}"
    place = own if path and os.path.exists(own) else f"{folder}/{IGNORE_FILE}"
    patterns = _patterns(place)
    # The engine reads this one; no COPY is to see the Dockerfile that was not there.
    lines = "".join(f"{pattern}\n" for pattern in (*patterns, name))
    return Found(
        folder, name, patterns, {name: dockerfile, f"{name}{IGNORE_FILE}": f"{lines}{name}*\n".encode()}
    )


def _patterns(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _failure("open", path, error) from None
    from sampan.wire.ignore import read

    return read(text)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read() or b""
    except OSError as error:
        raise Failure(
            f"unable to open Dockerfile: open {path}: {os.strerror(error.errno or 0).lower()}"
        ) from None


def _unprepared(why: str) -> Failure:
    return Failure(f"unable to prepare context: {why}")


def _quoted(text: str) -> str:
    from sampan.wire.quoting import quoted

    return quoted(text)


def single(dockerfile: bytes) -> bytes:
    """A context of a Dockerfile alone."""
    head = header(b"Dockerfile", _REGULAR, mode=0o600, size=len(dockerfile))
    return head + dockerfile + bytes(-len(dockerfile) % _BLOCK) + _END


_ARCHIVES = (b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")


def is_archive(start: bytes) -> bool:
    """Whether input that begins so is a tar, compressed or not, and no Dockerfile."""
    return start[257:262] == b"ustar" or start.startswith(_ARCHIVES)
