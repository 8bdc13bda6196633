"""Unpacking a layer: what archives hold comes out right, and hostile ones reach nothing outside.

Everything here runs without privileges; owners, devices and attributes are in tests/root/images.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.errors import InvalidArgument
from sampan.linux import tree
from sampan.sandbox.members import quoted
from sampan.sandbox.source import Source
from sampan.sandbox.unpack import Limits, Unpacked, unpack
from sampan.wire import tar
from sampan.wire.tar import Member

DIR, SYM, LINK, FIFO = tar.DIRECTORY, tar.SYMLINK, tar.LINK, tar.FIFO


def entry(name: str, data: bytes = b"", **fields: object) -> bytes:
    """One member; directories, links and the like by ``kind``."""
    member = Member(name=name.encode(), size=len(data), **fields)  # type: ignore[arg-type]
    return tar.header(member) + data + bytes(tar.padding(len(data)))


def extract(archive: bytes, root: Path, limits: Limits | None = None) -> Unpacked:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        view = memoryview(archive)
        try:
            while view:
                view = view[os.write(writing, view) :]
        finally:
            os._exit(0)
    os.close(writing)
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    mask, here = os.umask(0), os.getcwd()
    try:
        return unpack(Source(reading), directory, limits)
    finally:
        os.umask(mask)
        os.chdir(here)
        os.close(directory)
        os.close(reading)
        os.waitpid(pid, 0)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """The layer's directory; beside it a file and a directory that must stay as they are."""
    layer = tmp_path / "layer"
    layer.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    yield layer
    assert sorted(os.listdir(tmp_path)) == ["layer", "outside"]
    assert sorted(os.listdir(outside)) == ["kept"]
    assert (outside / "kept").read_text() == "kept"
    assert (outside / "kept").stat().st_nlink == 1
    if layer.exists():
        fd = os.open(tmp_path, os.O_RDONLY)
        tree.remove_tree(fd, "layer")
        os.close(fd)


def test_files_directories_and_links(root: Path) -> None:
    found = extract(
        entry("./", kind=DIR, mode=0o751)
        + entry("d/", kind=DIR, mode=0o2750, mtime=5 * tar.SECOND)
        + entry("d/f", b"hello", mode=0o4711, mtime=1_600_000_000_123_456_789)
        + entry("d/s", kind=SYM, link=b"../../anywhere", mtime=7 * tar.SECOND)
        + entry("e/h", kind=LINK, link=b"d/f")
        + entry("p", kind=FIFO, mode=0o640)
        + tar.END,
        root,
    )
    file = (root / "d/f").stat()
    assert (root / "d/f").read_bytes() == b"hello"
    assert stat.S_IMODE(file.st_mode) == 0o4711
    assert file.st_mtime_ns == 1_600_000_000_123_456_789
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o2750
    assert (root / "d").stat().st_mtime_ns == 5 * tar.SECOND
    assert stat.S_IMODE(root.stat().st_mode) == 0o751
    assert os.readlink(root / "d/s") == "../../anywhere"
    assert os.lstat(root / "d/s").st_mtime_ns == 7 * tar.SECOND
    assert (root / "e/h").stat().st_ino == file.st_ino
    assert stat.S_ISFIFO((root / "p").stat().st_mode)
    assert (found.size, found.entries, found.implied) == (5 + len("../../anywhere"), 6, ["e"])


def test_an_archive_without_an_end_mark_and_an_empty_one(root: Path) -> None:
    extract(entry("a", b"x"), root)
    assert (root / "a").read_bytes() == b"x"
    assert extract(b"", root).entries == 0
    assert extract(tar.END, root).entries == 0


def test_data_across_buffers_is_whole(root: Path) -> None:
    data = os.urandom(3_000_001)
    extract(entry("a", data) + entry("b", data[:7]) + tar.END, root)
    assert (root / "a").read_bytes() == data
    assert (root / "b").read_bytes() == data[:7]


