"""The process that unpacks one layer: confined to it, gone after it.

It is forked by the zygote (``serve``) or, where there is none, started by itself (``main``): then descriptor
0 is the archive, descriptor 1 takes one JSON line of result, the working directory is the empty directory of
the layer, and the only argument is the request:

    {"compression": "gzip", "digest": true, "size_limit": 0, "entry_limit": 0, "ratio_limit": 0,
    "plain_marks": false}

The result is ``{"unpacked": {…}, "digest": "sha256:…"|null}`` or ``{"error": text, "kind": failure kind}``.

Confinement, as far as the host allows: the layer's directory as root, no descriptor but the needed ones,
only the capabilities that owners, modes, devices and file capabilities need, no core, no children, and what
``workers`` says. Everything is imported before; the import system is then taken down, so that a layer cannot
bring a module that this process would load.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import signal
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sampan.errors import Failure, HostFailure, InvalidArgument
from sampan.linux import capabilities, process
from sampan.sandbox.source import Bounds, Source
from sampan.sandbox.unpack import Limits, unpack
from sampan.sandbox.workers import WRITING, import_nothing_more, narrow

if TYPE_CHECKING:
    from collections.abc import Iterable

# CAP_CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SYS_ADMIN (trusted.* and security.* attributes), MKNOD, SETFCAP
_CAPABILITIES = (0, 1, 3, 4, 21, 27, 31)
_DESCRIPTORS = 1024


def main() -> int:
    """Unpack as the argument says; 0 also when the archive was refused, since the result tells."""
    root = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    result = serve(json.loads(sys.argv[1]), 0, root, keep=(root,))
    os.write(1, json.dumps(result).encode() + b"\n")
    return 0


def serve(
    request: dict[str, Any], archive: int, root: int, keep: Iterable[int], pace: int = -1
) -> dict[str, Any]:
    """Unpack the archive onto the working directory ``root``; the result.

    ``keep`` are the descriptors from 3 on that stay open. ``pace``: see ``source.Source``.
    """
    hasher = hashlib.sha256() if request["digest"] else None
    bounds = Bounds(size=request["size_limit"], ratio=request["ratio_limit"])
    source = Source(archive, request["compression"], hasher, pace=pace, bounds=bounds)
    confine(root, _CAPABILITIES, WRITING, keep)
    try:
        limits = Limits(size=request["size_limit"], entries=request["entry_limit"])
        found = unpack(source, root, limits, plain_marks=request["plain_marks"])
        return {"unpacked": asdict(found), "digest": source.digest()}
    except Failure as error:
        kind = "invalid" if isinstance(error, InvalidArgument) else "internal"
        return {"error": str(error), "kind": kind}


def failure(result: dict[str, Any]) -> Failure | None:
    """The failure that a result tells of, for the side that reads it."""
    if "error" not in result:
        return None
    return (InvalidArgument if result["kind"] == "invalid" else HostFailure)(result["error"])


def confine(root: int, held: tuple[int, ...], kind: str, keep: Iterable[int] = ()) -> None:
    """Give up all but the working directory ``root``, which becomes the root, and capabilities ``held``.

    ``kind`` is what sort of work it does there: see ``workers``. ``keep`` are descriptors that stay open
    beside it and the first three.
    """
    # A daemon that starts again clears away what this process would still write.
    process.set_parent_death_signal(signal.SIGKILL)
    os.umask(0)
    start = 3
    for fd in (*sorted({root, *keep}), _DESCRIPTORS):
        os.closerange(start, fd)
        start = max(start, fd + 1)
    if os.geteuid() != 0:
        return
    import_nothing_more()
    os.chroot(".")
    capabilities.limit_bounding_set(held)
    with contextlib.suppress(OSError):  # a host that withholds one of them says so where it is missed
        capabilities.capset(effective=held, permitted=held, inheritable=())
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_NPROC):
        resource.setrlimit(limit, (0, 0))
    narrow(kind, (root,) if kind == WRITING else ())


if __name__ == "__main__":
    sys.exit(main())
