"""A small Debian as an image, for what busybox lacks: apt, perl, programs with privileges.

The tree is that of $SAMPAN_TEST_DEBIAN, or is made once by debootstrap and kept in the temporary directory.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile

NAME = "debian:12"
_SUITE = "bookworm"


@functools.cache
def tree() -> str | None:
    """The path of a Debian's root; None where it cannot be had (no network, no debootstrap)."""
    given = os.environ.get("SAMPAN_TEST_DEBIAN")
    if given:
        return given
    kept = f"{tempfile.gettempdir()}/sampan-test-{_SUITE}"
    if os.path.exists(kept):
        return kept
    if shutil.which("debootstrap") is None:
        return None
    made = f"{kept}.{os.getpid()}"
    command = ["debootstrap", "--variant=minbase", _SUITE, made, "http://deb.debian.org/debian"]
    try:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300)
        os.rename(made, kept)
    except (OSError, subprocess.SubprocessError):
        shutil.rmtree(made, ignore_errors=True)
        return None
    return kept


def load(host: str, root: str) -> None:
    """Give the engine at ``host`` the image."""
    with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as packing:
        command = ["docker", "-H", host, "import", "-", NAME]
        subprocess.run(command, check=True, stdin=packing.stdout, stdout=subprocess.DEVNULL, timeout=120)