def test_names_are_read_as_below_the_layer(root: Path) -> None:
    extract(entry("/etc/a", b"1") + entry("x/../b", b"2") + entry(".//c/./d", b"3") + tar.END, root)
    assert (root / "etc/a").read_bytes() == b"1"
    assert (root / "b").read_bytes() == b"2"
    assert (root / "c/d").read_bytes() == b"3"


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (entry("../outside/kept", b"bad"), '"../outside/kept": leads out of the layer'),
        (entry("a/../../outside/kept", b"bad"), "leads out of the layer"),
        (entry("..", kind=DIR), "leads out of the layer"),
        (entry("a/..", b"x"), "names the root"),
        (entry(".", b"x"), "names the root"),
        (entry("h", kind=LINK, link=b"../outside/kept"), "leads out of the layer"),
        (entry("h", kind=LINK, link=b"/outside/kept"), "which is not in the layer"),
        (entry("h", kind=LINK, link=b"."), "root of the layer"),
        (entry("d/", kind=DIR) + entry("h", kind=LINK, link=b"d"), "which is a directory"),
        (entry("h", kind=LINK, link=b"h"), "which is not in the layer"),
        (entry("f", b"x") + entry("f/g", b"y"), '"f/g": its parent "f": not a directory'),
        (entry("l", kind=SYM, link=b"l") + entry("l/g", b"y"), '"l/g": its parent: too many levels'),
        (entry("l", kind=SYM, link=b"none") + entry("l/g", b"y"), '"l/g": its parent "l": no such file'),
        (entry("n" * 300, b"x"), "file name too long"),
        (entry("d/" * 1900 + "f", b"x"), None),
        (entry(".wh.", b""), "is a whiteout of nothing"),
        (entry("d/.wh...", b""), "is a whiteout of nothing"),
        (entry("d/.wh..", b""), "is a whiteout of nothing"),
        (entry(".wh.x", kind=DIR), "is a whiteout, and a directory"),
        (entry("a", kind=b"Z"), 'unsupported type "Z"'),
        (entry("a", b"12345")[:-100], '"a": unexpected end of archive'),
        (entry("a", b"1" * 2000)[:1024], '"a": unexpected end of archive'),
        (entry("a\nb\x1b[31m/../../c", b""), r'"a\nb\x1b'),
    ],
)
def test_hostile_members_are_refused_by_name(archive: bytes, message: str | None, root: Path) -> None:
    if message is None:
        extract(archive + tar.END, root)
        return
    with pytest.raises(InvalidArgument) as caught:
        extract(entry("first", b"ok") + archive, root)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_links_out_of_the_layer_lead_to_its_root(root: Path) -> None:
    """A file written through a link of the archive lands where a container would see it."""
    for target in (b"../../outside", b"/outside", b"../outside", b"x/../../../outside"):
        extract(
            entry("outside/", kind=DIR) + entry("l", kind=SYM, link=target) + entry("l/new", b"in") + tar.END
            if not target.startswith(b"x")
            else entry("x/", kind=DIR)
            + entry("outside/", kind=DIR)
            + entry("l", kind=SYM, link=target)
            + entry("l/new", b"in")
            + tar.END,
            root,
        )
        assert (root / "outside/new").read_bytes() == b"in"


def test_links_through_links_stay_inside(root: Path) -> None:
    extract(
        entry("a", kind=SYM, link=b"..")
        + entry("b", kind=SYM, link=b"a/a/a/..")
        + entry("b/c", b"in")
        + entry("b/outside/kept", b"in")
        + tar.END,
        root,
    )
    assert (root / "c").read_bytes() == b"in"
    assert (root / "outside/kept").read_bytes() == b"in"


def test_the_last_component_is_never_followed(root: Path) -> None:
    extract(
        entry("l", kind=SYM, link=b"../outside/kept") + entry("l", b"mine", mode=0o600) + tar.END,
        root,
    )
    assert not (root / "l").is_symlink()
    assert (root / "l").read_bytes() == b"mine"


