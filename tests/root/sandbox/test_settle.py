"""An upper directory that becomes a layer: what is told of it, and what it is afterwards."""

from __future__ import annotations

import io
import os
import socket
import stat
import tarfile
from pathlib import Path

import pytest

from sampan.sandbox.settle import Settler

pytestmark = pytest.mark.root

_SECOND = 1_000_000_000  # ns


class Upper:
    def __init__(self, root: Path) -> None:
        self.path = root / "upper"
        self.lower = root / "lower"
        self.outside = root / "outside"
        for path in (self.path, self.lower, self.outside):
            path.mkdir()
        self.settler: Settler

    def settle(self, *stubs: str, latest: int | None = None) -> dict[str, tarfile.TarInfo]:
        """The members of the archive by name."""
        with open(self.path.parent / "archive", "w+b") as out:
            upper, lower = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (self.path, self.lower))
            try:
                self.settler = Settler(out.fileno(), latest)
                self.settler.run(upper, [lower], stubs)
            finally:
                os.close(upper)
                os.close(lower)
            out.seek(0)
            data = out.read()
        return {member.name: member for member in tarfile.TarFile(fileobj=io.BytesIO(data))}


@pytest.fixture
def upper(tmp_path: Path) -> Upper:
    return Upper(tmp_path)


def test_times_are_whole_seconds_on_disk_and_in_the_archive(upper: Upper) -> None:
    (upper.path / "d").mkdir()
    (upper.path / "d/f").write_text("x")
    (upper.path / "d/l").symlink_to("f")
    for name in ("d/f", "d/l", "d"):
        os.utime(upper.path / name, ns=(5, 7 * _SECOND + 5), follow_symlinks=False)
    found = upper.settle()
    for name in ("d", "d/f", "d/l"):
        assert os.lstat(upper.path / name).st_mtime_ns == 7 * _SECOND
        assert found[name].mtime == 7
    assert upper.settle(latest=3 * _SECOND)["d/f"].mtime == 3
    assert os.lstat(upper.path / "d/f").st_mtime_ns == 3 * _SECOND


def test_whiteouts_sizes_and_owners(upper: Upper) -> None:
    os.mknod(upper.path / "gone", stat.S_IFCHR, os.makedev(0, 0))
    (upper.path / "a").write_text("12345")
    os.link(upper.path / "a", upper.path / "b")
    os.chown(upper.path / "a", 70, 80)
    found = upper.settle()
    assert ".wh.gone" in found
    assert found["b"].islnk()
    assert (upper.settler.size, upper.settler.max_uid, upper.settler.max_gid) == (5, 70, 80)
    assert stat.S_ISCHR(os.lstat(upper.path / "gone").st_mode), "what overlayfs needs stays"


def test_sockets_go_and_leave_no_trace(upper: Upper) -> None:
    (upper.path / "d").mkdir()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(upper.path / "d/s"))
    os.utime(upper.path / "d", (9, 9))
    assert set(upper.settle()) == {"d"}
    assert os.listdir(upper.path / "d") == []
    assert os.stat(upper.path / "d").st_mtime == 9


def test_the_top_looks_as_any_layers(upper: Upper) -> None:
    os.chmod(upper.path, 0o700)
    os.chown(upper.path, 5, 5)
    os.setxattr(upper.path, "trusted.overlay.impure", b"y")
    upper.settle()
    there = os.stat(upper.path)
    assert (stat.S_IMODE(there.st_mode), there.st_uid) == (0o755, 0)
    assert os.listxattr(upper.path) == []


def test_stubs_of_mount_points_go(upper: Upper) -> None:
    (upper.lower / "was").mkdir()
    (upper.path / "was/made/deep").mkdir(parents=True)
    (upper.path / "used/dir").mkdir(parents=True)
    (upper.path / "used/dir/f").write_text("x")
    (upper.path / "file").touch()
    (upper.path / "full").write_text("x")
    found = upper.settle("/was/made/deep", "/used/dir", "/file", "/full", "/missing/x", "/was")
    assert set(found) == {"used", "used/dir", "used/dir/f", "full"}


def test_a_directory_that_was_changed_stays_without_its_stub(upper: Upper) -> None:
    for name in ("mode", "owner", "full", "time/below", "opaque"):
        (upper.lower / name).mkdir(parents=True)
        (upper.path / name / "stub").mkdir(parents=True)
    (upper.path / "mode").chmod(0o700)
    os.chown(upper.path / "owner", 5, 5)
    (upper.path / "full/x").write_text("x")
    os.setxattr(upper.path / "opaque", "trusted.overlay.opaque", b"y")
    for path in (upper.path / "full", upper.path / "time"):
        os.utime(path, (9, 9))
    found = upper.settle(*(f"/{name}/stub" for name in ("mode", "owner", "full", "time/below", "opaque")))
    names = {name for name in found if not name.startswith("opaque/")}
    assert names == {"mode", "owner", "full", "full/x", "time", "opaque"}
    assert (found["full"].mtime, found["time"].mtime) == (9, 9)


def test_what_a_layer_below_deleted_is_not_there(upper: Upper) -> None:
    os.mknod(upper.lower / "gone", stat.S_IFCHR, os.makedev(0, 0))
    (upper.path / "gone/stub").mkdir(parents=True)
    assert upper.settle("/gone/stub") == {}


def test_a_stub_behind_a_link_is_let_be(upper: Upper) -> None:
    (upper.outside / "empty").mkdir()
    (upper.path / "link").symlink_to(upper.outside)
    upper.settle("/link/empty", "/link/../outside/empty", "../outside/empty")
    assert (upper.outside / "empty").exists()
