"""The OCI runtimes that a container may choose by name (``--runtime``): ours, the host's, registered ones.

Laws:
- ``sampan`` is ours and takes no other meaning. A name registered with the daemon (``--add-runtime``) comes
  next, then the well-known runtimes, each only while the host has its program.
- A container keeps the name that it was created with; what the name means is looked up at every start.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from sampan.errors import Internal, InvalidArgument
from sampan.sandbox.messages import ExternalRuntime

if TYPE_CHECKING:
    from sampan.engine.options import EngineOptions
    from sampan.sandbox.messages import Launch
    from sampan.spec.runtime import Seccomp

OURS = "sampan"

# The program that Docker puts into a container for --init, then others of the kind; all need no libraries.
_INITS = ("docker-init", "tini-static")
_INIT_PLACE = "/sbin/docker-init"

# Names that need no registration, and the program of each. The second is what Docker calls its first by now.
_WELL_KNOWN = {
    "runc": "runc",
    "io.containerd.runc.v2": "runc",
    "crun": "crun",
    "runsc": "runsc",
    "youki": "youki",
}


def find(name: str, options: EngineOptions) -> ExternalRuntime | None:
    """The program behind a name, None for ours. InvalidArgument, in Docker's words, for one that is none."""
    if name in ("", OURS):
        return None
    registered = options.runtimes.get(name)
    if registered is not None:
        path, *arguments = registered
        found = shutil.which(path)
        if found is not None:
            return ExternalRuntime(path=os.path.abspath(found), arguments=tuple(arguments))
    elif (program := _WELL_KNOWN.get(name)) is not None and (found := shutil.which(program)) is not None:
        return ExternalRuntime(path=os.path.abspath(found))
    raise InvalidArgument(f"unknown or invalid runtime name: {name}")


def adapted(launch: Launch, runtime: ExternalRuntime, rules: Seccomp | None) -> Launch:
    """The launch for a runtime that compiles its own filter and has no init. Internal if there is no init."""
    spec = launch.spec
    if rules is not None:
        spec["linux"]["seccomp"] = rules
    if launch.init:
        program = next(filter(None, map(shutil.which, _INITS)), None)
        if program is None:
            raise Internal(f'exec: "{_INITS[0]}": executable file not found in $PATH')
        options = ["bind", "ro"]
        spec["mounts"].append(
            {
                "destination": _INIT_PLACE,
                "type": "bind",
                "source": os.path.realpath(program),
                "options": options,
            }
        )
        spec["process"]["args"] = [_INIT_PLACE, "--", *spec["process"]["args"]]
    return replace(launch, runtime=runtime, init=False, seccomp_filter=None)


def listed(options: EngineOptions) -> dict[str, tuple[str, ...]]:
    """Every runtime that can be chosen: its program and arguments by its name, as ``info`` shows them."""
    known = {name: (program,) for name, program in _WELL_KNOWN.items() if shutil.which(program) is not None}
    return {OURS: (OURS,), **known, **options.runtimes}
