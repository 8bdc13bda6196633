"""Copying trees as the user who runs the tests; owners and devices are seen in tests/root/volumes."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sampan.linux.diskspace import measure
from sampan.volumes.copy import Earlier, copy_tree
from sampan.volumes.populate import beside, finish, populate_from
from sampan.volumes.tree import remove_tree


def copy(source: Path, destination: Path) -> None:
    first, second = os.open(source, os.O_RDONLY), os.open(destination, os.O_RDONLY)
    try:
        copy_tree(first, second)
    finally:
        os.close(first)
        os.close(second)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "file").write_bytes(b"x" * 100_000)
    os.chmod(root / "sub" / "file", 0o4751)
    os.link(root / "sub" / "file", root / "again")
    os.symlink("/etc/passwd", root / "absolute")
    os.symlink("missing", root / "sub" / "dangling")
    os.mkfifo(root / "pipe", 0o640)
    (root / "empty").touch()
    with open(root / "sparse", "wb") as file:
        file.truncate(1 << 24)
        file.seek(1 << 23)
        file.write(b"middle")
    for path in (root / "sub" / "file", root / "sub", root):
        os.utime(path, ns=(1_000_000_007, 2_000_000_009))
    os.chmod(root, 0o710)
    return root


def test_everything_is_kept(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    copy(source, target)
    assert sorted(os.listdir(target)) == sorted(os.listdir(source))
    first, second = os.stat(target / "sub" / "file"), os.stat(target / "again")
    assert (first.st_ino, first.st_nlink) == (second.st_ino, 2)
    assert first.st_mode & 0o7777 == 0o4751
    assert first.st_mtime_ns == 2_000_000_009
    assert os.stat(target / "sub").st_mtime_ns == os.stat(target).st_mtime_ns == 2_000_000_009
    assert os.stat(target).st_mode & 0o7777 == 0o710
    assert (target / "sub" / "file").read_bytes() == b"x" * 100_000
    assert os.readlink(target / "absolute") == "/etc/passwd"
    assert os.readlink(target / "sub" / "dangling") == "missing"
    assert os.lstat(target / "pipe").st_mode & 0o7777 == 0o640
    sparse = os.stat(target / "sparse")
    assert sparse.st_size == 1 << 24
    assert sparse.st_blocks * 512 < 1 << 20
    with open(target / "sparse", "rb") as file:
        file.seek(1 << 23)
        assert file.read(7) == b"middle\0"


def test_sockets_stay_behind(tmp_path: Path) -> None:
    source, target = tmp_path / "s", tmp_path / "t"
    source.mkdir()
    target.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fspath(source / "sock"))
    copy(source, target)
    assert os.listdir(target) == []


def test_too_deep_is_refused(tmp_path: Path) -> None:
    source, target = tmp_path / "s", tmp_path / "t"
    source.mkdir()
    target.mkdir()
    deep = os.open(source, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=deep)
        further = os.open("d", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = further
    os.close(deep)
    with pytest.raises(OSError, match="nested too deeply"):
        copy(source, target)


def test_removing_follows_no_link(source: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    os.symlink(outside, source / "way-out")
    remove_tree(os.fspath(source))
    remove_tree(os.fspath(source))
    remove_tree(os.fspath(tmp_path / "never" / "was"))
    assert not source.exists()
    assert (outside / "file").exists()


def test_size_counts_linked_files_once(source: Path) -> None:
    (source / "sparse").unlink()
    (source / "absolute").unlink()
    (source / "sub" / "dangling").unlink()
    assert measure(os.fspath(source)).apparent == 100_000


class Volume:
    """A volume's directory without a driver, and an image's root."""

    def __init__(self, tmp_path: Path) -> None:
        self.volumes = tmp_path / "volumes"
        self.data = self.volumes / "vol" / "_data"
        self.data.mkdir(parents=True)
        self.image = tmp_path / "image"
        (self.image / "data").mkdir(parents=True)
        (self.image / "data" / "file").write_text("from the image")

    def populate(self, path: str = "/data") -> None:
        root = os.open(self.image, os.O_RDONLY)
        try:
            populate_from(root, path, beside(os.fspath(self.volumes), "vol"))
        finally:
            os.close(root)

    def left_over(self) -> list[str]:
        return [name for name in os.listdir(self.volumes) if name != "vol"]


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path)


def test_an_empty_volume_takes_the_images_content(volume: Volume) -> None:
    os.chmod(volume.image / "data", 0o2775)
    os.utime(volume.image / "data", ns=(5, 7))
    volume.populate()
    assert (volume.data / "file").read_text() == "from the image"
    status = os.stat(volume.data)
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o2775, 7)
    assert volume.left_over() == []


def test_a_used_volume_is_left_alone(volume: Volume) -> None:
    (volume.data / "mine").write_text("precious")
    volume.populate()
    assert os.listdir(volume.data) == ["mine"]


@pytest.mark.parametrize("path", ["/missing", "/data/file", "/data/file/x"])
def test_nothing_to_take(volume: Volume, path: str) -> None:
    volume.populate(path)
    assert os.listdir(volume.data) == []


@pytest.mark.parametrize("target", ["/", "/../../../..", "../../..", "/data/.."])
def test_the_image_cannot_lead_outside(volume: Volume, target: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the host")
    os.symlink(target, volume.image / "link")
    volume.populate("/link")
    assert sorted(os.listdir(volume.data)) == ["data", "link"]
    assert os.path.islink(volume.data / "link")


def test_a_link_stays_within_the_image(volume: Volume) -> None:
    os.symlink("/data", volume.image / "link")
    volume.populate("/link")
    assert os.listdir(volume.data) == ["file"]


def test_a_failed_copy_leaves_the_volume_empty(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: int, destination: int, *rest: object, **options: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "copy_file_range", fail)
    with pytest.raises(OSError, match="No space left"):
        volume.populate()
    assert os.listdir(volume.data) == []
    assert volume.left_over() == []


def test_a_copy_cut_short_is_undone(volume: Volume) -> None:
    partial = volume.volumes / ".populating-vol"
    partial.mkdir()
    (partial / "half").write_text("a fi")
    finish(os.fspath(volume.volumes))
    assert os.listdir(volume.data) == []
    assert volume.left_over() == []


def test_a_complete_copy_is_moved_in(volume: Volume) -> None:
    complete = volume.volumes / ".populated-vol"
    complete.mkdir(0o750)
    (complete / "one").write_text("image's")
    (complete / "two").write_text("image's")
    # As cut in the middle, with a container that wrote meanwhile.
    (volume.data / "one").write_text("container's")
    finish(os.fspath(volume.volumes))
    assert (volume.data / "one").read_text() == "container's"
    assert (volume.data / "two").read_text() == "image's"
    assert volume.left_over() == []


def test_a_copy_for_a_volume_that_is_gone(volume: Volume) -> None:
    (volume.volumes / ".populated-gone").mkdir()
    finish(os.fspath(volume.volumes))
    assert volume.left_over() == []


def copy_twice(source: Path, first: Path, second: Path, since: int) -> None:
    fds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (source, first, second)]
    try:
        places = copy_tree(fds[0], fds[1])
        (source / "changed").write_text("new")
        (source / "added").write_text("added")
        (source / "gone").unlink()
        copy_tree(fds[0], fds[2], earlier=Earlier(root_fd=fds[1], places=places, since=since))
    finally:
        for fd in fds:
            os.close(fd)


@pytest.mark.parametrize("later", [True, False])
def test_a_second_copy_takes_from_the_first_what_did_not_change(tmp_path: Path, later: bool) -> None:
    for name in ("source", "first", "second"):
        (tmp_path / name).mkdir()
    source, first, second = tmp_path / "source", tmp_path / "first", tmp_path / "second"
    for name in ("kept", "changed", "gone", "linked"):
        (source / name).write_text("old")
    os.link(source / "linked", source / "other")
    old = os.stat(source / "kept").st_ctime_ns
    # All that was there before has not changed since, or nobody knows.
    since = old + 1_000_000_000_000 if later else old
    copy_twice(source, first, second, since)
    assert sorted(os.listdir(second)) == ["added", "changed", "kept", "linked", "other"]
    taken = os.stat(second / "kept").st_ino == os.stat(first / "kept").st_ino
    assert taken is later
    assert os.stat(second / "linked").st_ino == os.stat(second / "other").st_ino
    assert (second / "added").read_text() == "added"
    # A file with a time that the copy cannot trust is read again; here, that of "changed" is made to be one.
    assert (second / "changed").read_text() == ("old" if later else "new")


def test_a_copy_ends_when_it_is_told_to(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def goes_on() -> None:
        raise Enough

    for name in ("source", "copy"):
        (tmp_path / name).mkdir()
    (tmp_path / "source" / "file").touch()
    fds = [os.open(tmp_path / name, os.O_RDONLY) for name in ("source", "copy")]
    with pytest.raises(Enough):
        copy_tree(*fds, goes_on=goes_on)
    for fd in fds:
        os.close(fd)
    assert os.listdir(tmp_path / "copy") == []
