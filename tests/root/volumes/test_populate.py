"""First use of a volume with real layers: whiteouts, owners, devices, capabilities; nothing stays mounted."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sampan.sandbox.messages import RootFilesystem
from sampan.volumes.populate import beside, populate
from sampan.volumes.tree import remove_tree

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="mounts overlayfs")]

# struct vfs_ns_cap_data of revision 2: cap_net_raw, permitted and effective.
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


@pytest.fixture
def root(tmp_path: Path) -> RootFilesystem:
    for layer in ("top", "bottom"):
        (tmp_path / "layers" / layer / "data").mkdir(parents=True)
    bottom, top = tmp_path / "layers" / "bottom" / "data", tmp_path / "layers" / "top" / "data"
    (bottom / "kept").write_text("kept")
    (bottom / "gone").write_text("deleted in the upper layer")
    os.mknod(top / "gone", stat.S_IFCHR, 0)
    (top / "tool").write_text("tool")
    os.chown(top / "tool", 70000, 70001)
    os.setxattr(top / "tool", "security.capability", CAPABILITY)
    os.setxattr(top / "tool", "trusted.note", b"kept")
    os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.chmod(top / "null", 0o666)
    os.symlink("tool", top / "link")
    os.chown(top / "link", 70000, 70001, follow_symlinks=False)
    os.chown(top, 999, 998)
    (tmp_path / "volumes" / "vol" / "_data").mkdir(parents=True)
    # As in a data root: layers and volumes below one base.
    return RootFilesystem(
        base=os.fspath(tmp_path), lowers=("layers/top", "layers/bottom"), upper="unused", work="unused"
    )


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def test_merged_layers(root: RootFilesystem, tmp_path: Path) -> None:
    before, here = mounts(), os.getcwd()
    populate(root, "/data", beside(os.fspath(tmp_path / "volumes"), "vol"))
    data = tmp_path / "volumes" / "vol" / "_data"
    assert sorted(os.listdir(data)) == ["kept", "link", "null", "tool"]
    tool, link, null, top = (os.lstat(data / name) for name in ("tool", "link", "null", "."))
    assert (tool.st_uid, tool.st_gid) == (link.st_uid, link.st_gid) == (70000, 70001)
    assert (top.st_uid, top.st_gid) == (999, 998)
    assert os.getxattr(data / "tool", "security.capability") == CAPABILITY
    assert os.getxattr(data / "tool", "trusted.note") == b"kept"
    assert stat.S_ISCHR(null.st_mode)
    assert (null.st_rdev, null.st_mode & 0o777) == (os.makedev(1, 3), 0o666)
    assert not [name for name in os.listxattr(data) if "overlay" in name]
    assert os.getcwd() == here
    # The thread's namespace is gone with the thread, or about to be; ours never saw the mount.
    assert mounts() == before


def test_a_single_layer(root: RootFilesystem, tmp_path: Path) -> None:
    single = RootFilesystem(base=root.base, lowers=("layers/bottom",), upper="unused", work="unused")
    populate(single, "/data", beside(os.fspath(tmp_path / "volumes"), "vol"))
    assert sorted(os.listdir(tmp_path / "volumes" / "vol" / "_data")) == ["gone", "kept"]


def test_a_missing_layer_is_reported(root: RootFilesystem, tmp_path: Path) -> None:
    broken = RootFilesystem(
        base=root.base, lowers=("layers/top", "layers/nowhere"), upper="unused", work="unused"
    )
    with pytest.raises(OSError):
        populate(broken, "/data", beside(os.fspath(tmp_path / "volumes"), "vol"))
    assert os.listdir(tmp_path / "volumes") == ["vol"]


def test_what_is_mounted_in_a_volume_is_not_deleted(tmp_path: Path) -> None:
    from sampan.linux.mount import MNT_DETACH, mount, unmount

    inner = tmp_path / "volume" / "inner"
    inner.mkdir(parents=True)
    mount("tmpfs", os.fspath(inner), "tmpfs")
    try:
        (inner / "file").write_text("of somebody else")
        with pytest.raises(OSError, match="busy"):
            remove_tree(os.fspath(tmp_path / "volume"))
        assert (inner / "file").exists()
    finally:
        unmount(os.fspath(inner), MNT_DETACH)


@pytest.mark.parametrize("path", ["/loop", "/loop/x", "/out/x", "/data/tool/x"])
def test_a_path_that_leads_nowhere_has_nothing_to_copy(
    root: RootFilesystem, tmp_path: Path, path: str
) -> None:
    os.symlink("loop", tmp_path / "layers/top/loop")
    os.symlink("/proc/self/root", tmp_path / "layers/top/out")
    populate(root, path, beside(os.fspath(tmp_path / "volumes"), "vol"))
    assert os.listdir(tmp_path / "volumes") == ["vol"]
    assert os.listdir(tmp_path / "volumes/vol/_data") == []
