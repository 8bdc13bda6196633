"""Which code a process runs: a later daemon must not go on with a zygote of other code.

The package may be replaced by one that says the same version (a build of the day, a patch of a distribution),
and the interpreter by another. The files' sizes and times tell, for less than reading them.
"""

from __future__ import annotations

import os
import sys

from sampan import __version__

_PARTS = ("sandbox", "linux", "wire", "spec")
"""What a zygote loads."""
_PRIME, _BITS = 1_000_003, (1 << 64) - 1


def edition() -> str:
    """Of the code that is installed at this moment: to be asked by a process as it starts."""
    package, value = os.path.dirname(os.path.dirname(__file__)), 0
    for part in _PARTS:
        with os.scandir(f"{package}/{part}") as entries:
            files = sorted((entry.name, entry.stat()) for entry in entries if entry.name.endswith(".py"))
        for name, found in files:
            for number in (len(name), found.st_size, found.st_mtime_ns):
                value = (value * _PRIME ^ number) & _BITS
    return f"{__version__} {sys.implementation.cache_tag} {value:016x}"
