"""Seccomp filters of a specification, compiled once for each that differs and kept below ``--root``."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument
from sampan.oci.container import write_whole
from sampan.oci.failure import Failed

if TYPE_CHECKING:
    from sampan.spec.runtime import Seccomp

# Raised with every change of what is compiled, as the names of kept filters are made of it.
_FORMAT = 1
_DIRECTORY = ".seccomp"  # no id begins with a dot


def compiled(seccomp: Seccomp | None, root: str) -> bytes | None:
    """The program for ``linux.seccomp``; None without one. Raises Failed for one that cannot be compiled."""
    if not seccomp:
        return None
    # Loaded when they are needed only: many have no filter, and most starts find theirs compiled.
    import hashlib

    host = os.uname()
    named = json.dumps([_FORMAT, host.machine, host.release, seccomp], sort_keys=True, separators=(",", ":"))
    path = f"{root}/{_DIRECTORY}/{hashlib.sha256(named.encode()).hexdigest()}"
    with suppress(FileNotFoundError), open(path, "rb") as file:
        return file.read()
    from sampan.sandbox.seccomp import compile_filter
    from sampan.spec.seccomp import parse

    try:
        program = compile_filter(parse(json.dumps(seccomp)), capabilities=())
    except InvalidArgument as error:
        raise Failed(f"linux.seccomp: {error}") from error
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    write_whole(path, program)
    return program
