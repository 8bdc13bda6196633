"""What a layer says of the layers below it: by names in an archive, by marks in a directory.

Theory: an archive hides an entry by a file ``.wh.NAME`` and all that lies below by ``.wh..wh..opq`` (OCI
image-spec, layer.md). In a directory the first is a character device 0:0, the second an attribute (kernel,
overlayfs.rst).
"""

from __future__ import annotations

import os
import stat

WHITEOUT = b".wh."
WHITEOUT_META = b".wh..wh."
OPAQUE = b".wh..wh..opq"
OPAQUE_XATTR = "trusted.overlay.opaque"


def is_whiteout(there: os.stat_result) -> bool:
    """Whether what looks like this hides what has its name below."""
    return stat.S_ISCHR(there.st_mode) and there.st_rdev == 0


def make_opaque(parent: int, base: bytes) -> None:
    """Have a directory hide all that is in it below. Changes the working directory."""
    os.fchdir(parent)
    os.setxattr(base, OPAQUE_XATTR, b"y", follow_symlinks=False)
