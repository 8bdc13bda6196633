"""A disk that remembers every write and every flush, in their order, with their bytes.

Theory: a file system in user space (/dev/fuse) that is one file; a loop device stands on that file, and a
real file system on the device. The kernel's loop driver passes writes on in requests of their own and a flush
of the device as fsync(2) of the file, so what arrives here is what a disk with a volatile cache gets to see.

    python -m tests.power.disk MOUNTPOINT IMAGE LOG SIZE      (until it is unmounted)

Laws:
- ``LOG`` is a row of entries, each a head of `HEAD` and as many bytes as it says; an entry is whole in it
  before the kernel hears that the request is done. So the log's length at any moment is a position in time.
- ``IMAGE`` has what was written, whether it was flushed or not.

fuse(4), and the kernel's include/uapi/linux/fuse.h for the messages.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sampan.linux import mount

HEAD = struct.Struct("<4sQI")
"""`WRITE` or `FLUSH`, offset and number of bytes that follow."""
WRITE, FLUSH = b"writ", b"flsh"

_IN = struct.Struct("<IIQQIIIHH")
_OUT = struct.Struct("<IiQ")
_ATTR_OUT = struct.Struct("<QII" + "QQQQQQIIIIIIIIII")
_GETATTR, _SETATTR, _OPEN, _READ, _WRITE, _STATFS, _RELEASE, _FSYNC, _FLUSH, _INIT = (
    *(3, 4, 14, 15, 16, 17, 18, 20, 25, 26),
)
_FORGET, _BATCH_FORGET, _INTERRUPT, _DESTROY = 2, 42, 36, 38
_LARGEST = 1 << 20
_PAGES = _LARGEST // 4096
_BIG_WRITES, _MAX_PAGES = 1 << 5, 1 << 22
_ROOM = _LARGEST + 4096
SECONDS = 20


class _Server:
    def __init__(self, image: int, log: int, size: int) -> None:
        self._image, self._log, self._size = image, log, size

    def answer(self, opcode: int, body: memoryview) -> bytes | int:
        """What a request is answered: bytes, or an errno."""
        if opcode == _WRITE:
            _, offset, size = struct.unpack_from("<QQI", body)
            data = body[40 : 40 + size]
            os.pwrite(self._image, data, offset)
            os.writev(self._log, (HEAD.pack(WRITE, offset, size), data))
            return struct.pack("<II", size, 0)
        if opcode == _READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            return os.pread(self._image, size, offset)
        if opcode == _FSYNC:
            os.write(self._log, HEAD.pack(FLUSH, 0, 0))
            return b""
        if opcode in (_GETATTR, _SETATTR):
            mode = stat.S_IFREG | 0o600
            attr = (1, self._size, self._size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
            return _ATTR_OUT.pack(3600, 0, 0, *attr)
        if opcode == _INIT:
            _, minor, ahead, flags = struct.unpack_from("<IIII", body)
            wanted = flags & (_BIG_WRITES | _MAX_PAGES)
            head = struct.pack(
                "<IIIIHHIIHH", 7, min(minor, 31), ahead, wanted, 16, 12, _LARGEST, 1, _PAGES, 0
            )
            return head.ljust(64, b"\0")
        if opcode == _OPEN:
            return struct.pack("<QII", 0, 0, 0)
        if opcode in (_RELEASE, _FLUSH):
            return b""
        if opcode == _STATFS:
            return bytes(80)
        return errno.ENOSYS


def serve(fuse: int, image: int, log: int, size: int) -> None:
    """Answer the kernel until the file is unmounted."""
    server, room = _Server(image, log, size), bytearray(_ROOM)
    while True:
        try:
            got = os.readv(fuse, (room,))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return
            if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                continue
            raise
        length, opcode, unique, *_ = _IN.unpack_from(room)
        assert length == got
        if opcode in (_FORGET, _BATCH_FORGET, _INTERRUPT):
            continue
        said = server.answer(opcode, memoryview(room)[_IN.size : got])
        code, body = (-said, b"") if isinstance(said, int) else (0, said)
        os.writev(fuse, (_OUT.pack(_OUT.size + len(body), code, unique), body))
        if opcode == _DESTROY:
            return


def main(mountpoint: str, image_path: str, log_path: str, size: int) -> None:
    fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    image = os.open(image_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.ftruncate(image, size)
    options = f"fd={fuse},rootmode={stat.S_IFREG | 0o600:o},user_id=0,group_id=0"
    mount.mount("sampan-power", mountpoint, "fuse", mount.MS_NOSUID | mount.MS_NODEV, options)
    serve(fuse, image, log, size)


# ---------------------------------------------------------------------- using it


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A mounted file system on a recording disk."""

    place: str
    """Where it is mounted."""
    log: str
    image: str
    size: int

    def position(self) -> int:
        """Now, as a length of the log."""
        return os.stat(self.log).st_size


