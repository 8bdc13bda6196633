"""What is left of a process's rights over files, as kernels of several ages would have it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from sampan.linux import landlock
from sampan.linux.seccomp import set_no_new_privs

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not landlock.usable(), reason="this kernel has no Landlock that we use"),
]


def errors_of(directories: list[str], *works: Callable[[], object]) -> list[int]:
    """The number of the error of each, 0 for none, in a child that may change these directories only."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            set_no_new_privs()
            landlock.change_only([os.open(path, os.O_RDONLY) for path in directories])
            for work in works:
                try:
                    work()
                    os.write(writing, bytes((0,)))
                except OSError as error:
                    os.write(writing, bytes((error.errno or 255,)))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found = [*pipe.read()]
    os.waitpid(child, 0)
    return found


def binds() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))


@pytest.mark.parametrize("version", [0, 1, 2, 3, 4, 5, 6])
def test_files_are_changed_below_the_directories_only(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older kernel knows less of it; the structures are those that it takes."""
    if version > landlock.abi():
        pytest.skip("this kernel does not know that version")
    monkeypatch.setattr(landlock, "abi", lambda: version)
    for name in ("in/a", "in/b", "out"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text("x")
    inside, outside = tmp_path / "in", tmp_path / "out"
    found = errors_of(
        [str(inside)],
        lambda: (inside / "a/new").write_text("x"),
        lambda: os.rename(inside / "a/new", inside / "b/new"),
        lambda: os.link(inside / "b/new", inside / "a/again"),
        lambda: os.truncate(inside / "a/again", 0),
        lambda: os.mkdir(inside / "d"),
        lambda: (outside / "file").read_text(),
        lambda: (outside / "file").write_text("y"),
        lambda: os.rename(inside / "b/new", outside / "new"),
        lambda: os.unlink(outside / "file"),
        lambda: os.execv("/bin/true", ["true"]) if version > 1 else None,
        binds,
    )
    assert found[:6] == [0] * 6
    if version < 2:
        assert found[6:8] == [0, 0]
        return
    assert [number != 0 for number in found[6:10]] == [True] * 4
    assert (found[10] != 0) is (version >= 4)
    assert (outside / "file").read_text() == "x"
