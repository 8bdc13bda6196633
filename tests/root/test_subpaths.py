"""Places below a volume are found without leaving it, whoever moves what meanwhile."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from sampan.errors import InvalidArgument
from sampan.sandbox.hostmounts import Bind, LayersView, beneath
from sampan.sandbox.mountopts import parse

pytestmark = pytest.mark.root


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("outside")
    inside = tmp_path / "volume"
    (inside / "deep").mkdir(parents=True)
    (inside / "deep/file").write_text("inside")
    (inside / "link").symlink_to("deep")
    (inside / "absolute").symlink_to("/etc")
    (inside / "upwards").symlink_to("../")
    (inside / "magic").symlink_to("/proc/self/root")
    return inside


def opened(volume: Path, subpath: str) -> int:
    place = os.open(volume, os.O_PATH | os.O_DIRECTORY)
    try:
        return beneath(place, str(volume), subpath)
    finally:
        os.close(place)


def listed(mount: int, path: str = ".") -> list[str]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY, dir_fd=mount)
    try:
        return sorted(os.listdir(fd))
    finally:
        os.close(fd)


@pytest.mark.parametrize("subpath", ["deep", "link", "deep/file", "link/../deep", "./deep/"])
def test_what_is_below_is_found(volume: Path, subpath: str) -> None:
    os.close(opened(volume, subpath))


@pytest.mark.parametrize("subpath", ["absolute", "upwards", "upwards/secret", "magic", "../secret", "/etc"])
def test_what_leads_out_is_refused(volume: Path, subpath: str) -> None:
    with pytest.raises(InvalidArgument, match="path concatenation escapes the base directory"):
        opened(volume, subpath)


def test_what_is_not_there_is_told(volume: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"cannot access path .*/nosuch: no such file or directory"):
        opened(volume, "nosuch")


def test_a_link_that_is_swapped_in_never_leads_out(volume: Path) -> None:
    """A directory becomes a link to the outside and a directory again while it is looked for."""
    (volume / "aside").symlink_to("..")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            os.rename(volume / "deep", volume / "kept")
            os.rename(volume / "aside", volume / "deep")
            os.rename(volume / "deep", volume / "aside")
            os.rename(volume / "kept", volume / "deep")

    swapping = threading.Thread(target=swap)
    swapping.start()
    outside = os.stat(volume.parent / "secret").st_ino
    try:
        for _ in range(2000):
            try:
                fd = opened(volume, "deep/secret")
            except InvalidArgument:
                continue
            assert os.fstat(fd).st_ino != outside
            os.close(fd)
    finally:
        done.set()
        swapping.join()


def test_a_bind_is_of_the_place_that_was_pinned(volume: Path) -> None:
    fd = Bind(source=str(volume), options=parse(("rbind", "ro")), subpath="link").open(None)
    try:
        assert listed(fd) == ["file"]
        with pytest.raises(OSError, match="Read-only"):
            os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("subpath", ["", "etc"])
def test_layers_are_shown_merged_and_read_only(tmp_path: Path, subpath: str) -> None:
    for number, name in (("1", "lower"), ("2", "upper")):
        (tmp_path / number / "fs/etc").mkdir(parents=True)
        (tmp_path / number / "fs/etc" / name).write_text(name)
    view = LayersView(lowers=(f"{tmp_path}/2/fs", f"{tmp_path}/1/fs"), subpath=subpath)
    # It may leave its mount namespace: in a process of its own, as the launcher is.
    child = os.fork()
    if child == 0:
        code = 1
        try:
            fd = view.open(None)
            names = listed(fd, "." if subpath else "etc")
            try:
                os.mkdir("new", dir_fd=fd)
            except OSError:
                code = 0 if names == ["lower", "upper"] else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
