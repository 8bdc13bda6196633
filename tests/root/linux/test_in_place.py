"""A database on a file system that copies on writing."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from sampan.linux.inodeflags import IN_PLACE
from sampan.state import Database

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts"),
    pytest.mark.skipif(shutil.which("mkfs.btrfs") is None, reason="needs mkfs.btrfs"),
]

_GET_FLAGS = 0x80086601


def test_what_was_allocated_ahead_on_btrfs_is_written_in_place(tmp_path: Path) -> None:
    """Otherwise a full disk has no block for a page of the log's index, and the daemon dies by SIGBUS."""
    disk, place = tmp_path / "disk", tmp_path / "place"
    place.mkdir()
    with open(disk, "wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.btrfs", "-q", "-K", disk], check=True, capture_output=True)
    done = subprocess.run(["mount", "-o", "loop", disk, place], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no btrfs here: {done.stderr}")
    try:
        path = place / "state.db"
        database = Database.open(str(path))
        try:
            for ending in ("", "-wal", "-shm"):
                with open(f"{path}{ending}", "rb") as file:
                    (flags,) = struct.unpack("@l", fcntl.ioctl(file, _GET_FLAGS, b"\0" * 8))
                assert flags & IN_PLACE, ending
        finally:
            database.close()
    finally:
        subprocess.run(["umount", place], check=True)
