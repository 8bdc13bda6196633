"""What was acknowledged survives a loss of power, and nothing is half there; at a few moments of some work.

The long run is ``tools/power``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.power import trial

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="needs /dev/fuse"),
    pytest.mark.skipif(not Path("/dev/loop-control").exists(), reason="needs loop devices"),
]


def test_promises_outlive_the_power() -> None:
    found = list(trial.run(1, cuts=5, steps=20))
    assert [loss for loss in found if loss.wrong] == []
    assert sum(loss.promised for loss in found) > 20