def test_a_hard_link_to_a_link_is_the_link(root: Path) -> None:
    extract(
        entry("l", kind=SYM, link=b"../outside/kept")
        + entry("h", kind=LINK, link=b"l")
        + entry("h", b"mine")
        + tar.END,
        root,
    )
    assert (root / "h").read_bytes() == b"mine"
    assert os.readlink(root / "l") == "../outside/kept"


def test_later_members_replace_earlier_ones(root: Path) -> None:
    extract(
        entry("a", b"old")
        + entry("a", b"new")
        + entry("d/", kind=DIR)
        + entry("d/x", b"")
        + entry("d", b"file")
        + entry("f", b"file")
        + entry("f/", kind=DIR, mode=0o700)
        + entry("f/y", b"y")
        + entry("k/", kind=DIR, mode=0o700)
        + entry("k/z", b"z")
        + entry("k/", kind=DIR, mode=0o711)
        + tar.END,
        root,
    )
    assert (root / "a").read_bytes() == b"new"
    assert (root / "d").read_bytes() == b"file"
    assert (root / "f/y").read_bytes() == b"y"
    assert (root / "k/z").read_bytes() == b"z"
    assert stat.S_IMODE((root / "k").stat().st_mode) == 0o711


def test_a_replaced_directory_is_forgotten(root: Path) -> None:
    """The descriptor of a directory that a link replaced must not be written to any more."""
    extract(
        entry("d/e/", kind=DIR)
        + entry("d/e/f", b"1")
        + entry("o/", kind=DIR)
        + entry("d", kind=SYM, link=b"o")
        + entry("d/e/f", b"2")
        + entry("d/e/g", b"3")
        + tar.END,
        root,
    )
    assert os.readlink(root / "d") == "o"
    assert (root / "o/e/f").read_bytes() == b"2"
    assert (root / "o/e/g").read_bytes() == b"3"


def test_a_link_that_replaces_its_own_parent_name(root: Path) -> None:
    extract(
        entry("d/", kind=DIR) + entry("d/s", kind=SYM, link=b".") + entry("d/s/s", b"file now") + tar.END,
        root,
    )
    assert (root / "d/s").read_bytes() == b"file now"
    with pytest.raises(InvalidArgument, match="not a directory"):
        extract(entry("d/s/x", b"") + tar.END, root)


def test_directories_get_their_looks_last(root: Path) -> None:
    extract(
        entry("d/", kind=DIR, mode=0o500, mtime=3 * tar.SECOND) + entry("d/f", b"x") + tar.END,
        root,
    )
    assert (root / "d/f").read_bytes() == b"x"
    assert (root / "d").stat().st_mtime_ns == 3 * tar.SECOND
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o500
    (root / "d").chmod(0o700)


def test_whiteouts_are_devices_and_never_hide_the_layers_own(root: Path) -> None:
    extract(
        entry("d/.wh.gone", b"")
        + entry("own", b"1")
        + entry(".wh.own", b"")
        + entry(".wh.late", b"ignored data")
        + entry("late", b"2")
        + entry("d/.wh..wh.plnk", b"")
        + tar.END,
        root,
    )
    gone = os.lstat(root / "d/gone")
    assert stat.S_ISCHR(gone.st_mode)
    assert gone.st_rdev == 0
    assert (root / "own").read_bytes() == b"1"
    assert (root / "late").read_bytes() == b"2"
    assert sorted(os.listdir(root / "d")) == ["gone"]


def test_limits_end_the_unpacking(root: Path) -> None:
    with pytest.raises(InvalidArgument, match="larger than the limit of 1000 bytes"):
        extract(entry("a", b"x" * 2000) + tar.END, root, Limits(size=1000))
    with pytest.raises(InvalidArgument, match="more than the limit of 2 entries"):
        extract(entry("b", b"") + entry("c", b"") + entry("d", b"") + tar.END, root, Limits(entries=2))


def test_many_directories_need_few_descriptors(root: Path) -> None:
    archive = b"".join(entry(f"d{i}/f", b"x") + entry(f"d{i}/l", kind=LINK, link=b"d0/f") for i in range(400))
    extract(archive + tar.END, root)
    assert len(os.listdir(root)) == 400
    assert (root / "d0/f").stat().st_nlink == 401


