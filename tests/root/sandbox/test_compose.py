"""What COPY puts together out of trees that mean harm: nothing leaves either tree."""

from __future__ import annotations

import io
import os
import socket
import stat
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import Failure, InvalidArgument, NotFound
from sampan.sandbox.compose import Composer, Order
from sampan.sandbox.placing import Placer
from sampan.wire.ignore import Matcher

pytestmark = pytest.mark.root


class Trees:
    """The tree that files come from, and the one that the layer lies over."""

    def __init__(self, root: Path) -> None:
        self.tree = root / "tree"
        self.lower = root / "lower"
        for path in (self.tree, self.lower):
            path.mkdir()
        self.outside = root / "outside"
        self.outside.write_text("secret")
        self._count = 0

    def compose(self, *sources: str, target: str, **order: Any) -> tuple[dict[str, tarfile.TarInfo], str]:
        """The members by name, and the digest; the directory made beside the archive is what it says."""
        made = self.tree.parent / f"made{self._count}"
        self._count += 1
        made.mkdir()
        place = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
        placer = Placer(place, links=1)
        read, write = os.pipe()
        found: list[bytes] = []
        taking = threading.Thread(target=lambda: found.append(_all(read)))
        taking.start()
        tree, lower = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (self.tree, self.lower))
        try:
            composer = Composer(write, lower, tree, Order(sources=sources, target=target, **order), placer)
            composer.run()
        finally:
            for fd in (write, tree, lower, place):
                os.close(fd)
            taking.join()
            os.close(read)
        self.archive = tarfile.TarFile(fileobj=io.BytesIO(found[0]))
        members = {member.name: member for member in self.archive}
        self._check(made, members, set(placer.implied))
        return members, composer.digest

    def _check(self, made: Path, members: dict[str, tarfile.TarInfo], implied: set[str]) -> None:
        there = {str(path.relative_to(made)) for path in made.rglob("*")}
        assert there == set(members) | implied
        for name, member in members.items():
            found = os.lstat(made / name)
            assert (found.st_uid, found.st_gid, found.st_mtime_ns) == (
                member.uid,
                member.gid,
                int(member.mtime) * 10**9,
            )
            if member.issym():
                assert os.readlink(made / name) == member.linkname
                continue
            assert stat.S_IMODE(found.st_mode) == member.mode
            if member.isfile():
                assert (made / name).read_text() == self.text(name)

    def text(self, name: str) -> str:
        file = self.archive.extractfile(name)
        assert file is not None
        return file.read().decode()


def _all(fd: int) -> bytes:
    data = b""
    while piece := os.read(fd, 1 << 16):
        data += piece
    return data


@pytest.fixture
def trees(tmp_path: Path) -> Trees:
    return Trees(tmp_path)


@pytest.mark.parametrize("source", ["../outside", "a/../../outside", "/../outside", "..", "../tree/x"])
def test_a_source_cannot_climb_out(trees: Trees, source: str) -> None:
    with pytest.raises(Failure):
        trees.compose(source, target="/x")


@pytest.mark.parametrize("leads", ["../outside", "{outside}", "../../../../../../../../etc/passwd"])
def test_a_source_that_is_a_link_out_leads_nowhere(trees: Trees, leads: str) -> None:
    (trees.tree / "link").symlink_to(leads.format(outside=trees.outside))
    with pytest.raises(NotFound):
        trees.compose("link", target="/x")
    (trees.tree / "folder").symlink_to("..")
    with pytest.raises(NotFound):
        trees.compose("folder/outside", target="/x")


def test_links_below_a_folder_are_copied_as_they_are(trees: Trees) -> None:
    (trees.tree / "d").mkdir()
    (trees.tree / "d/link").symlink_to("../../outside")
    found, _ = trees.compose("d", target="/x")
    assert found["x/link"].linkname == "../../outside"
    assert found["x/link"].issym()


