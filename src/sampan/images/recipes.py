"""How a layer's plain archive is made again from its files: the archive without what the files hold.

Theory: a recipe is the archive's bytes in order, where the contents of a regular file are replaced by its
name and size. Headers, padding and whatever trails stay as they came, compressed; so unknown pax keys, odd
orders and other writers' habits come back as they were.

Laws:
- A recipe is written only after the archive was made from it, out of the files as they lie there, with the
  digest that it had. What cannot be (a name that comes twice, a sparse member that is most of the layer) has
  none.
- A recipe of no bytes says that the archive was tried and has none.
- It lies beside the layer's files and goes with them; it is on the disk when ``record`` returns.

Format: ``_MAGIC``, the plain archive's size in bytes (8, little-endian), and a gzip stream of records: a kind
(1 byte), a length (8) and as many bytes, which are the archive's own, or a name, followed by a size (8).
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

from sampan.errors import Failure, Internal
from sampan.linux.process import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from sampan.sandbox.source import Source
from sampan.spec.digest import Digest
from sampan.wire import tar

NAME = "recipe"
"""Beside a layer's files."""
_MAGIC = b"sampan recipe 1\n"
_SIZE = struct.Struct("<Q")
_RECORD = struct.Struct("<BQ")
_LITERAL, _CONTENTS = 0, 1
_GATHERED = 1 << 18  # bytes of a literal record
_PIECE = 1 << 20
_BLOCK = 4096
"""Bytes that a recipe must save at least, or it is not worth its file."""
_MARK = b".wh."
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOATIME
_RESOLVE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS


class _Unfit(Exception):
    """There is no recipe for this archive, or none that is worth it."""


def record(
    place: str, files: str, archive: int, kind: str, diff_id: Digest, ended: Callable[[], bool]
) -> bool:
    """Write the recipe of an open ``archive``, compressed as ``kind``, into the directory ``place``: whether
    there is one. ``files`` is where it was unpacked.

    Blocks. ``ended`` is asked now and then whether to give up, without a trace. OSError if the host fails.
    """
    target = f"{place}/{NAME}"
    unfinished = f"{target}.new"
    try:
        with open(unfinished, "wb") as out:
            os.fchmod(out.fileno(), 0o600)
            try:
                most = os.fstat(archive).st_size - _BLOCK
                _write(out, Source(archive, kind), most, ended)
                out.flush()
                if make(unfinished, files, lambda _piece: None, ended) != diff_id:
                    raise _Unfit
            except (Failure, _Unfit):
                if ended():
                    return False
                out.truncate(0)
            out.flush()
            fit = os.fstat(out.fileno()).st_size > 0
            os.fsync(out.fileno())
        os.rename(unfinished, target)
        directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return fit
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)


def plain_size(path: str) -> int | None:
    """Bytes of the archive that the recipe at ``path`` makes; None if there is none."""
    try:
        with open(path, "rb") as file:
            return _head(file)
    except (OSError, Internal):
        return None


def make(
    path: str, files: str, write: Callable[[bytes], None], ended: Callable[[], bool] = lambda: False
) -> Digest:
    """Write the archive of the recipe at ``path`` out of ``files``; the digest of what was written.

    Internal if a file is not there any more, or the recipe is damaged. Blocks.
    """
    hasher = hashlib.sha256()
    try:
        root = os.open(files, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with open(path, "rb") as file:
                _head(file)
                with gzip.GzipFile(fileobj=file) as records:
                    for piece in _pieces(records, root, ended):
                        hasher.update(piece)
                        write(piece)
        finally:
            os.close(root)
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise Internal(f"the archive cannot be made from {files}: {error}") from error
    return Digest(f"sha256:{hasher.hexdigest()}")


# ---------------------------------------------------------------------- writing


@dataclass(slots=True)
class _Records:
    """Records on their way into a recipe."""

    stream: gzip.GzipFile
    file: IO[bytes]
    most: int
    literal: bytearray = field(default_factory=bytearray)

    def keep(self, data: bytes | memoryview) -> None:
        self.literal += data
        if len(self.literal) >= _GATHERED:
            self.flush()

    def contents(self, name: bytes, size: int) -> None:
        self.flush()
        self.stream.write(_RECORD.pack(_CONTENTS, len(name)) + name + _SIZE.pack(size))

    def flush(self) -> None:
        if self.literal:
            self.stream.write(_RECORD.pack(_LITERAL, len(self.literal)))
            self.stream.write(bytes(self.literal))
            self.literal.clear()
        if self.file.tell() > self.most:
            raise _Unfit


def _write(out: IO[bytes], source: Source, most: int, ended: Callable[[], bool]) -> None:
    """Write the recipe of what ``source`` reads; ``most`` bytes are worth it."""
    out.write(_MAGIC + _SIZE.pack(0))
    size = 0
    with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=out, mtime=0) as stream:
        records = _Records(stream, out, most)
        reader, zeros = tar.HeaderReader(), 0
        while (block := source.block()) is not None:
            records.keep(block)
            size += len(block)
            if zeros == 2:
                continue  # what trails
            found = reader.block(block)
            zeros = zeros + 1 if found is None else 0
            if isinstance(found, tar.Prelude):
                data = source.take(found.size + tar.padding(found.size))
                reader.prelude(data[: found.size])
                records.keep(data)
                size += len(data)
            elif found is not None:
                size += _member(records, source, found)
                if ended():
                    raise _Unfit
        records.flush()
    if out.tell() > most:
        raise _Unfit
    out.seek(len(_MAGIC))
    out.write(_SIZE.pack(size))
    out.seek(0, os.SEEK_END)


def _member(records: _Records, source: Source, member: tar.Member) -> int:
    """Take a member's data, and what pads it: how many bytes."""
    whole = member.size + tar.padding(member.size)
    marked = member.name.rpartition(b"/")[2].startswith(_MARK)
    if member.kind == tar.REGULAR and member.sparse is None and member.size and not marked:
        records.contents(member.name, member.size)
        source.skip(member.size)
        records.keep(source.take(tar.padding(member.size)))
    else:
        for piece in source.pieces(whole):
            records.keep(piece)
    return whole


# ---------------------------------------------------------------------- reading


def _head(file: IO[bytes]) -> int:
    head = file.read(len(_MAGIC) + _SIZE.size)
    if len(head) != len(_MAGIC) + _SIZE.size or not head.startswith(_MAGIC):
        raise Internal("there is no recipe")
    return int(_SIZE.unpack(head[len(_MAGIC) :])[0])


def _pieces(records: gzip.GzipFile, root: int, ended: Callable[[], bool]) -> Iterator[bytes]:
    while head := records.read(_RECORD.size):
        kind, length = _RECORD.unpack(head)
        if kind == _LITERAL:
            yield records.read(length)
            continue
        name = os.fsdecode(records.read(length))
        (size,) = _SIZE.unpack(records.read(_SIZE.size))
        if ended():
            raise ValueError("given up")
        yield from _contents(root, name, size)


def _contents(root: int, name: str, size: int) -> Iterator[bytes]:
    fd = openat2(root, name, _OPEN, resolve=_RESOLVE)
    try:
        while size:
            data = os.read(fd, min(_PIECE, size))
            if not data:
                raise ValueError(f"{name} is shorter than it was")
            size -= len(data)
            yield data
    finally:
        os.close(fd)
