"""The overlay file system of the kernel: layers are mounted one over another."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from dataclasses import dataclass

from sampan.images.drivers.interface import Places
from sampan.linux import filesystems
from sampan.linux import mount as m
from sampan.linux.diskspace import Space, measure

_OPAQUE = "trusted.overlay.opaque"


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """See ``interface.Driver``."""

    root: str
    """The data root."""
    name: str = "overlay2"
    kind: str = ""
    plain_marks: bool = False

    def status(self) -> tuple[tuple[str, str], ...]:
        return (
            ("Backing Filesystem", filesystems.name_of(self.root)),
            ("Supports d_type", "true"),
            ("Native Overlay Diff", "true"),
            ("userxattr", "false"),
        )

    async def see(self, places: Places) -> None:
        pass

    def views(self, places: Places) -> tuple[str, ...]:
        return tuple(f"{place}/fs" for place in places)

    def make(self, place: str, views: tuple[str, ...], init: str) -> None:
        make(place)

    def written(self, place: str, views: tuple[str, ...], init: str) -> Space:
        return measure(f"{place}/fs")

    def beside(self, place: str) -> int:
        return 0

    def forget(self, places: Places) -> None:
        pass


def make(place: str) -> None:
    """What an overlay writes to: ``fs`` and ``work`` in the directory ``place``. What is there stays."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(f"{place}/fs", 0o755)
        # As in Docker, whatever an archive says of its own root: those made in a private directory say 0700.
        os.chmod(f"{place}/fs", 0o755)
    with contextlib.suppress(FileExistsError):
        os.mkdir(f"{place}/work", 0o700)


def refusal(root: str) -> str:
    """Why overlayfs cannot be used below ``root``; empty if it can. Tries it, for a millisecond."""
    with tempfile.TemporaryDirectory(dir=root, prefix=".overlay-") as place:
        for name in ("lower", "upper", "work"):
            os.mkdir(f"{place}/{name}")
        try:
            # What unpacked layers hold.
            os.mknod(f"{place}/lower/gone", stat.S_IFCHR)
            os.setxattr(f"{place}/lower", _OPAQUE, b"y")
            fd = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                here = f"/proc/self/fd/{fd}"
                names = (("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work"))
                mount = m.new_mount("overlay", tuple((key, f"{here}/{name}") for key, name in names))
            finally:
                os.close(fd)
            try:
                os.mkdir("tried", dir_fd=mount)
            finally:
                os.close(mount)
        except OSError as error:
            return (error.strerror or "").lower()
    return ""
