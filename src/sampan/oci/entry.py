"""The way in: puts the stand-ins in place before anything else is loaded."""

from __future__ import annotations

import os
import sys

from sampan.oci.records import stand_in


def run_and_exit(words: list[str]) -> None:
    """Run ``oci …`` and leave without the interpreter's tear-down."""
    stand_in()
    from sampan.oci.main import main

    code = main(words[1:])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
