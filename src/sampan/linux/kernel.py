"""The running kernel: its version, and since when it runs."""

from __future__ import annotations

import os


def parse_release(release: str) -> tuple[int, int]:
    """(major, minor) of a release such as ``6.1.0-56-cloud-amd64``. Raises ``ValueError``."""
    major, _, rest = release.partition(".")
    minor = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    if not (major.isascii() and major.isdigit() and minor):
        raise ValueError(f"not a kernel release: {release!r}")
    return int(major), int(minor)


def version() -> tuple[int, int]:
    """(major, minor) of the running kernel."""
    return parse_release(os.uname().release)


def boot_id() -> str:
    """The kernel's name for the time since it started."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
