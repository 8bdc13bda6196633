"""The process that packs one upper directory into a layer: started for it, confined to it, gone after it.

The working directory is the upper directory, descriptor 1 takes the archive, descriptor 2 one line if it
fails. Confined as ``unpacker`` is; what it reads was written by a container, which may still be writing.
"""

from __future__ import annotations

import os
import sys

from sampan.errors import Failure
from sampan.sandbox.pack import Packer, Style
from sampan.sandbox.unpacker import confine

# CAP_DAC_OVERRIDE, DAC_READ_SEARCH, SYS_ADMIN (trusted.* attributes)
_CAPABILITIES = (1, 2, 21)


def main() -> int:
    """Pack; 0 when all of it went out."""
    root = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    confine(root, _CAPABILITIES)
    try:
        packer = Packer(1, Style(overlay=True, sparse=True))
        packer.tree(root, None, b"")
        packer.finish()
    except (Failure, OSError) as error:
        os.write(2, f"{error}\n".encode("utf-8", "backslashreplace"))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
