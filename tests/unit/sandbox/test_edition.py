"""An edition tells code from other code of the same version."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import sampan
from sampan.sandbox.edition import edition


def _of(place: Path) -> str:
    command = [sys.executable, "-c", "from sampan.sandbox.edition import edition; print(edition())"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(place)}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_same_code_is_one_edition_and_a_changed_file_another(tmp_path: Path) -> None:
    shutil.copytree(Path(sampan.__file__).parent, tmp_path / "sampan")
    assert _of(tmp_path) == edition()
    with open(tmp_path / "sampan/linux/mount.py", "a") as file:
        file.write("#\n")
    assert _of(tmp_path) != edition()
