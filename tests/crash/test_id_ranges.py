"""Two sandboxes never have an id in common: what the kernel says while many start and daemons are killed."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from tests.crash.test_kills import Daemon, answer, running_daemon, wait_for

pytestmark = pytest.mark.root

COUNT = 10


def maps(containers: Iterable[str]) -> dict[int, tuple[int, int]]:
    """(first, one past the last) host id of each user namespace that a process of the containers is in."""
    found: dict[int, tuple[int, int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            groups = (path / "cgroup").read_text()
            if any(container in groups for container in containers):
                for kind in ("uid_map", "gid_map"):
                    # A set-up child may have the host's still, or none yet.
                    _, base, count = map(int, (path / kind).read_text().split() or (0, 0, 0))
                    if base:
                        namespace = os.stat(path / "ns/user").st_ino
                        assert found.setdefault(namespace, (base, base + count)) == (base, base + count)
    return found


def _run_at_least(number: int, containers: Iterable[str]) -> bool:
    return len(maps(containers)) >= number


def assert_apart(containers: Iterable[str]) -> int:
    """How many user namespaces there are."""
    found = sorted(maps(containers).values())
    for (_, end), (start, _) in itertools.pairwise(found):
        assert end <= start, found
    return len(found)


def ask_all(daemon: Daemon, verb: str, containers: Iterable[str]) -> None:
    """Ask for all at once; a daemon that dies meanwhile does not answer."""
    asked = [daemon.send("POST", f"/containers/{container}/{verb}") for container in containers]
    for sock in asked:
        with suppress(OSError):
            answer(sock)


def test_no_two_sandboxes_share_ids_whatever_is_killed() -> None:
    with running_daemon() as daemon, running_daemon() as neighbour:
        body = {"Image": "sampan/base", "Cmd": ["sleep", "1000"]}
        made = {
            one: [one.ask("POST", "/containers/create", body)[1]["Id"] for _ in range(COUNT)]
            for one in (daemon, neighbour)
        }
        everybody = [container for containers in made.values() for container in containers]
        for more in (1, COUNT // 2):
            waiting = [daemon.send("POST", f"/containers/{container}/start") for container in made[daemon]]
            wait_for(partial(_run_at_least, more, made[daemon]), "some have begun to run")
            daemon.kill()
            for sock in waiting:
                sock.close()
            assert_apart(everybody)
            daemon.start()
            ask_all(neighbour, "start", made[neighbour])
            ask_all(daemon, "start", made[daemon])
            assert assert_apart(everybody) == 2 * COUNT
            ask_all(daemon, "kill", made[daemon][::2])
            ask_all(neighbour, "restart?t=0", made[neighbour][::2])
            assert_apart(everybody)
