"""Whether what the user wants to bind passes mounts on, and takes them: Docker's checks before a start.

A bind is "shared" only where its source lies on a shared mount, and "slave" where that mount is shared or
follows another. Which mount a path lies on is read from /proc/self/mountinfo (proc(5), its optional fields).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from sampan.engine.model import MountPoint
from sampan.errors import InvalidArgument

SHARED = ("shared", "rshared")
SLAVE = ("slave", "rslave")


def settled(point: MountPoint, *, daemon_root: str) -> str:
    """The propagation that the mount gets. InvalidArgument when its source cannot have it.

    The engine's own directory is bound as a slave unasked; where that cannot be, it is private.
    """
    if point.type != "bind" or point.propagation not in SHARED + SLAVE:
        return point.propagation
    mount, fields = _mount_of(os.path.realpath(point.source))
    shared = any(field.startswith("shared:") for field in fields)
    if point.propagation in SHARED:
        if not shared:
            raise InvalidArgument(f"path {point.source} is mounted on {mount} but it is not a shared mount")
        return point.propagation
    if shared or any(field.startswith("master:") for field in fields):
        return point.propagation
    if point.source.startswith(daemon_root) or daemon_root.startswith(point.source):
        return "rprivate"
    raise InvalidArgument(f"path {point.source} is mounted on {mount} but it is not a shared or slave mount")


def _mount_of(path: str) -> tuple[str, Sequence[str]]:
    """The mount point that ``path`` lies on, and its optional fields; the last one mounted there counts."""
    best: tuple[str, Sequence[str]] = ("/", ())
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, _ = line.partition(" - ")
            fields = before.split(" ")
            place = _unescape(fields[4])
            inside = path == place or path.startswith(place.rstrip("/") + "/")
            if inside and len(place) >= len(best[0]):
                best = (place, fields[6:])
    return best


def _unescape(text: str) -> str:
    for code in (" ", "\t", "\n", "\\"):
        text = text.replace(f"\\{ord(code):03o}", code)
    return text
