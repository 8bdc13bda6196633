"""Compressing the rotated files of a container's log.

Laws: a file is there whole at every moment, compressed or not, whoever is killed; it keeps its mode and its
time of change, by which its readers know it again. The keeper that rotates and this never meet: what is quick
(the one in the other's place) is done under the lock of the log's directory, what is slow without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import zlib

from sampan.engine import logsources
from sampan.sandbox.logfile import COMPRESSED

_PIECE = 1 << 20
_GZIP = 31


async def pack(path: str) -> None:
    """Compress every rotated file of the log at ``path``. Raises OSError when the disk is full."""
    for name in logsources.files(path)[:-1]:
        if not name.endswith(COMPRESSED):
            part = f"{path}.part"
            with contextlib.suppress(FileNotFoundError):
                inode = await asyncio.to_thread(_compress, name, part)
                _put_in_place(path, part, inode)


def _compress(name: str, part: str) -> int:
    """Write ``name`` compressed to ``part``; the inode of what was read."""
    packer = zlib.compressobj(level=1, wbits=_GZIP)
    with open(name, "rb", buffering=0) as source, open(part, "wb") as target:
        while data := source.read(_PIECE):
            target.write(packer.compress(data))
        target.write(packer.flush())
        target.flush()
        os.fsync(target.fileno())
        return os.fstat(source.fileno()).st_ino


def _put_in_place(path: str, part: str, inode: int) -> None:
    lock = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for name in logsources.files(path)[:-1]:
            state = os.stat(name)
            if state.st_ino == inode:
                os.chmod(part, state.st_mode & 0o777)
                os.utime(part, ns=(state.st_atime_ns, state.st_mtime_ns))
                os.rename(part, name + COMPRESSED)
                os.unlink(name)
                return
        os.unlink(part)  # it was rotated out meanwhile
    except BlockingIOError:
        os.unlink(part)  # the log is being rotated: the next time will do
    finally:
        os.close(lock)
