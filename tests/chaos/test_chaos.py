"""Fifty kills of one seed; the long run is ``tools/chaos``, see docs/reliability.md."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.root,
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry"),
    pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft to look at the rules"),
]

TOOL = Path(__file__).parents[2] / "tools/chaos"


def test_nothing_is_lost_half_made_or_left() -> None:
    done = subprocess.run(
        [str(TOOL), "--seed", "1", "--mix", "even", "--kills", "50"],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