def test_a_link_as_a_source_is_followed_within(trees: Trees) -> None:
    (trees.tree / "file").write_text("here")
    (trees.tree / "link").symlink_to("/file")
    trees.compose("link", target="/x")
    assert trees.text("x") == "here"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.txt", {"to/a.txt", "to/b.txt"}),
        ("?.txt", {"to/a.txt", "to/b.txt"}),
        ("[a]*", {"to/a.txt"}),
        ("*/c", {"to/c"}),
        ("d/*", {"to/c"}),
    ],
)
def test_wildcards(trees: Trees, pattern: str, names: set[str]) -> None:
    for name in ("a.txt", "b.txt", "d/c"):
        (trees.tree / name).parent.mkdir(exist_ok=True)
        (trees.tree / name).write_text(name)
    found, _ = trees.compose(pattern, target="/to/")
    assert {name for name, member in found.items() if not member.isdir()} == names


def test_a_wildcard_through_a_link_out_stays_within(trees: Trees) -> None:
    (trees.tree / "out").symlink_to("../..")
    with pytest.raises(NotFound):
        trees.compose("out/outs*", target="/to/")


def test_a_link_to_nowhere_that_a_wildcard_finds_stays_a_link(trees: Trees) -> None:
    (trees.tree / "link").symlink_to("../outside")
    assert trees.compose("l*", target="/to/")[0]["to/link"].linkname == "../outside"


def test_a_link_of_the_lower_tree_on_the_way_is_followed_within(trees: Trees) -> None:
    (trees.lower / "usr").mkdir()
    (trees.lower / "bin").symlink_to("usr/bin")
    (trees.lower / "abs").symlink_to("/usr")
    (trees.lower / "up").symlink_to("../../../usr")
    (trees.tree / "f").write_text("x")
    for target in ("/bin/", "/abs/bin/", "/up/bin/"):
        found, _ = trees.compose("f", target=target)
        assert "usr/bin/f" in found
        assert not any(name.startswith(("bin", "abs", "up")) for name in found)


def test_a_loop_of_links_on_the_way_is_refused(trees: Trees) -> None:
    (trees.lower / "a").symlink_to("b")
    (trees.lower / "b").symlink_to("a")
    (trees.tree / "f").write_text("x")
    with pytest.raises(InvalidArgument, match="links"):
        trees.compose("f", target="/a/x/")


def test_a_folder_over_a_link_to_a_folder(trees: Trees) -> None:
    (trees.lower / "real").mkdir()
    (trees.lower / "name").symlink_to("real")
    (trees.tree / "d/name").mkdir(parents=True)
    (trees.tree / "d/name/f").write_text("x")
    found, _ = trees.compose("d", target="/")
    assert "real/f" in found


def test_names_with_odd_bytes(trees: Trees) -> None:
    names = [b"nl\nine", b"\xff\xfe", "ü".encode(), b"-rf", b"a b", b"x" * 200]
    (trees.tree / "d").mkdir()
    for name in names:
        with open(os.fsencode(trees.tree / "d") + b"/" + name, "w"):
            pass
    found, _ = trees.compose("d", target="/to")
    assert {os.fsencode(name) for name, member in found.items() if member.isfile()} == {
        b"to/" + name for name in names
    }


