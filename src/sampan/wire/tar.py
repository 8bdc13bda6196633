"""Tar archives: headers to members and back. No I/O; the caller moves the bytes.

Theory: an archive is blocks of 512 bytes. A member is a header block and its data, padded to a block. Some
headers only describe the next one (GNU ``L`` and ``K``, pax ``x``) or all that follow (pax ``g``): their data
goes back into the reader. Two zero blocks end the archive.

    reader = HeaderReader()
    found = reader.block(block)       # Member | Prelude | None (a zero block)
    reader.prelude(data)              # after a Prelude, with its data

Laws: numbers, names and sizes are checked here, once; a name longer than ``NAME_LIMIT`` or a prelude longer
than ``PRELUDE_LIMIT`` is refused, so that memory stays bounded. Names are bytes, as on disk. What a member's
header says of data that its kind cannot have is ignored, as Go's archive/tar does.

Source: POSIX.1-2017 pax; GNU tar manual, "Basic Tar Format" and "Storing Sparse Files".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from zlib import adler32

from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

BLOCK = 512
NAME_LIMIT = 4096
PRELUDE_LIMIT = 4 << 20
"""Bytes; a file may have many extended attributes of up to 64 KiB."""
ID_LIMIT = 2**32 - 2
"""The largest user or group id; 2^32-1 means "unchanged" to the kernel."""
SECOND = 1_000_000_000  # ns
_TIME_LIMIT = 2**62

REGULAR, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
CONTIGUOUS, SPARSE = b"7", b"S"
_OLD_REGULAR = b"\0"
_PRELUDES = b"xgLK"
_IGNORED = b"VX"
XATTR = b"SCHILY.xattr."

_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x")
_ZERO = bytes(BLOCK)
_NO_LINK = bytes(100)
_GNU = b"ustar "
_SPARSE_AT, _SPARSE_ENTRIES, _SPARSE_EXTENDED = 386, 4, 482
_REALSIZE_AT = 483
_KNOWN_NUMBERS = 1 << 10  # an archive's headers repeat owners, modes, times and sizes


@dataclass(slots=True, kw_only=True)
class Member:
    """One entry. Not frozen, since a frozen slotted value costs as much to build as to unpack.

    ``size`` is the number of data bytes that follow, ``mtime`` and ``atime`` are in nanoseconds since the
    epoch. ``sparse`` asks for a map; see ``sparse_map``.
    """

    name: bytes
    kind: bytes = REGULAR
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    atime: int | None = None
    link: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: Mapping[str, bytes] | None = None
    sparse: Sparse | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparse:
    """How a member's data is spread over a file of ``size`` bytes: (offset, length) pairs in order.

    ``in_data``: the map is at the head of the data (pax 1.0), read it with ``data_map``.
    ``extended``: further map blocks follow the header (old GNU), read them with ``extend_map``.
    """

    size: int
    segments: tuple[tuple[int, int], ...] = ()
    in_data: bool = False
    extended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Prelude:
    """The header just read describes another one by its ``size`` bytes of data."""

    size: int


class HeaderReader:
    """The state between headers: what preludes have said about the member to come."""

    def __init__(self) -> None:
        self._global: dict[bytes, bytes] = {}
        self._records: dict[bytes, bytes] = {}
        self._sparse_pairs: list[bytes] = []
        self._kind = b""

    def block(self, block: bytes) -> Member | Prelude | None:
        """What the header in ``block`` (512 bytes) announces; None for a block of zeros."""
        if block[0] == 0 and block == _ZERO:
            return None
        fields = _HEADER.unpack(block)
        total = _number(fields[6])
        if _sum(block) - _sum(fields[6]) + 256 != total and _signed_sum(block) != total:
            raise InvalidArgument("invalid tar header: wrong checksum")
        kind = fields[7]
        if kind in _PRELUDES:
            size = _number(fields[4])
            if size > PRELUDE_LIMIT:
                raise InvalidArgument(f"invalid tar header: {size} bytes of extended header")
            self._kind = kind
            return Prelude(size=size)
        if kind in _IGNORED:
            raise InvalidArgument(f"unsupported tar member type {kind!r}")
        member = self._member(block, fields)
        if self._records:
            self._records = {}
            self._sparse_pairs = []
        return member

    def prelude(self, data: bytes) -> None:
        """Take the data of the prelude that ``block`` announced last."""
        if self._kind == b"L":
            self._records[b"path"] = data.partition(b"\0")[0]
        elif self._kind == b"K":
            self._records[b"linkpath"] = data.partition(b"\0")[0]
        else:
            records = _pax_records(data)
            target = self._global if self._kind == b"g" else self._records
            target.update(records)
            # Sparse format 0.0 repeats two keys: the map is in the order of the records.
            pairs = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
            self._sparse_pairs += [value for key, value in records if key in pairs]

    def _member(self, block: bytes, fields: tuple[bytes, ...]) -> Member:
        name = fields[0].partition(b"\0")[0]
        kind = fields[7]
        if fields[9] != _GNU and fields[9].startswith(b"ustar") and fields[15][0]:
            name = fields[15].partition(b"\0")[0] + b"/" + name
        if kind in (_OLD_REGULAR, CONTIGUOUS):
            kind = REGULAR
        member = Member(
            name=name,
            kind=kind,
            mode=_number(fields[1]) & 0o7777,
            uid=_number(fields[2]),
            gid=_number(fields[3]),
            size=_number(fields[4]),
            mtime=_signed_number(fields[5]) * SECOND,
            link=fields[8].partition(b"\0")[0],
        )
        if kind in (CHARACTER, BLOCK_DEVICE):
            member.major, member.minor = _number(fields[13]), _number(fields[14])
        if self._records or self._global:
            self._apply({**self._global, **self._records}, member)
        if kind == SPARSE:
            member.sparse = _old_sparse(block)
            member.kind = REGULAR
        elif kind == REGULAR and member.name.endswith(b"/"):
            member.kind = DIRECTORY
        return _checked(member)

    def _apply(self, records: dict[bytes, bytes], member: Member) -> None:
        """Let extended records override the header. An empty value takes a record back."""
        xattrs: dict[str, bytes] = {}
        sparse: dict[bytes, bytes] = {}
        for key, value in records.items():
            if key.startswith(XATTR):
                xattrs[_text(key[len(XATTR) :])] = value
            elif key.startswith(b"GNU.sparse."):
                sparse[key[11:]] = value
            elif value and (setter := _PAX_FIELDS.get(key)):
                setter(member, value)
        if xattrs:
            member.xattrs = xattrs
        if sparse:
            _apply_sparse(sparse, self._sparse_pairs, member)


def extend_map(sparse: Sparse, block: bytes) -> Sparse:
    """The map with the pairs of one extension block (old GNU format)."""
    return Sparse(
        size=sparse.size,
        segments=(*sparse.segments, *_pairs(block, 0, 21)),
        extended=block[504] != 0,
    )


def data_map(sparse: Sparse, lines: list[bytes]) -> Sparse | None:
    """The map whose decimal ``lines`` head the data (pax 1.0); None while more lines are needed."""
    if not lines:
        return None
    count = _decimal(lines[0])
    if count > PRELUDE_LIMIT:
        raise InvalidArgument(f"invalid sparse map: {count} entries")
    if len(lines) < 1 + 2 * count:
        return None
    numbers = [_decimal(line) for line in lines[1 : 1 + 2 * count]]
    return Sparse(size=sparse.size, segments=tuple(zip(numbers[::2], numbers[1::2], strict=True)))


def check_map(sparse: Sparse, size: int) -> None:
    """InvalidArgument unless the segments are in order, within the file, and hold ``size`` bytes together."""
    end = total = 0
    for offset, length in sparse.segments:
        if offset < end or offset + length > sparse.size:
            raise InvalidArgument("invalid sparse map")
        end = offset + length
        total += length
    if total != size:
        raise InvalidArgument("invalid sparse map")


def padding(size: int) -> int:
    """How many bytes fill ``size`` up to a whole block."""
    return -size % BLOCK


END = bytes(2 * BLOCK)
"""What ends an archive."""


def header(member: Member) -> bytes:
    """The header blocks of a member: ustar, preceded by pax records for what ustar cannot say.

    A ``sparse`` member's data begins with ``sparse_plan``, and its ``size`` counts that (pax 1.0).
    """
    records = _needed_records(member)
    prelude = b""
    if records:
        body = b"".join(_pax_record(key, value) for key, value in records)
        name = b"PaxHeaders/" + member.name.rstrip(b"/").rpartition(b"/")[2][:80]
        prelude = _ustar(Member(name=name, kind=b"x", size=len(body))) + body + bytes(padding(len(body)))
    return prelude + _ustar(member)


def sparse_plan(sparse: Sparse) -> bytes:
    """The map of a sparse file as it heads the data: decimal lines, filled up to a block."""
    numbers = [number for segment in sparse.segments for number in segment]
    lines = b"".join(b"%d\n" % number for number in (len(sparse.segments), *numbers))
    return lines + bytes(padding(len(lines)))


def _needed_records(member: Member) -> list[tuple[bytes, bytes]]:
    records: list[tuple[bytes, bytes]] = []
    if len(member.name) > 100 or not member.name.isascii():
        records.append((b"path", member.name))
    if len(member.link) > 100 or not member.link.isascii():
        records.append((b"linkpath", member.link))
    if member.uid >= 8**7:
        records.append((b"uid", b"%d" % member.uid))
    if member.gid >= 8**7:
        records.append((b"gid", b"%d" % member.gid))
    if member.size >= 8**11:
        records.append((b"size", b"%d" % member.size))
    seconds, nanoseconds = divmod(member.mtime, SECOND)
    if nanoseconds or not 0 <= seconds < 8**11:
        records.append((b"mtime", _decimal_time(member.mtime)))
    for name, value in sorted((member.xattrs or {}).items()):
        records.append((XATTR + name.encode(), value))
    if member.sparse is not None:
        records += [
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", member.name),
            (b"GNU.sparse.realsize", b"%d" % member.sparse.size),
        ]
    return records


def _ustar(member: Member) -> bytes:
    block = b"".join(
        (
            member.name[:100].ljust(100, b"\0"),
            _owned(member.mode, member.uid, member.gid),
            _octal(member.size, 11),
            _octal(member.mtime // SECOND, 11),
            b"        ",
            member.kind,
            member.link[:100].ljust(100, b"\0") if member.link else _NO_LINK,
            _plain_end(member.major, member.minor),
        )
    )
    return b"%b%06o\0 %b" % (block[:148], _sum(block), block[156:])


@lru_cache(_KNOWN_NUMBERS)
def _owned(mode: int, uid: int, gid: int) -> bytes:
    return b"%07o\0%b%b" % (mode, _octal(uid, 7), _octal(gid, 7))


@lru_cache(_KNOWN_NUMBERS)
def _plain_end(major: int, minor: int) -> bytes:
    """The block from its magic on."""
    names = bytes(64)  # of user and group
    return b"ustar\0" + b"00" + names + _octal(major, 7) + _octal(minor, 7) + bytes(167)


@lru_cache(_KNOWN_NUMBERS)
def _octal(value: int, digits: int) -> bytes:
    """Zero where the field is too small: a pax record then holds the value."""
    return b"%0*o\0" % (digits, value if 0 <= value < 8**digits else 0)


def _decimal_time(nanoseconds: int) -> bytes:
    sign = "-" if nanoseconds < 0 else ""
    seconds, rest = divmod(abs(nanoseconds), SECOND)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{sign}{seconds}{fraction}".encode()


def _pax_record(key: bytes, value: bytes) -> bytes:
    """``LENGTH key=value\\n`` whose length counts itself."""
    length = rest = len(key) + len(value) + 3
    while length != rest + len(str(length)):
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _pax_records(data: bytes) -> list[tuple[bytes, bytes]]:
    records, at = [], 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        digits = data[at:space] if space > 0 else b""
        if not digits.isdigit():
            raise InvalidArgument("invalid pax header: bad record length")
        end = at + int(digits)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end > len(data) or end <= space + 1 or data[end - 1 : end] != b"\n" or not equals:
            raise InvalidArgument("invalid pax header: bad record")
        records.append((key, value))
        at = end
    return records


def _checked(member: Member) -> Member:
    if not member.name:
        raise InvalidArgument("invalid tar header: empty name")
    if len(member.name) > NAME_LIMIT or len(member.link) > NAME_LIMIT:
        raise InvalidArgument("invalid tar header: name too long")
    if b"\0" in member.name or b"\0" in member.link:
        raise InvalidArgument("invalid tar header: NUL in name")
    if member.uid > ID_LIMIT or member.gid > ID_LIMIT:
        raise InvalidArgument("invalid tar header: user or group id out of range")
    if not -_TIME_LIMIT < member.mtime < _TIME_LIMIT:
        member.mtime = 0  # as Docker does with times that no file system can hold
    if member.kind != REGULAR:
        member.size = 0
    return member


@lru_cache(_KNOWN_NUMBERS)
def _number(field: bytes) -> int:
    """An octal or base-256 field that is not negative."""
    value = _signed_number(field)
    if value < 0:
        raise InvalidArgument("invalid tar header: negative number")
    return value


@lru_cache(_KNOWN_NUMBERS)
def _signed_number(field: bytes) -> int:
    """An octal or base-256 field."""
    if field[0] & 0x80:
        # The first bit marks the format, the second is the sign.
        value = int.from_bytes(field, "big") & ~(1 << (8 * len(field) - 1))
        if field[0] & 0x40:
            value -= 1 << (8 * len(field) - 1)
    else:
        try:
            value = int(field.strip(b"\0 ") or b"0", 8)
        except ValueError:
            raise InvalidArgument("invalid tar header: bad number") from None
    return value


def _sum(data: bytes) -> int:
    """The sum of no more than a block of bytes."""
    # Of bytes below 128 Adler-32's lower half is one more: it wraps at 65,521, which is more than 512 * 127.
    return (adler32(data) & 0xFFFF) - 1 if data.isascii() else sum(data)


def _signed_sum(block: bytes) -> int:
    """The checksum as some old tars computed it, with signed characters."""
    total = sum(byte - 256 if byte > 127 else byte for byte in block)
    return total - sum(byte - 256 if byte > 127 else byte for byte in block[148:156]) + 256


def _decimal(value: bytes) -> int:
    if not value.isdigit() or len(value) > 19:
        raise InvalidArgument("invalid pax header: bad number")
    return int(value)


def _time(value: bytes) -> int:
    """A decimal time in seconds as nanoseconds, truncated."""
    whole, _, fraction = value.partition(b".")
    negative = whole.startswith(b"-")
    seconds = _decimal(whole.lstrip(b"-") or b"0")
    nanoseconds = _decimal((fraction[:9] or b"0").ljust(9, b"0"))
    total = seconds * SECOND + nanoseconds
    return -total if negative else total


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise InvalidArgument("invalid pax header: bad attribute name") from None


def _set_path(member: Member, value: bytes) -> None:
    member.name = value


def _set_link(member: Member, value: bytes) -> None:
    member.link = value


def _set_size(member: Member, value: bytes) -> None:
    member.size = _decimal(value)


def _set_uid(member: Member, value: bytes) -> None:
    member.uid = _decimal(value)


def _set_gid(member: Member, value: bytes) -> None:
    member.gid = _decimal(value)


def _set_mtime(member: Member, value: bytes) -> None:
    member.mtime = _time(value)


def _set_atime(member: Member, value: bytes) -> None:
    member.atime = _time(value)


_PAX_FIELDS = {
    b"path": _set_path,
    b"linkpath": _set_link,
    b"size": _set_size,
    b"uid": _set_uid,
    b"gid": _set_gid,
    b"mtime": _set_mtime,
    b"atime": _set_atime,
}


def _apply_sparse(records: dict[bytes, bytes], pairs: list[bytes], member: Member) -> None:
    """The three pax spellings of a sparse file: 0.0 (repeated keys), 0.1 (one list), 1.0 (in the data)."""
    if name := records.get(b"name"):
        member.name = name
    size = records.get(b"realsize") or records.get(b"size")
    if size is None:
        return
    if records.get(b"major") == b"1":
        member.sparse = Sparse(size=_decimal(size), in_data=True)
        return
    numbers = [_decimal(n) for n in (records[b"map"].split(b",") if b"map" in records else pairs) if n]
    if len(numbers) % 2:
        raise InvalidArgument("invalid sparse map")
    member.sparse = Sparse(size=_decimal(size), segments=tuple(zip(numbers[::2], numbers[1::2], strict=True)))


def _old_sparse(block: bytes) -> Sparse:
    return Sparse(
        size=_number(block[_REALSIZE_AT : _REALSIZE_AT + 12]),
        segments=_pairs(block, _SPARSE_AT, _SPARSE_ENTRIES),
        extended=block[_SPARSE_EXTENDED] != 0,
    )


def _pairs(block: bytes, start: int, count: int) -> tuple[tuple[int, int], ...]:
    pairs = []
    for at in range(start, start + 24 * count, 24):
        if not block[at]:
            break
        pairs.append((_number(block[at : at + 12]), _number(block[at + 12 : at + 24])))
    return tuple(pairs)
