"""Programs of Debian that a test needs, installed when they are absent."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


def program(name: str, package: str = "") -> str:
    """The path of program ``name``, installed by apt if need be. Skips the test where it cannot be had."""
    found = shutil.which(name)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        install = ["apt-get", "install", "-yqq", "--no-install-recommends", package or name]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (install, ["apt-get", "update", "-qq"], install):
            done = subprocess.run(command, capture_output=True, env=environment, check=False)
            if done.returncode == 0 and shutil.which(name):
                break
        found = shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name}")
    return found