def sparse_archives() -> list[bytes]:
    """One file, 1 MiB of hole between two letters, in the four spellings."""
    size = 1 << 20
    data = b"a" + b"z"
    old = bytearray(tar.header(Member(name=b"s", size=2)))
    old[156:157] = b"S"
    old[257:265] = b"ustar  \0"
    for at, number in ((386, 0), (398, 1), (410, size - 1), (422, 1)):
        old[at : at + 12] = b"%011o\0" % number
    old[483:495] = b"%011o\0" % size
    old[148:156] = b"%06o\0 " % (sum(old) - sum(old[148:156]) + 256)
    body = data + bytes(510)

    def pax(*records: tuple[str, str], body: bytes = data) -> bytes:
        info = tarfile.TarInfo("GNUSparseFile.0/s")
        info.size = len(body)
        text = b""
        for key, value in records:
            line = f" {key}={value}\n"
            length = len(line) + 2 if len(line) + 2 > 9 else len(line) + 1
            length = length if len(str(length)) + len(line) == length else len(line) + len(str(length + 1))
            text += f"{length}{line}".encode()
        head = tar.header(Member(name=b"x", kind=b"x", size=0))
        block = bytearray(head)
        block[124:136] = b"%011o\0" % len(text)
        block[148:156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 256)
        return bytes(block) + text + bytes(tar.padding(len(text))) + entry("GNUSparseFile.0/s", body)

    real = ("GNU.sparse.size", str(size))
    name = ("GNU.sparse.name", "s")
    pairs = [("GNU.sparse.offset", "0"), ("GNU.sparse.numbytes", "1")]
    pairs += [("GNU.sparse.offset", str(size - 1)), ("GNU.sparse.numbytes", "1")]
    mapped = f"2\n0\n1\n{size - 1}\n1\n".encode()
    return [
        bytes(old) + body,
        pax(name, real, *pairs),
        pax(name, real, ("GNU.sparse.map", f"0,1,{size - 1},1")),
        pax(
            name,
            ("GNU.sparse.major", "1"),
            ("GNU.sparse.minor", "0"),
            ("GNU.sparse.realsize", str(size)),
            body=mapped.ljust(512, b"\0") + data,
        ),
    ]


@pytest.mark.parametrize("archive", sparse_archives(), ids=["gnu", "pax 0.0", "pax 0.1", "pax 1.0"])
def test_sparse_files_have_holes(archive: bytes, root: Path) -> None:
    extract(archive + entry("after", b"ok") + tar.END, root)
    content = (root / "s").read_bytes()
    assert (len(content), content[:2], content[-2:]) == (1 << 20, b"a\0", b"\0z")
    assert (root / "s").stat().st_blocks * 512 < 1 << 19
    assert (root / "after").read_bytes() == b"ok"


def test_a_lying_sparse_map_is_refused(root: Path) -> None:
    archive = bytearray(sparse_archives()[0])
    archive[410:422] = b"%011o\0" % (1 << 30)
    archive[148:156] = b"%06o\0 " % (sum(archive[:512]) - sum(archive[148:156]) + 256)
    with pytest.raises(InvalidArgument, match='"s": invalid sparse map'):
        extract(bytes(archive) + tar.END, root)


def test_what_tarfile_writes_comes_out_alike(root: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:") as file:
        for path in ("src", "tests"):
            for name in (f"{path}/{i}" for i in range(30)):
                info = tarfile.TarInfo(name)
                info.size = len(name)
                file.addfile(info, io.BytesIO(name.encode()))
    extract(out.getvalue(), root)
    assert {p.read_text() for p in root.rglob("*") if p.is_file()} == {
        f"{path}/{i}" for path in ("src", "tests") for i in range(30)
    }


def test_a_name_for_a_message_is_one_short_line() -> None:
    assert quoted(b"a\n\xff\x1b") == '"a\\n\\xff\\x1b"'
    assert len(quoted(b"x" * 5000)) == 202
