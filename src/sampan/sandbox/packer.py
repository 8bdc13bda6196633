"""The process that packs one upper directory into a layer: made for it, confined to it, gone after it.

It is forked by the zygote (``serve``) or, where there is none, started by itself (``main``): then the working
directory is the upper directory, descriptor 1 takes the archive, descriptor 2 one line if it fails. Where the
directory is a whole tree, the arguments are when it was copied, in ns, and the descriptors of the trees that
it was copied from. Confined as ``unpacker`` is; what it reads was written by a container, which may still be
writing.
"""

from __future__ import annotations

import os
import resource
import sys

from sampan.errors import Failure
from sampan.sandbox.pack import Packer, Style
from sampan.sandbox.trees import Changes, Trees
from sampan.sandbox.unpacker import confine
from sampan.sandbox.workers import READING

# CAP_DAC_OVERRIDE, DAC_READ_SEARCH, SYS_ADMIN (trusted.* attributes)
CAPABILITIES = (1, 2, 21)
_DEEP = 20_000  # Python frames; a path has at most 2,048 components


def main() -> int:
    """Pack; 0 when all of it went out."""
    root = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    made, below = int(sys.argv[1]) if sys.argv[1:] else 0, tuple(map(int, sys.argv[2:]))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sys.setrecursionlimit(_DEEP)
    confine(root, CAPABILITIES, READING, keep=below)
    try:
        serve(1, root, Trees(below), made)
    except (Failure, OSError) as error:
        os.write(2, f"{error}\n".encode("utf-8", "backslashreplace"))
        return 1
    return 0


def serve(out: int, root: int, below: Trees, made: int) -> None:
    """Write what the directory ``root`` changed to ``out``; see ``main`` for the others."""
    if below.fds:
        Changes(out, made).run(root, below)
        return
    packer = Packer(out, Style(overlay=True, sparse=True))
    packer.tree(root, None, b"")
    packer.finish()


if __name__ == "__main__":
    sys.exit(main())