def test_devices_and_sockets_are_left_out(trees: Trees) -> None:
    (trees.tree / "d").mkdir()
    os.mknod(trees.tree / "d/dev", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mkfifo(trees.tree / "d/fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(trees.tree / "d/sock"))
        found, _ = trees.compose("d", target="/to")
    assert set(found) == {"to", "to/fifo"}


def test_owners_modes_and_times(trees: Trees) -> None:
    path = trees.tree / "f"
    path.write_text("x")
    os.chown(path, 7, 8)
    os.chmod(path, 0o4750)
    os.utime(path, (5, 5))
    found, _ = trees.compose("f", target="/deep/er/f")
    assert (found["deep/er/f"].uid, found["deep/er/f"].mode, found["deep/er/f"].mtime) == (0, 0o4750, 5)
    assert found["deep"].mode == 0o755
    found, _ = trees.compose("f", target="/f", keep_owners=True)
    assert (found["f"].uid, found["f"].gid) == (7, 8)
    found, _ = trees.compose("f", target="/d/f", owner=(3, 4), mode=0o600, epoch=2)
    assert (found["d/f"].uid, found["d/f"].gid, found["d/f"].mode, found["d/f"].mtime) == (3, 4, 0o600, 2)
    assert (found["d"].uid, found["d"].mtime) == (3, 2)


def test_the_digest_knows_contents_and_no_times(trees: Trees) -> None:
    path = trees.tree / "f"
    path.write_text("x")
    first = trees.compose("f", target="/f")[1]
    os.utime(path, (1, 1))
    assert trees.compose("f", target="/f")[1] == first
    path.write_text("y")
    changed = trees.compose("f", target="/f")[1]
    os.chmod(path, 0o600)
    assert len({first, changed, trees.compose("f", target="/f")[1]}) == 3


def test_what_is_ignored_stays_out_and_what_is_not_comes(trees: Trees) -> None:
    for name in ("keep/a", "drop/b", "drop/not/c", "x.o"):
        (trees.tree / name).parent.mkdir(parents=True, exist_ok=True)
        (trees.tree / name).write_text(name)
    ignores = Matcher(("drop", "*.o", "!drop/not/c")).ignores
    found, _ = trees.compose(".", target="/to", excluded=ignores)
    assert {name for name, member in found.items() if member.isfile()} == {"to/keep/a", "to/drop/not/c"}
    with pytest.raises(NotFound):
        trees.compose("*.o", target="/to/", excluded=ignores)
    with pytest.raises(NotFound):
        trees.compose("x.o", target="/to/", excluded=ignores)


def test_parents_keep_the_way(trees: Trees) -> None:
    (trees.tree / "a/b").mkdir(parents=True)
    os.chmod(trees.tree / "a", 0o700)
    (trees.tree / "a/b/f").write_text("x")
    found, _ = trees.compose("a/b/f", target="/to/", parents=True)
    assert found["to/a"].mode == 0o700
    assert "to/a/b/f" in found


def test_several_sources_need_a_directory(trees: Trees) -> None:
    (trees.tree / "a").write_text("a")
    (trees.tree / "b").write_text("b")
    with pytest.raises(InvalidArgument, match="more than one source"):
        trees.compose("a", "b", target="/x")
    with pytest.raises(NotFound, match="nope"):
        trees.compose("nope", target="/x")


def test_a_file_is_linked_once_in_a_layer_and_only_as_it_is(trees: Trees) -> None:
    for name in ("d/same", "d/linked", "d/precise"):
        (trees.tree / name).parent.mkdir(exist_ok=True)
        (trees.tree / name).write_text(name)
        os.utime(trees.tree / name, (7, 7))
    os.link(trees.tree / "d/linked", trees.tree / "d/other")
    os.utime(trees.tree / "d/precise", ns=(7, 7_000_000_001))
    trees.compose("d", target="/to")
    inodes = {path.name: path.stat().st_ino for path in (trees.tree / "d").iterdir()}
    made = {path.name: path.stat().st_ino for path in (trees.tree.parent / "made0/to").iterdir()}
    # Two names of one file are two files in the layer.
    assert {name for name, inode in made.items() if inode == inodes[name]} == {"same", "linked"}
    trees.compose("d", target="/again")
    # Until it is known to be a new layer: see ``placing.set_apart``.
    assert (trees.tree.parent / "made1/again/same").stat().st_ino == inodes["same"]
    trees.compose("d", target="/owned", owner=(5, 5))
    assert (trees.tree / "d/same").stat().st_uid == 0
