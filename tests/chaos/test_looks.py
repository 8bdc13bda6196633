"""What the chaos sees of processes."""

from __future__ import annotations

import os
import subprocess

import pytest

from sampan.sandbox import resolver
from tests.chaos import processes

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def test_sockets_by_which_containers_ask_for_names_are_told_apart() -> None:
    """They come and go with the networks that running containers are on, not with the number of either."""
    command = ["unshare", "--net", "cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as guest:
        assert guest.stdin is not None
        assert guest.stdout is not None
        guest.stdin.write(b"there\n")
        guest.stdin.flush()
        assert guest.stdout.readline() == b"there\n"  # so it is in its namespace
        before = processes.descriptors(os.getpid(), [guest.pid])
        udp, tcp = resolver.make(guest.pid)
        with udp, tcp:
            now = processes.descriptors(os.getpid(), [guest.pid])
            assert now == {**before, f"names of {guest.pid}": 2}
            assert sum(processes.descriptors(os.getpid()).values()) == sum(before.values()) + 2
        guest.stdin.close()
