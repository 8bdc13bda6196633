"""Which driver: the one that is asked for, or that the data root was made with, or the first that works here.

The name is in the file ``storage-driver`` of the data root. A root of before there was a choice has none and
was made with overlay2.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from sampan.errors import InvalidArgument
from sampan.images.drivers import fuse, overlay, trees
from sampan.images.drivers.interface import Driver

_FILE = "storage-driver"
_FIRST = "overlay2"
_CONTENTS = ("layers", "snapshots")
_OURS = ("init", "empty")
"""Directories among the layers that are no image's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    make: Callable[[str], Driver]
    refusal: Callable[[str], str]
    """Why it does not work below a path; empty if it does."""


_KINDS = {
    # In the order in which they are tried.
    "overlay2": _Kind(make=lambda root: overlay.Overlay(root=root), refusal=overlay.refusal),
    "btrfs": _Kind(make=trees.snapshots, refusal=trees.btrfs_refusal),
    "fuse-overlayfs": _Kind(make=lambda root: fuse.FuseOverlay(root=root), refusal=fuse.refusal),
    "vfs": _Kind(make=trees.copying, refusal=lambda _root: ""),
}
_OTHER_NAMES = {"overlay": "overlay2"}


def choose(root: str, wanted: str = "") -> Driver:
    """The driver of the data root, which exists; noted there. InvalidArgument in dockerd's words."""
    wanted = _OTHER_NAMES.get(wanted, wanted)
    if wanted and wanted not in _KINDS:
        raise _failed("driver not supported")
    noted = _noted(root)
    bound = _holds_something(root)
    if wanted and noted not in ("", wanted) and bound:
        raise _failed(f"{root} holds images and containers of the storage driver {noted}, not {wanted}")
    name = wanted or noted
    refused = _KINDS[name].refusal(root) if name else "not chosen"
    if refused and (wanted or bound):
        text = "" if wanted else f"prior storage driver {name} failed: "
        raise _failed(f"{text}driver not supported: {name}: {refused}")
    if refused:
        name = next(name for name, kind in _KINDS.items() if not kind.refusal(root))
    if name != _noted(root):
        _note(root, name)
    return _KINDS[name].make(root)


def passed_over(root: str, driver: Driver, wanted: str = "") -> str:
    """Why overlay2 is not the driver, though no other was ``wanted``; empty if it is, or one was."""
    return "" if wanted or driver.name == _FIRST else _KINDS[_FIRST].refusal(root)


def _noted(root: str) -> str:
    try:
        with open(f"{root}/{_FILE}", encoding="ascii", errors="replace") as file:
            name = file.read(64).strip()
    except FileNotFoundError:
        return _FIRST if _holds_something(root) else ""
    if name not in _KINDS:
        raise _failed(f"{root} was made with the storage driver {name!r}, which is not known here")
    return name


def _note(root: str, name: str) -> None:
    path = f"{root}/{_FILE}"
    with open(f"{path}.new", "w", encoding="ascii") as file:
        file.write(f"{name}\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{path}.new", path)


def _holds_something(root: str) -> bool:
    """Whether there are layers or containers' directories: what one driver made for itself."""
    for name in _CONTENTS:
        with contextlib.suppress(FileNotFoundError), os.scandir(f"{root}/{name}") as entries:
            if any(entry.name not in _OURS for entry in entries):
                return True
    return False


def _failed(text: str) -> InvalidArgument:
    return InvalidArgument(f"failed to start daemon: error initializing graphdriver: {text}")
