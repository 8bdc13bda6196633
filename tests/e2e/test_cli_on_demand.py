"""The daemon that the first command starts."""

from __future__ import annotations

import os
import select
import signal
import tempfile
from pathlib import Path

import pytest

from sampan.cli.ondemand import start
from sampan.client.api import Client
from sampan.client.connection import Address

pytestmark = [pytest.mark.e2e, pytest.mark.root]


def _ended(pid: int, patience: float = 30.0) -> bool:
    """Wait for process ``pid`` to end."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], patience)[0])
    finally:
        os.close(handle)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_it_answers_once_start_returns_and_outlives_the_command() -> None:
    with tempfile.TemporaryDirectory(prefix="sampan-", dir="/tmp") as folder:
        host = f"unix://{folder}/run/sampan.sock"
        roots = ("--data-root", f"{folder}/data", "--exec-root", f"{folder}/run")
        here = os.getcwd()
        assert start(host, ("-H", host, *roots, "--pidfile", f"{folder}/pid"))
        pid = int(Path(folder, "pid").read_text())
        try:
            assert os.getcwd() == here
            assert os.readlink(f"/proc/{pid}/cwd") == "/"
            assert os.getsid(pid) == pid
            assert Client(Address(host)).ping()["api-version"]
            assert "serving" in Path(folder, "run", "daemon.log").read_text()
        finally:
            os.kill(pid, signal.SIGTERM)
            assert _ended(pid)
