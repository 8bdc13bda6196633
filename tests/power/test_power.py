"""What was acknowledged survives a loss of power, and nothing is half there; at a few moments of some work.

The long run is ``tools/power``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="needs /dev/fuse"),
    pytest.mark.skipif(not Path("/dev/loop-control").exists(), reason="needs loop devices"),
]


def test_promises_outlive_the_power() -> None:
    tool = Path(__file__).parents[2] / "tools/power"
    command = [sys.executable, str(tool), "--cuts", "5", "--steps", "20"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    total, promises = re.findall(r"(\d+) (?:losses|promises),", done.stdout)
    assert int(total) == 5
    assert int(promises) > 20
