"""Packing a tree: what is in it comes out right and in order, and what changes meanwhile harms nobody."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sampan.sandbox.extract import Rules, Target, extract
from sampan.sandbox.pack import Packer, Style
from sampan.sandbox.source import Source


def packed(work: Callable[[Packer], object], style: Style | None = None) -> bytes:
    """What a packer writes, finished."""
    read, write = os.pipe()
    pieces: list[bytes] = []

    def take() -> None:
        while piece := os.read(read, 1 << 16):
            pieces.append(piece)

    taking = threading.Thread(target=take)
    taking.start()
    try:
        packer = Packer(write, style)
        work(packer)
        packer.finish()
    finally:
        os.close(write)
        taking.join()
        os.close(read)
    return b"".join(pieces)


def tree(path: Path, *, style: Style | None = None, name: bytes | None = None, prefix: bytes = b"") -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return packed(lambda packer: packer.tree(fd, name, prefix), style)
    finally:
        os.close(fd)


def members(archive: bytes) -> list[tarfile.TarInfo]:
    return tarfile.open(fileobj=io.BytesIO(archive)).getmembers()


def unpacked(archive: bytes, onto: Path) -> None:
    """Through the engine's own extractor."""
    fd = os.open(onto, os.O_RDONLY)
    mask = os.umask(0)
    try:
        extract(Source(iter([archive])), Target(fd=fd, anchor=fd, path=b"."), Rules(chown=False))
    finally:
        os.umask(mask)
        os.close(fd)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


def test_kinds_modes_and_order(place: Path) -> None:
    (place / "b").mkdir(mode=0o750)
    (place / "b/x").write_bytes(b"x" * 70_000)
    (place / "a").write_text("a")
    (place / "a").chmod(0o4711)
    os.symlink("nowhere/at/all", place / "c")
    os.mkfifo(place / "d", 0o600)
    os.link(place / "a", place / "b/again")
    found = members(tree(place))
    assert [(one.name, one.type, one.linkname) for one in found] == [
        ("a", tarfile.REGTYPE, ""),
        ("b", tarfile.DIRTYPE, ""),
        ("b/again", tarfile.LNKTYPE, "a"),
        ("b/x", tarfile.REGTYPE, ""),
        ("c", tarfile.SYMTYPE, "nowhere/at/all"),
        ("d", tarfile.FIFOTYPE, ""),
    ]
    assert found[0].mode == 0o4711
    assert found[3].size == 70_000


def test_equal_trees_give_equal_bytes_whatever_the_order_they_were_made_in(tmp_path: Path) -> None:
    archives = []
    for number, names in enumerate((("one", "two", "three"), ("three", "one", "two"))):
        place = tmp_path / str(number)
        place.mkdir()
        for name in names:
            (place / name).write_text(name)
            os.utime(place / name, ns=(0, 1_600_000_000_123_456_789))
        archives.append(tree(place))
    assert archives[0] == archives[1]
    assert {one.mtime for one in members(archives[0])} == {1_600_000_000}


def test_names_begin_as_asked_and_may_be_any_bytes(place: Path) -> None:
    long = "n" * 200
    (place / long).write_text("1")
    (place / os.fsdecode(b"\xff\xfe")).write_text("2")
    found = members(tree(place, name=b"top/", prefix=b"top/"))
    assert [one.name for one in found] == ["top", f"top/{long}", "top/" + os.fsdecode(b"\xff\xfe")]


def test_a_tree_deeper_than_the_descriptors_that_are_kept(place: Path) -> None:
    here, depth = place, 150
    for _ in range(depth):
        (here / "z").write_text("after the directory")
        here /= "d"
        here.mkdir()
    found = members(tree(place))
    assert len(found) == 2 * depth
    assert sum(one.isdir() for one in found) == depth


@pytest.mark.parametrize("sparse", [False, True])
def test_holes(place: Path, tmp_path: Path, *, sparse: bool) -> None:
    with open(place / "holes", "wb") as file:
        file.seek(3 << 20)
        file.write(b"data" * 1000)
        file.truncate(9 << 20)
    with open(place / "nothing", "wb") as file:
        file.truncate(2 << 20)
    archive = tree(place, style=Style(sparse=sparse))
    assert (len(archive) < 64 << 10) == sparse
    (tmp_path / "out").mkdir()
    unpacked(archive, tmp_path / "out")
    for name in ("holes", "nothing"):
        assert (tmp_path / "out" / name).read_bytes() == (place / name).read_bytes()
    for name, one in zip(("holes", "nothing"), members(archive), strict=True):
        assert one.name == name  # Python's reader knows the map, too
        assert one.size == (place / name).stat().st_size


def test_user_attributes_travel_and_overlay_ones_do_not(place: Path, tmp_path: Path) -> None:
    (place / "f").write_text("f")
    try:
        os.setxattr(place / "f", "user.colour", b"red")
        os.setxattr(place / "f", "user.overlay.origin", b"x")
    except OSError:
        pytest.skip("no attributes here")
    (tmp_path / "out").mkdir()
    unpacked(tree(place), tmp_path / "out")
    assert os.listxattr(tmp_path / "out/f") == ["user.colour"]


def test_a_whiteout_becomes_a_mark(place: Path) -> None:
    try:
        os.mknod(place / "gone", stat.S_IFCHR, 0)
        os.link(place / "gone", place / "too")  # overlayfs has one node for all
    except PermissionError:
        pytest.skip("no whiteouts here")
    found = members(tree(place, style=Style(overlay=True)))
    assert [(one.name, one.type, one.size) for one in found] == [
        (".wh.gone", tarfile.REGTYPE, 0),
        (".wh.too", tarfile.REGTYPE, 0),
    ]


def test_a_fifo_or_link_in_place_of_a_file_is_not_read(place: Path) -> None:
    """As a race would have it: the name was a file when its directory was listed."""
    os.mkfifo(place / "f")
    os.symlink("/etc/passwd", place / "l")
    fd = os.open(place, os.O_RDONLY)
    try:
        link = members(packed(lambda packer: packer._entry(fd, b"l", b"l", is_file=True)))
        assert [(one.name, one.linkname) for one in link] == [("l", "/etc/passwd")]
        assert members(packed(lambda packer: packer._entry(fd, b"f", b"f", is_file=True))) == []
        assert members(packed(lambda packer: packer._entry(fd, b"gone", b"gone", is_file=True))) == []
    finally:
        os.close(fd)


def test_one_file_under_another_name(place: Path) -> None:
    (place / "f").write_text("content")
    fd = os.open(place, os.O_RDONLY)
    archive = packed(lambda packer: packer.file(fd, b"f", b"other"))
    os.close(fd)
    assert [one.name for one in members(archive)] == ["other"]
    assert len(archive) == 2048  # header, data, end: what docker cp tells of a small file
