"""Tar headers, against Python's tarfile in both directions, and what is malformed."""

from __future__ import annotations

import contextlib
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import InvalidArgument
from sampan.wire import tar
from sampan.wire.tar import HeaderReader, Member, Prelude


def members(archive: bytes) -> list[tuple[Member, bytes]]:
    """All members of an archive with their data."""
    reader, at, found = HeaderReader(), 0, []
    while at < len(archive):
        header = reader.block(archive[at : at + 512])
        at += 512
        if header is None:
            break
        data = archive[at : at + header.size]
        at += header.size + tar.padding(header.size)
        if isinstance(header, Prelude):
            reader.prelude(data)
        else:
            found.append((header, data))
    return found


def by_tarfile(archive: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as file:
        return file.getmembers()


def written(info: tarfile.TarInfo, data: bytes = b"", style: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=style) as file:
        file.addfile(info, io.BytesIO(data))
    return out.getvalue()


names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=300)


@given(
    name=names.filter(lambda n: not n.endswith("/")),
    uid=st.integers(0, tar.ID_LIMIT),
    mtime=st.integers(-(10**18), 10**19),
    mode=st.integers(0, 0o7777),
)
def test_what_we_write_is_read_back_alike(name: str, uid: int, mtime: int, mode: int) -> None:
    member = Member(name=name.encode(), uid=uid, gid=uid, mtime=mtime, mode=mode, xattrs={"user.x": b"\0\n="})
    mtime_read = mtime if mtime < 2**62 else 0
    ((back, _),) = members(tar.header(member) + tar.END)
    assert (back.name, back.uid, back.gid, back.mode) == (member.name, uid, uid, mode)
    assert back.mtime == mtime_read
    assert back.xattrs == {"user.x": b"\0\n="}


@pytest.mark.parametrize("style", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["a", "d" * 100, "d/" * 60 + "f", "é" * 120, "x" * 255])
def test_names_of_any_length_in_both_formats(name: str, style: int) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, name * 2
    ((member, _),) = members(written(info, style=style))
    assert (member.name.decode(), member.link.decode()) == (name, name * 2)
    assert member.kind == tar.SYMLINK


def test_ustar_prefixes_are_joined() -> None:
    info = tarfile.TarInfo("p" * 90 + "/" + "f" * 90)
    ((member, _),) = members(written(info, style=tarfile.USTAR_FORMAT))
    assert member.name.decode() == info.name


def test_gnu_numbers_beyond_octal() -> None:
    info = tarfile.TarInfo("a")
    info.uid, info.mtime, info.size = 2**32 - 2, -5, 0
    ((member, _),) = members(written(info, style=tarfile.GNU_FORMAT))
    assert (member.uid, member.mtime) == (2**32 - 2, -5 * tar.SECOND)


def test_pax_times_keep_their_nanoseconds() -> None:
    info = tarfile.TarInfo("a")
    info.pax_headers = {"mtime": "1700000000.123456789", "atime": "-1.5"}
    ((member, _),) = members(written(info))
    assert (member.mtime, member.atime) == (1_700_000_000_123_456_789, -1_500_000_000)


def test_our_headers_are_what_tarfile_reads() -> None:
    member = Member(name=b"n" * 150, size=3, uid=2**30, mtime=1_500_000_001, mode=0o4755)
    (info,) = by_tarfile(tar.header(member) + b"abc" + bytes(509) + tar.END)
    assert (info.name, info.size, info.uid, info.mode) == ("n" * 150, 3, 2**30, 0o4755)
    assert info.mtime == pytest.approx(1.500000001)


def test_global_records_apply_until_a_member_says_otherwise() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"mtime": "7"}) as file:
        file.addfile(tarfile.TarInfo("a"))
    ((member, _),) = members(out.getvalue())
    assert member.mtime == 7 * tar.SECOND


def test_an_old_directory_is_a_file_whose_name_ends_in_a_slash() -> None:
    block = bytearray(tar.header(Member(name=b"d/")))
    block[156:157] = b"\0"
    block[148:156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 256)
    found = HeaderReader().block(bytes(block))
    assert isinstance(found, Member)
    assert found.kind == tar.DIRECTORY


def test_sizes_of_members_without_data_are_ignored() -> None:
    block = tar.header(Member(name=b"d", kind=tar.DIRECTORY, size=1000))
    found = HeaderReader().block(block)
    assert isinstance(found, Member)
    assert found.size == 0


def patched(at: int, value: bytes) -> bytes:
    block = bytearray(tar.header(Member(name=b"a", size=3)))
    block[at : at + len(value)] = value
    block[148:156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 256)
    return bytes(block)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (b"\1" * 512, "bad number|wrong checksum"),
        (tar.header(Member(name=b"a"))[:-1] + b"x", "wrong checksum"),
        (patched(124, b"9" * 11), "bad number"),
        (patched(124, b"-0000000001"), "negative number"),
        (patched(124, b"\xff" * 12), "negative number"),
        (patched(108, b"\x80\0\0\1\0\0\0\0"), "out of range"),
        (patched(0, b"\0"), "empty name"),
        (patched(156, b"V"), "unsupported tar member type"),
    ],
)
def test_a_malformed_header_is_refused(block: bytes, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        HeaderReader().block(block)


def prelude(kind: bytes, data: bytes) -> HeaderReader:
    reader = HeaderReader()
    found = reader.block(tar.header(Member(name=b"p", kind=kind, size=0))[:512])
    assert isinstance(found, Prelude)
    reader.prelude(data)
    return reader


@pytest.mark.parametrize(
    "data", [b"x", b"5 a=b", b"0 a=b\n", b"7 path\n", b"99 path=a\n", b"-1 path=a\n", b"4=\n", b"3 \n\n"]
)
def test_a_malformed_pax_record_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument, match="invalid pax header"):
        prelude(b"x", data)


@pytest.mark.parametrize(
    "record",
    [
        (b"path", b"a\0b"),
        (b"uid", b"4294967295"),
        (b"size", b"1e3"),
        (b"mtime", b"x"),
        (b"path", b"n" * 5000),
    ],
)
def test_a_record_that_a_member_cannot_have_is_refused(record: tuple[bytes, bytes]) -> None:
    key, value = record
    length = len(key) + len(value) + 3
    length += len(str(length + 2))
    reader = prelude(b"x", b"%d %s=%s\n" % (length, key, value))
    with pytest.raises(InvalidArgument):
        reader.block(tar.header(Member(name=b"a")))


def test_a_huge_prelude_is_refused_before_it_is_read() -> None:
    block = tar.header(Member(name=b"p", kind=b"g", size=tar.PRELUDE_LIMIT + 1))
    with pytest.raises(InvalidArgument, match="bytes of extended header"):
        HeaderReader().block(block[-512:])


@given(st.binary(min_size=512, max_size=512))
def test_no_block_breaks_the_reader(block: bytes) -> None:
    with contextlib.suppress(InvalidArgument):
        HeaderReader().block(block)


@given(st.binary(max_size=200), st.sampled_from([b"x", b"g", b"L", b"K"]))
def test_no_prelude_breaks_the_reader(data: bytes, kind: bytes) -> None:
    with contextlib.suppress(InvalidArgument):
        prelude(kind, data).block(tar.header(Member(name=b"a")))
