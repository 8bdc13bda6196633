"""Executing ourselves again through a read-only mount, where a container could get at the interpreter.

While we set up a process in a container, ``/proc/PID/exe`` of that process leads to the host's interpreter.
Nobody inside may follow it, for we are not dumpable; but who has CAP_SYS_PTRACE among the host's users may,
keep it open, and write to it later (CVE-2019-5736). So for such containers we run from a mount that cannot be
written to.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from sampan.linux import mount

if TYPE_CHECKING:
    from sampan.spec.runtime import Spec

_DONE = "_SAMPAN_OCI_SEALED"


def against(spec: Spec) -> None:
    """Return in a process that the container cannot harm; it may be another one than was called."""
    process = spec.get("process") or {}
    held = (process.get("capabilities") or {}).get("bounding") or ()
    kinds = [namespace["type"] for namespace in (spec.get("linux") or {}).get("namespaces") or ()]
    if "CAP_SYS_PTRACE" not in held or "user" in kinds or _DONE in os.environ:
        os.environ.pop(_DONE, None)
        return
    interpreter = mount.open_tree(os.path.realpath(sys.executable))
    mount.mount_setattr(interpreter, attr_set=mount.MOUNT_ATTR_RDONLY)
    words = [sys.executable, *sys.orig_argv[1:]]
    os.execve(f"/proc/self/fd/{interpreter}", words, {**os.environ, _DONE: "1"})
