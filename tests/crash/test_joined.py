"""kill -9 around containers that share namespaces: their ids stay theirs until the last of them has ended."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sampan.engine.idblocks import DEFAULT_DIRECTORY
from tests.crash.test_kills import Daemon, processes, running_daemon, wait_for

pytestmark = pytest.mark.root

SLEEP = ["sleep", "1000"]


def run(daemon: Daemon, name: str, **host: Any) -> str:
    body = {"Image": "sampan/base", "Cmd": SLEEP, "HostConfig": host}
    status, made = daemon.ask("POST", f"/containers/create?name={name}", body)
    assert status == 201, made
    assert daemon.ask("POST", f"/containers/{name}/start")[0] == 204
    return str(made["Id"])


def ids(daemon: Daemon, name: str) -> tuple[int, int]:
    shown = daemon.ask("GET", f"/containers/{name}/json")[1]["UserNamespace"]
    return shown.get("FirstHostID", 0), shown.get("Size", 0)


def state(daemon: Daemon, name: str) -> dict[str, Any]:
    found: dict[str, Any] = daemon.ask("GET", f"/containers/{name}/json")[1]["State"]
    return found


def keeper_of(daemon: Daemon, name: str) -> int:
    pid = state(daemon, name)["Pid"]
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1])


def claims(daemon: Daemon) -> list[str]:
    """The blocks of ids that the daemon has claimed."""
    found = []
    for path in Path(DEFAULT_DIRECTORY).glob("*.json"):
        with suppress(FileNotFoundError):
            if str(daemon.root) in path.read_text():
                found.append(path.name)
    return found


def test_ids_stay_theirs_whoever_is_killed() -> None:
    with running_daemon() as daemon:
        run(daemon, "owner", IpcMode="shareable")
        run(daemon, "guest", NetworkMode="container:owner", IpcMode="container:owner")
        run(daemon, "other")
        before = ids(daemon, "owner")
        assert ids(daemon, "guest") == before != ids(daemon, "other")
        mine = claims(daemon)
        assert mine
        daemon.kill()
        daemon.start()
        assert claims(daemon) == mine
        assert ids(daemon, "owner") == ids(daemon, "guest") == before
        # The owner is lost with its keeper, the guest lives on in what they shared.
        os.kill(keeper_of(daemon, "owner"), signal.SIGKILL)
        wait_for(lambda: not state(daemon, "owner")["Running"], "the owner has ended")
        assert state(daemon, "guest")["Running"]
        daemon.kill()
        daemon.start()
        assert ids(daemon, "guest") == before
        for name in ("next", "last"):
            run(daemon, name)
            assert ids(daemon, name) != before
        # Whoever comes back gets other ids than those that the guest still has.
        assert daemon.ask("POST", "/containers/owner/start")[0] == 204
        assert ids(daemon, "owner") != before
        daemon.end()
        assert claims(daemon) == []


def test_a_guest_whose_start_was_not_recorded() -> None:
    """The daemon dies while the guest starts: afterwards it runs, with the owner's ids, or it does not."""
    with running_daemon() as daemon:
        run(daemon, "owner")
        before = ids(daemon, "owner")
        body = {"Image": "sampan/base", "Cmd": SLEEP, "HostConfig": {"NetworkMode": "container:owner"}}
        for round_ in range(3):
            assert daemon.ask("POST", f"/containers/create?name=guest{round_}", body)[0] == 201
            sock = daemon.send("POST", f"/containers/guest{round_}/start")
            wait_for(lambda: len(processes(daemon.root)["keeper"]) > 0, "a keeper")
            daemon.kill()
            sock.close()
            daemon.start()
            found = state(daemon, f"guest{round_}")
            if found["Running"]:
                assert ids(daemon, f"guest{round_}") == before
                assert (
                    daemon.ask("GET", f"/containers/guest{round_}/json")[1]["NetworkSettings"]["Networks"]
                    == {}
                )
            else:
                assert daemon.ask("POST", f"/containers/guest{round_}/start")[0] == 204
                assert ids(daemon, f"guest{round_}") == before
        daemon.end()
