"""A layer that was linked together gets files of its own."""

from __future__ import annotations

import os
from pathlib import Path

from sampan.sandbox.placing import set_apart


def test_files_with_more_names_are_copied(tmp_path: Path) -> None:
    held, layer = tmp_path / "held", tmp_path / "layer"
    held.mkdir()
    (layer / "d").mkdir(parents=True)
    for name in ("one", "two"):
        (held / name).write_text(name)
        os.chmod(held / name, 0o640)
        os.utime(held / name, (5, 5))
        os.link(held / name, layer / "d" / name)
    os.link(held / "two", tmp_path / "other")
    os.utime(layer / "d", (7, 7))
    fd = os.open(layer, os.O_RDONLY)
    set_apart(fd, 2)
    os.close(fd)
    one, two = (os.stat(layer / "d" / name) for name in ("one", "two"))
    assert one.st_ino == os.stat(held / "one").st_ino
    assert two.st_ino != os.stat(held / "two").st_ino
    assert (two.st_nlink, two.st_mode & 0o777, two.st_mtime) == (1, 0o640, 5)
    assert (layer / "d/two").read_text() == "two"
    assert os.stat(layer / "d").st_mtime == 7
