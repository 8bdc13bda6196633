"""``--network|pid|ipc container:X``: what is shared, and for how long. Words and outcomes are Docker's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from tests.e2e.serving import Daemon
from tests.e2e.talk import ask

pytestmark = [pytest.mark.root, pytest.mark.e2e]

Docker: TypeAlias = Callable[..., str]

WORKS = ("sleep", "600")


@pytest.fixture
def docker(daemon: Daemon, docker: str) -> Iterator[Docker]:
    """Run docker with arguments; its output, or its error if it ``fails``. Cleans up at the end."""

    def run(*arguments: str, fails: bool = False) -> str:
        done = subprocess.run(
            [docker, "-H", daemon.host, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode != 0) is fails, (arguments, done)
        return done.stderr if fails else done.stdout

    yield run
    left = run("ps", "-aq", "--filter", "name=join-").split()
    if left:
        run("rm", "-f", *left)


def inspect(docker: Docker, name: str) -> Any:
    return json.loads(docker("inspect", name))[0]


@pytest.fixture
def donor(docker: Docker) -> str:
    """The id of join-x, whose namespaces may be joined."""
    return docker("run", "-d", "--name", "join-x", "--ipc", "shareable", "busybox", *WORKS).strip()


class TestNetwork:
    def test_address_names_and_files_are_shared(self, docker: Docker, donor: str) -> None:
        shown = docker("exec", "join-x", "sh", "-c", "ip -4 -o a; hostname; cat /etc/hosts /etc/hostname")
        joined = "echo mark >>/etc/hosts; ip -4 -o a; hostname; grep -v mark /etc/hosts; cat /etc/hostname"
        assert docker("run", "--rm", "--network", "container:join-x", "busybox", "sh", "-c", joined) == shown
        assert "mark" in docker("exec", "join-x", "cat", "/etc/hosts")

    def test_what_one_serves_the_other_reaches(self, docker: Docker, donor: str) -> None:
        docker("exec", "-d", "join-x", "sh", "-c", "echo hello | nc -l -p 80 127.0.0.1; sleep 600")
        ask = "until netstat -ltn | grep -q :80; do :; done; nc 127.0.0.1 80"
        seen = docker(
            "run", "--rm", "-u", "1000", "--network", f"container:{donor}", "busybox", "sh", "-c", ask
        )
        assert seen == "hello\n"

    def test_as_inspect_shows_it(self, docker: Docker, donor: str) -> None:
        docker("run", "-d", "--name", "join-y", "--network", "container:join-x", "busybox", *WORKS)
        shown, owner = inspect(docker, "join-y"), inspect(docker, "join-x")
        assert shown["HostConfig"]["NetworkMode"] == f"container:{donor}"
        assert shown["Config"]["Hostname"] == donor[:12]
        assert shown["NetworkSettings"]["Networks"] == {}
        assert shown["NetworkSettings"]["SandboxID"] == ""
        for name in ("HostsPath", "HostnamePath", "ResolvConfPath"):
            assert shown[name] == owner[name] != ""
        assert shown["UserNamespace"] == owner["UserNamespace"]

    def test_the_network_ends_with_its_owner_and_comes_back_by_a_restart(
        self, docker: Docker, donor: str
    ) -> None:
        docker("run", "-d", "--name", "join-y", "--network", "container:join-x", "busybox", *WORKS)
        assert "eth0" in docker("exec", "join-y", "ip", "-o", "a")
        docker("restart", "-t", "0", "join-x")
        assert "eth0" not in docker("exec", "join-y", "ip", "-o", "a")
        docker("restart", "-t", "0", "join-y")
        assert docker("exec", "join-y", "ip", "-o", "a") == docker("exec", "join-x", "ip", "-o", "a")

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            (("-h", "x"), "hostname and the network mode"),
            (("-p", "80"), "port publishing and the container type network mode"),
            (("-P",), "port publishing and the container type network mode"),
            (("--expose", "80"), "port exposing and the container type network mode"),
            (("--dns", "9.9.9.9"), "dns and the network mode"),
            (("--add-host", "a:1.2.3.4"), "custom host-to-IP mapping and the network mode"),
            (
                ("--link", "join-x"),
                "container type network can't be used with links. This would result in undefined behavior",
            ),
        ],
    )
    def test_what_contradicts_it(
        self, docker: Docker, donor: str, flags: tuple[str, ...], words: str
    ) -> None:
        told = docker("create", "--network", "container:join-x", *flags, "busybox", fails=True)
        assert told.splitlines()[0] == f"Error response from daemon: conflicting options: {words}"

    def test_no_name_and_ones_own(self, docker: Docker) -> None:
        told = docker("create", "--network", "container:", "busybox", fails=True)
        assert "Invalid network mode: invalid container format container:<name|id>" in told
        docker("create", "--name", "join-self", "--network", "container:join-self", "busybox", "true")
        assert "cannot join own network" in docker("start", "join-self", fails=True)


class TestOthers:
    def test_processes_are_shared_and_end_together(self, docker: Docker, donor: str) -> None:
        assert "sleep 600" in docker("run", "--rm", "--pid", "container:join-x", "busybox", "ps")
        docker("run", "-d", "--name", "join-y", "--pid", "container:join-x", "busybox", *WORKS)
        docker("run", "--rm", "--pid", "container:join-x", "busybox", "sh", "-c", "kill -0 1")
        docker("kill", "join-x")
        assert docker("wait", "join-y") == "137\n"

    def test_an_end_of_who_joined_leaves_the_owner_alone(self, docker: Docker, donor: str) -> None:
        flags = ("--pid", "container:join-x", "--network", "container:join-x", "--ipc", "container:join-x")
        body = "sleep 600 & exit 3"
        made = docker("run", "-d", "--name", "join-y", *flags, "busybox", "sh", "-c", body)
        assert docker("wait", made.strip()) == "3\n"
        assert docker("exec", "join-x", "sh", "-c", "ps | grep -c 'sleep 60[0]'") == "1\n"

    def test_shared_memory_is_shared(self, docker: Docker, donor: str) -> None:
        docker("exec", "join-x", "sh", "-c", "echo text >/dev/shm/f; touch /dev/mqueue/q")
        look = "cat /dev/shm/f; ls /dev/mqueue; readlink /proc/self/ns/ipc"
        seen = docker("run", "--rm", "--ipc", "container:join-x", "busybox", "sh", "-c", look).split()
        assert seen[:2] == ["text", "q"]
        assert seen[2] == docker("exec", "join-x", "readlink", "/proc/self/ns/ipc").strip()

    def test_all_at_once_and_exec_as_a_user(self, docker: Docker, donor: str) -> None:
        flags = ("--pid", "container:join-x", "--network", "container:join-x", "--ipc", "container:join-x")
        docker("run", "-d", "--name", "join-y", *flags, "-u", "1000", "busybox", *WORKS)
        assert docker("exec", "-u", "app", "join-y", "id", "-u") == "1000\n"
        look = "for n in pid net ipc user; do readlink /proc/self/ns/$n; done"
        assert docker("exec", "join-y", "sh", "-c", look) == docker("exec", "join-x", "sh", "-c", look)
        for kind in ("mnt", "uts"):
            one, other = (
                docker("exec", name, "readlink", f"/proc/self/ns/{kind}") for name in ("join-x", "join-y")
            )
            assert one != other

    @pytest.mark.parametrize("kind", ["network", "pid", "ipc"])
    def test_a_container_that_does_not_run(self, docker: Docker, kind: str) -> None:
        known = docker("create", "--name", "join-x", "busybox", "true").strip()
        words = {
            "network": f"cannot join network of a non running container: {known}",
            "pid": f"container {known} is not running",
            "ipc": f"can't join IPC of container {known}: container {known} is not running",
        }
        docker("create", "--name", "join-y", f"--{kind}", "container:join-x", "busybox", "true")
        assert words[kind] in docker("start", "join-y", fails=True)
        state = inspect(docker, "join-y")["State"]
        assert (state["ExitCode"], state["Error"], state["Status"]) == (128, words[kind], "created")

    @pytest.mark.parametrize("kind", ["network", "pid", "ipc"])
    def test_a_container_that_there_is_not(self, docker: Docker, kind: str) -> None:
        told = docker("run", "--rm", f"--{kind}", "container:join-nope", "busybox", "true", fails=True)
        assert told.splitlines()[0] == "docker: Error response from daemon: No such container: join-nope"

    def test_private_ipc_is_not_given(self, docker: Docker) -> None:
        known = docker("run", "-d", "--name", "join-p", "busybox", *WORKS).strip()
        told = docker("run", "--rm", "--ipc", "container:join-p", "busybox", "true", fails=True)
        hint = "non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
        assert f"can't join IPC of container {known}: {hint}" in told

    def test_the_hosts_ids_of_whom_it_joins(self, docker: Docker) -> None:
        known = docker("run", "-d", "--name", "join-h", "--userns", "host", "busybox", *WORKS).strip()
        docker("run", "-d", "--name", "join-y", "--network", "container:join-h", "busybox", *WORKS)
        shown = inspect(docker, "join-y")["UserNamespace"]
        assert shown == {"Mode": "host", "Reason": f"container {known[:12]}, which it joins, has them"}
        docker("exec", "join-y", "ping", "-c", "1", "127.0.0.1")

    def test_two_owners_with_different_ids(self, docker: Docker, donor: str) -> None:
        docker("run", "-d", "--name", "join-p", "busybox", *WORKS)
        flags = ("--network", "container:join-x", "--pid", "container:join-p")
        docker("run", "-d", "--name", "join-y", *flags, "busybox", *WORKS)
        shown = inspect(docker, "join-y")["UserNamespace"]
        assert shown == {"Mode": "host", "Reason": "it joins containers whose user ids differ"}
        assert "eth0" in docker("exec", "join-y", "ip", "-o", "a")
        assert "sleep" in docker("exec", "join-y", "ps")

    def test_ids_stay_leased_until_the_last_has_ended(
        self, docker: Docker, donor: str, daemon: Daemon
    ) -> None:
        first = inspect(docker, "join-x")["UserNamespace"]
        docker("run", "-d", "--name", "join-y", "--network", "container:join-x", "busybox", *WORKS)
        docker("rm", "-f", "join-x")
        assert inspect(docker, "join-y")["UserNamespace"] == first
        docker("exec", "join-y", "true")
        status, _ = ask(daemon.socket, "POST", "/containers/join-y/kill")
        assert status == 204
