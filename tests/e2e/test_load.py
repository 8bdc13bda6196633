"""The short form of ``benchmarks/load.py``: clients side by side on an engine with containers that run.

It tells by what was answered wrong and by what is left, never by how long anything took.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e import serving

pytestmark = [pytest.mark.root, pytest.mark.e2e]

LOAD = Path(__file__).parents[2] / "benchmarks/load.py"


def test_ten_clients_beside_thirty_containers() -> None:
    with serving.daemon() as daemon:
        words = ("--engine", daemon.socket, "--containers", "30", "--clients", "10", "--operations", "150")
        done = subprocess.run(
            [sys.executable, LOAD, *words, "--seconds", "600"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
