"""kill -9 of the daemon during a back-off, a health check, a time limit, the end of an unhealthy container.

Laws under test: what the policy, the check or the limit would have done is done by the next daemon or by the
keeper; no process, cgroup or directory is left that no container owns (see ``test_kills``).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.crash.test_kills import Daemon, running_daemon, settled, wait_for

pytestmark = pytest.mark.root

IMAGE = "sampan/base"
SECOND = 1_000_000_000
FOREVER = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done"]


def start(daemon: Daemon, name: str, command: list[str], host: Any = None, **config: Any) -> None:
    body = {"Image": IMAGE, "Cmd": command, "HostConfig": host or {}, **config}
    status, told = daemon.ask("POST", f"/containers/create?name={name}", body)
    assert status == 201, told
    assert daemon.ask("POST", f"/containers/{name}/start")[0] == 204


def inspect(daemon: Daemon, name: str) -> Any:
    return daemon.ask("GET", f"/containers/{name}/json")[1]


def status(daemon: Daemon, name: str) -> str:
    return str(inspect(daemon, name)["State"]["Status"])


def pids_of(daemon: Daemon, name: str) -> list[int]:
    """The living processes in a container's cgroup."""
    key = inspect(daemon, name)["Id"]
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if key in Path("/proc", entry, "cgroup").read_text():
                    found.append(int(entry))
            except OSError:
                continue
    return found


def command_of(pid: int) -> bytes:
    """Its arguments; nothing for one that has just ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_killed_while_a_container_waits_for_its_start() -> None:
    with running_daemon() as daemon:
        start(daemon, "loops", ["sh", "-c", "exit 3"], {"RestartPolicy": {"Name": "always"}})
        wait_for(lambda: inspect(daemon, "loops")["RestartCount"] >= 4, "it waits")
        wait_for(lambda: status(daemon, "loops") == "restarting", "it waits")
        daemon.kill()
        daemon.start()
        assert inspect(daemon, "loops")["RestartCount"] >= 4
        wait_for(lambda: inspect(daemon, "loops")["RestartCount"] >= 6, "it is started again")
        assert daemon.ask("POST", "/containers/loops/stop?t=0")[0] == 204
        assert status(daemon, "loops") == "exited"
        settled(daemon)


def test_what_was_stopped_by_hand_stays_so() -> None:
    with running_daemon() as daemon:
        for name, policy in (("unless", "unless-stopped"), ("always", "always"), ("no", "no")):
            start(daemon, name, FOREVER, {"RestartPolicy": {"Name": policy}})
            assert daemon.ask("POST", f"/containers/{name}/stop?t=0")[0] == 204
        daemon.kill()
        daemon.start()
        wait_for(lambda: status(daemon, "always") == "running", "as in Docker, always comes back")
        assert (status(daemon, "unless"), status(daemon, "no")) == ("exited", "exited")
        settled(daemon)


def test_what_ends_while_there_is_no_daemon_gets_its_policy() -> None:
    with running_daemon() as daemon:
        for name, policy in (("fails", "on-failure"), ("no", "no")):
            start(daemon, name, ["sleep", "1000"], {"RestartPolicy": {"Name": policy}})
        pids = [inspect(daemon, name)["State"]["Pid"] for name in ("fails", "no")]
        daemon.kill()
        for pid in pids:
            os.kill(pid, 9)
        for pid in pids:
            wait_for(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), "it has ended")  # type: ignore[misc]
        daemon.start()
        wait_for(lambda: status(daemon, "fails") == "running", "it is started again")
        assert inspect(daemon, "fails")["RestartCount"] == 1
        assert status(daemon, "no") == "exited"
        settled(daemon)


def test_killed_during_a_check() -> None:
    with running_daemon() as daemon:
        check = {
            "Test": ["CMD-SHELL", "touch /begun; sleep 3333; true"],
            "Interval": SECOND // 10,
            "Timeout": SECOND,
            "Retries": 1,
        }
        start(daemon, "web", FOREVER, Healthcheck=check)

        def checks() -> int:
            return sum(command_of(pid) == b"sleep\x003333\x00" for pid in pids_of(daemon, "web"))

        wait_for(lambda: checks() == 1, "it is checked")
        daemon.kill()
        daemon.start()
        assert inspect(daemon, "web")["State"]["Health"]["Status"] == "starting"

        def judged() -> bool:
            assert checks() <= 2  # the dead daemon's is ended by the keeper, in its time
            return bool(inspect(daemon, "web")["State"]["Health"]["Status"] == "unhealthy")

        wait_for(judged, "the next daemon's check has taken too long")
        log = inspect(daemon, "web")["State"]["Health"]["Log"]
        assert log[0]["Output"] == "Health check exceeded timeout (1s)"
        assert daemon.ask("POST", "/containers/web/pause")[0] == 204
        assert daemon.ask("POST", "/containers/web/unpause")[0] == 204
        settled(daemon)


def test_killed_over_an_unhealthy_container() -> None:
    with running_daemon() as daemon:
        check = {"Test": ["CMD-SHELL", "test ! -e /ill"], "Interval": SECOND // 10, "Retries": 1}
        host = {"RestartPolicy": {"Name": "on-unhealthy"}}
        script = "trap '' TERM; while :; do sleep 0.05; done"
        start(daemon, "web", ["sh", "-c", script], host, Healthcheck=check, StopTimeout=1)
        sock = daemon.send("GET", "/events?filters=" + '{"event":{"kill":true}}'.replace('"', "%22"))
        made = daemon.ask("POST", "/containers/web/exec", {"Cmd": ["touch", "/ill"]})[1]
        assert daemon.ask("POST", f"/exec/{made['Id']}/start", {"Detach": True})[0] == 200
        data = b""
        while b'"kill"' not in data:
            data += sock.recv(4096)
        daemon.kill()
        sock.close()
        daemon.start()
        # It has forgotten nothing: the container is ended and started again, and is ill as it was before.
        wait_for(lambda: inspect(daemon, "web")["RestartCount"] >= 1, "it is started again")
        assert daemon.ask("DELETE", "/containers/web?force=1")[0] == 204
        settled(daemon)


def test_killed_during_a_time_limit() -> None:
    with running_daemon() as daemon:
        host = {"Annotations": {"io.sampan.timeout": "1s"}}
        script = "trap '' TERM; while :; do sleep 0.05; done"
        start(daemon, "web", ["sh", "-c", script], host, StopTimeout=1)
        found = inspect(daemon, "web")
        daemon.kill()
        bundle = daemon.root / "run/containers" / found["Id"]
        wait_for(lambda: not bundle.exists(), "the keeper has ended it")
        assert not os.path.exists(f"/proc/{found['State']['Pid']}")
        daemon.start()
        state = inspect(daemon, "web")["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", 137)
        assert state["Error"] == "the container was ended after its time limit of 1s"
        settled(daemon)
