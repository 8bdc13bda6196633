"""A daemon whose data root is a small file system of its own: it can be filled, emptied, made read-only."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.crash.test_kills import Daemon, wait_for
from tests.e2e import images
from tests.e2e.talk import ask

PATIENCE = 30
REFUSED = "are kept back; remove what is not needed"


class World(Daemon):
    """The daemon, its disk at ``data`` and its exec root."""

    def load(self) -> tuple[int, str]:
        status, body = ask(self.socket, "POST", "/images/load?quiet=1", images.busybox())
        return status, body.decode()

    @property
    def socket(self) -> str:
        return str(self.root / "run/sampan.sock")

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def log(self) -> str:
        return (self.root / "log").read_text()

    def create(self, name: str, *command: str, **host: Any) -> tuple[int, Any]:
        document = {"Image": images.NAME, "Cmd": list(command), "HostConfig": host}
        return self.ask("POST", f"/containers/create?name={name}", document)

    def run(self, name: str, *command: str, **host: Any) -> None:
        """A started container, or AssertionError."""
        status, said = self.create(name, *command, **host)
        assert status == 201, said
        status, said = self.ask("POST", f"/containers/{name}/start")
        assert status == 204, said

    def state(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", f"/containers/{name}/json")[1]["State"]
        return found

    def logged(self, name: str) -> int:
        """Bytes of a container's output."""
        status, body = ask(self.socket, "GET", f"/containers/{name}/logs?stdout=1")
        assert status == 200, body
        return len(body)

    def fill(self) -> None:
        """Leave not a block, for nobody."""
        with open(self.data / "filler", "ab", buffering=0) as file:
            for size in (1 << 20, 4096, 512):
                with contextlib.suppress(OSError):
                    while file.write(b"\1" * size):
                        pass
                    os.fsync(file.fileno())

    def take_inodes(self) -> None:
        os.mkdir(self.data / "files")
        number = 0
        with contextlib.suppress(OSError):
            while True:
                (self.data / "files" / str(number)).touch()
                number += 1

    def make_room(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.data / "filler")
        shutil.rmtree(self.data / "files", ignore_errors=True)

    def remount(self, option: str) -> None:
        """Raises CalledProcessError. While a process that ends still has a file open, "ro" waits for it."""
        command = ["mount", "-o", f"remount,{option}", str(self.data)]
        deadline = time.monotonic() + PATIENCE
        while (done := subprocess.run(command, capture_output=True)).returncode:
            if option != "ro" or time.monotonic() > deadline:
                done.check_returncode()

    def seconds(self) -> float:
        """What the daemon has had of a processor."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def once(self, *options: str) -> subprocess.CompletedProcess[str]:
        """A daemon that is expected to end by itself."""
        return subprocess.run(
            [
                *(sys.executable, "-m", "sampan.daemon", "-H", f"unix://{self.socket}"),
                *("--data-root", str(self.data), "--exec-root", str(self.root / "run"), *options),
            ],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )


@contextlib.contextmanager
def world(*options: str, megabytes: int = 96) -> Iterator[World]:
    """A daemon on an ext4 of that size, made with ``options`` of mkfs, with busybox:latest in it."""
    root = Path(tempfile.mkdtemp(prefix="sampan-fault-"))
    disk = root / "disk"
    for name in ("data", "run"):
        (root / name).mkdir()
    with open(disk, "wb") as file:
        file.truncate(megabytes << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", *options, disk], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", disk, root / "data"], check=True, capture_output=True)
    try:
        found = World(root)
        try:
            status, said = found.load()
            assert status == 200, said
            yield found
        finally:
            leave(found)
    finally:
        subprocess.run(["umount", "-l", root / "data"], check=True, capture_output=True)
        shutil.rmtree(root, ignore_errors=True)


def leave(found: World) -> None:
    """Have no container run any more, and end the daemon, in whatever state a test left them."""
    try:
        found.remount("rw")
    except subprocess.CalledProcessError:  # its disk has failed for good; its containers have ended
        found.kill()
        return
    found.make_room()
    if found.process.poll() is not None:
        with contextlib.suppress(AssertionError):
            found.start()
    if found.process.poll() is None:
        for key in found.containers():
            found.ask("DELETE", f"/containers/{key}?force=1&v=1")
        found.process.send_signal(signal.SIGTERM)
        found.process.wait(PATIENCE)


__all__ = ["REFUSED", "World", "wait_for", "world"]
