from __future__ import annotations

import os
from pathlib import Path

from sampan.linux import writeback


def test_it_is_a_hint_for_any_file(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb", buffering=0) as file:
        file.write(bytes(1 << 20))
        writeback.begin(file.fileno(), 0, 1 << 20)
        writeback.begin(file.fileno(), 1 << 40, 1)
    assert (tmp_path / "file").read_bytes() == bytes(1 << 20)
    reading, writing = os.pipe()
    writeback.begin(writing, 0, 1)
    os.close(reading)
    os.close(writing)
