"""A disk that fails on demand: a file of a file system in user space (`tests.power.disk`), which answers EIO.

    python -m tests.faults.failing MOUNTPOINT IMAGE WHAT SIZE      (until it is unmounted)

What fails is named by files in the directory ``WHAT``: ``reads``, ``writes``, ``flushes``; nothing when it is
empty. A write that fails is lost.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.crash.test_kills import wait_for
from tests.power import disk

_KINDS = {15: "reads", 16: "writes", 20: "flushes"}


class _Failing(disk._Server):
    def __init__(self, image: int, log: int, size: int) -> None:
        super().__init__(image, log, size)
        self._what = os.environ["FAILING"]

    def answer(self, opcode: int, body: memoryview) -> bytes | int:
        kind = _KINDS.get(opcode)
        if kind is not None and os.path.exists(f"{self._what}/{kind}"):
            return errno.EIO
        return super().answer(opcode, body)


class Disk:
    """What fails now: a context for each kind."""

    def __init__(self, what: Path, image: Path) -> None:
        self._what = what
        self._image = image

    @contextlib.contextmanager
    def after_power_loss(self, place: Path) -> Iterator[None]:
        """Have ``place`` be the file system with what is on the disk at this moment, and nothing else."""
        lost = self._image.with_name("lost")
        shutil.copyfile(self._image, lost)
        subprocess.run(["mount", "-o", "loop", lost, place], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", place], check=True)

    @contextlib.contextmanager
    def failing(self, *kinds: str) -> Iterator[None]:
        for kind in kinds:
            (self._what / kind).touch()
        try:
            yield
        finally:
            for kind in kinds:
                (self._what / kind).unlink()


@contextlib.contextmanager
def failing_disk(place: Path, size: int) -> Iterator[Disk]:
    """Have ``place`` be an ext4 on such a disk; without a journal, whose first failure would be for good."""
    with tempfile.TemporaryDirectory(prefix="sampan-failing-") as root:
        file, what = Path(root) / "disk", Path(root) / "what"
        file.touch()
        what.mkdir()
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.failing", file, f"{root}/image", str(size)],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "FAILING": str(what)},
        )
        try:
            wait_for(lambda: file.stat().st_size == size, "the disk is there")
            with disk.loop_device(str(file)) as device:
                command = (
                    "mkfs.ext4",
                    "-q",
                    "-O",
                    "^has_journal",
                    "-E",
                    "nodiscard,lazy_itable_init=0",
                    device,
                )
                subprocess.run(command, check=True, capture_output=True)
                subprocess.run(["mount", "-o", "errors=continue", device, place], check=True)
                try:
                    yield Disk(what, Path(root) / "image")
                finally:
                    subprocess.run(["umount", "-l", place], check=True)
        finally:
            subprocess.run(["umount", "-l", file], check=False)
            server.kill()
            server.wait()


if __name__ == "__main__":
    disk._Server = _Failing  # type: ignore[misc]  # which ``serve`` answers with
    disk.main(sys.argv[1], sys.argv[2], os.devnull, int(sys.argv[3]))
