"""Signals of a process that begins; each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGIN = "import os, signal; from sampan.daemon.ending import Ending; me = os.getpid();"
TOLD = "os.kill(me, signal.SIGTERM);"


@pytest.mark.parametrize(
    ("script", "status", "said"),
    [
        (f"{BEGIN} Ending(); {TOLD} print('went on')", 0, ""),
        (f"{BEGIN} ending = Ending(); ending.hold(); {TOLD} print(ending.told)", 0, "True\n"),
        (
            f"{BEGIN} signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); {TOLD} print('first', "
            "flush=True); Ending(); print('went on')",
            0,
            "first\n",
        ),
        (f"{BEGIN} ending = Ending(); ending.hold(); ending.release(); {TOLD}", -15, ""),
    ],
)
def test_who_is_told_to_end_ends_with_status_0(script: str, status: int, said: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (status, said)
