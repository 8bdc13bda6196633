"""Having a layer unpacked by a confined process, and reading what it says.

The process is ``sandbox.unpacker``; it gets the archive and the layer's directory, and nothing else. It is
forked by whoever forks processes here (``Run``), or started by itself.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from sampan.errors import Internal, InvalidArgument
from sampan.sandbox.unpack import Limits

_BOOT = "import sys; sys.path[:] = {path!r}; from sampan.sandbox.unpacker import main; sys.exit(main())"


class UnpackedLayer(msgspec.Struct, frozen=True):
    """What the process found: see ``sandbox.unpack.Unpacked``."""

    size: int
    entries: int
    max_uid: int
    max_gid: int
    implied: list[str]


class Answer(msgspec.Struct, frozen=True):
    unpacked: UnpackedLayer | None = None
    digest: str | None = None
    error: str = ""
    kind: str = ""


Run = Callable[[Mapping[str, Any], int, str, "int | None"], Awaitable[Any]]
"""Unpacks the open archive onto a directory as a request says; the result as an object of JSON.

The last is a pipe that tells how far an archive has come that still grows: see ``sandbox.source``.
"""


async def unpack(
    archive: int,
    directory: str,
    *,
    compression: str,
    hashed: bool,
    limits: Limits | None = None,
    plain_marks: bool = False,
    run: Run | None = None,
    pace: int | None = None,
) -> Answer:
    """Unpack the archive open as ``archive`` into the empty ``directory``; ``hashed`` asks for the diff id.

    Raises InvalidArgument for a bad archive and Internal for a bad host; the directory then holds a part,
    which is the caller's to remove. Cancelled, the process is killed and waited for.
    """
    limits = limits or Limits()
    request = {
        "compression": compression,
        "digest": hashed,
        "size_limit": limits.size,
        "entry_limit": limits.entries,
        "ratio_limit": limits.ratio,
        "plain_marks": plain_marks,
    }
    answer = msgspec.convert(await (run or by_itself)(request, archive, directory, pace), type=Answer)
    if answer.error:
        raise (InvalidArgument if answer.kind == "invalid" else Internal)(answer.error)
    return answer


async def by_itself(request: Mapping[str, Any], archive: int, directory: str, pace: int | None = None) -> Any:
    """Start an interpreter for it."""
    assert pace is None, "an archive that grows is for a forked process"
    # -I -S skips site: no third-party start-up hook runs, and the start takes 10 ms instead of 40.
    path = [entry for entry in sys.path if os.path.isabs(entry)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-S",
        "-c",
        _BOOT.format(path=path),
        msgspec.json.encode(request).decode(),
        stdin=archive,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=directory,
    )
    try:
        output, errors = await process.communicate()
    except BaseException:
        if process.returncode is None:
            process.kill()
        await process.wait()
        raise
    if process.returncode != 0 or not output:
        last = errors.decode(errors="replace").strip().rpartition("\n")[2]
        raise Internal(f"unpack process failed with status {process.returncode}: {last}")
    return msgspec.json.decode(output)