@contextlib.contextmanager
def recording(place: str, size: int, filesystem: str) -> Iterator[Recording]:
    """Have ``place`` be a new file system of ``size`` bytes, recorded while the context lasts.

    To be used in a mount namespace that nobody else copies mounts from: a file system stays alive, and writes
    to its disk, as long as anybody's namespace has it.

    The log stays as long as the context; copy what is wanted of it. ``filesystem`` is ext4, xfs or btrfs.
    """
    with tempfile.TemporaryDirectory(prefix="sampan-power-", dir=memory()) as root:
        file, image, log = f"{root}/disk", f"{root}/image", f"{root}/log"
        Path(file).touch()
        command = [sys.executable, "-m", "tests.power.disk", file, image, log, str(size)]
        server = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL)
        try:
            _await_size(file, size)
            with loop_device(file) as device:
                format_disk(device, filesystem)
                with mounted(device, place, filesystem):
                    yield Recording(place=place, log=log, image=image, size=size)
        finally:
            subprocess.run(["umount", file], check=False)
            server.wait(SECONDS)


def memory() -> str | None:
    """Where disks' files are best: a flush of theirs is to cost nothing. None for the usual place."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@contextlib.contextmanager
def loop_device(file: str) -> Iterator[str]:
    """A loop device on ``file``, let go at the end."""
    command = ["losetup", "--find", "--show", file]
    device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


_FORMAT = {
    # Nothing is left to do after the first mount, and nothing is discarded.
    "ext4": (
        "mkfs.ext4",
        "-q",
        "-E",
        "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
        "-O",
        "^resize_inode",
    ),
    "xfs": ("mkfs.xfs", "-q", "-K"),
    "btrfs": ("mkfs.btrfs", "-q", "-K"),
}
OPTIONS = {"ext4": "data=ordered,barrier=1", "xfs": "", "btrfs": "space_cache=v2"}


def format_disk(device: str, filesystem: str) -> None:
    subprocess.run([*_FORMAT[filesystem], device], check=True, capture_output=True)


@contextlib.contextmanager
def mounted(device: str, place: str, filesystem: str) -> Iterator[None]:
    """The file system of ``device`` at ``place``; its journal is replayed by that."""
    mount.mount(device, place, filesystem, 0, OPTIONS[filesystem])
    try:
        yield
    finally:
        _unmount(place)


def _unmount(place: str) -> None:
    """What a process that ends had open may be a moment behind it."""
    deadline = time.monotonic() + SECONDS
    while True:
        done = subprocess.run(["umount", place], capture_output=True, text=True, check=False)
        if done.returncode == 0 or time.monotonic() > deadline:
            assert done.returncode == 0, done.stderr
            return
        select.select((), (), (), 0.02)


def _await_size(file: str, size: int) -> None:
    deadline = time.monotonic() + SECONDS
    while os.stat(file).st_size != size:
        assert time.monotonic() < deadline, "the recording disk does not come"
        select.select((), (), (), 0.01)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
