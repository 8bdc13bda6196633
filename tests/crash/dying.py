"""A process that works on an image store and is killed at its Nth change of the file system or of the rows.

python -m tests.crash.dying ROOT N load|replace|remove|tag
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests import archives
from tests.root.images.stores import Store, opened

FIRST = archives.pack(archives.docker_files([archives.layer(one=b"1"), archives.layer(two=b"2")], ["a"]))
SECOND = archives.pack(archives.docker_files([archives.layer(one=b"1"), archives.layer(new=b"3")], ["a"]))
_CHANGES = (
    "os.rename",
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "subprocess.Popen",
    "sqlite3.connect",
    "os.link",
)


async def work(store: Store, what: str) -> None:
    """Do one thing to the store."""
    if what == "load":
        await store.load(FIRST)
    elif what == "replace":
        await store.load(SECOND)
    elif what == "remove":
        await store.images.remove("a")
    elif what == "tag":
        await store.images.tag("a", "b")


async def run(root: str, countdown: int, what: str) -> None:
    async with opened(Path(root)) as store:
        left = countdown

        def die_at_zero(event: str, _arguments: object) -> None:
            nonlocal left
            if event in _CHANGES:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(die_at_zero)
        await work(store, what)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
