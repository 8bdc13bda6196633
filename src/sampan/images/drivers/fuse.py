"""fuse-overlayfs: an overlay made by a program of the host, where the kernel cannot make one.

Theory: a chain is one whole tree, as with copies, but a container writes to a directory of its own over it,
as with the kernel's overlay. A process for each mount serves it; it is started by whoever mounts and ends
with the last use of its mount. That mount cannot show other ids, so containers have the host's (decision 10).
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass

from sampan.images.drivers import overlay
from sampan.images.drivers.trees import WholeTrees
from sampan.linux.diskspace import Space, measure
from sampan.linux.laying import Sharing
from sampan.sandbox import fuse


@dataclass(frozen=True, slots=True, kw_only=True)
class FuseOverlay(WholeTrees):
    """See ``interface.Driver``."""

    name: str = "fuse-overlayfs"
    kind: str = "fuse"
    # The program takes two names of a file for one file also when one of the two was written to.
    sharing: Sharing = Sharing.FILES_APART

    def make(self, place: str, views: tuple[str, ...], init: str) -> None:
        overlay.make(place)

    def written(self, place: str, views: tuple[str, ...], init: str) -> Space:
        return measure(f"{place}/fs")


def refusal(root: str) -> str:
    """Why it cannot be used below ``root``; empty if it can. Tries it."""
    if fuse.program() is None:
        return "fuse-overlayfs is not installed"
    with tempfile.TemporaryDirectory(dir=root, prefix=".fuse-") as place:
        for name in ("lower", "upper", "work"):
            os.mkdir(f"{place}/{name}")
        return fuse.tried(place)
