"""What networks and open connections come to when the daemon is killed, and when the whole host is."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.linux.netlink import Netlink
from sampan.linux.nfnetlink import Firewall, delete_table
from sampan.linux.rtnetlink import NETLINK_ROUTE, delete_link_request
from sampan.network.naming import bridge_name
from tests.e2e import images, serving
from tests.e2e.talk import ask

pytestmark = [pytest.mark.root, pytest.mark.e2e]

NETWORKS = ("crash-a", "crash-b", "crash-c")
LISTEN = ("sh", "-c", "sleep 1000 | nc -l -p 9")
SHOWN = "{{.State.Pid}} {{json .NetworkSettings.Networks}} {{json .NetworkSettings.Ports}}"


class Host:
    """A daemon of one's own, and the commands of its user."""

    def __init__(self, root: Path) -> None:
        self.served = serving.Daemon(socket=f"{root}/run/sampan.sock", root=str(root))
        self.process = serving.start(self.served, ())

    def docker(self, *arguments: str) -> str:
        command = ["docker", "-H", self.served.host, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def runs(self, box: str) -> bool:
        return self.docker("inspect", "-f", "{{.State.Status}}", box) == "running"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def again(self) -> None:
        self.process = serving.start(self.served, ())


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    try:
        assert ask(made.served.socket, "POST", "/images/load?quiet=1", images.busybox())[0] == 200
        yield made
    finally:
        made.process.terminate()
        made.process.wait(20)
    assert serving.traces(str(tmp_path)) == []


def until(holds: Callable[[], bool]) -> None:
    """Return when it holds; a minute is more than any machine needs."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end


def lines_of(path: str, *, more_than: int) -> int:
    """The number of lines of a growing file, when it has grown."""
    counts = [0]

    def grown() -> bool:
        with open(path) as file:
            counts.append(len(file.readlines()))
        return counts[-1] > more_than

    until(grown)
    return counts[-1]


def test_no_connection_breaks_with_the_daemon(host: Host) -> None:
    docker = host.docker
    for name in NETWORKS:
        docker("network", "create", name)
        docker("run", "-d", "--name", f"{name}-server", "--network", name, "busybox", *LISTEN)
        asks = f"until nslookup {name}-server; do :; done >/dev/null; A=$(nslookup {name}-server"
        asks += " | awk '/^Address/ {a=$2} END {print a}'); while sleep 0.05; do echo x; done | nc $A 9"
        docker("run", "-d", "--name", f"{name}-client", "--network", name, "busybox", "sh", "-c", asks)
    docker("run", "-d", "--name", "crash-p", "-p", "127.0.0.1::9", "busybox", *LISTEN)
    boxes = [f"{name}-{role}" for name in NETWORKS for role in ("server", "client")] + ["crash-p"]
    logs = [docker("inspect", "-f", "{{.LogPath}}", f"{name}-server") for name in NETWORKS]
    before = [docker("inspect", "-f", SHOWN, box) for box in boxes]
    port = int(docker("port", "crash-p", "9").rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), 10) as open_one:
        open_one.sendall(b"one\n")
        heard = [lines_of(path, more_than=1) for path in logs]
        host.kill()
        heard = [lines_of(path, more_than=count) for path, count in zip(logs, heard, strict=True)]
        open_one.sendall(b"two\n")
        host.again()
        for path, count in zip(logs, heard, strict=True):
            lines_of(path, more_than=count)
        open_one.sendall(b"three\n")
        assert [docker("inspect", "-f", SHOWN, box) for box in boxes] == before
        lines_of(docker("inspect", "-f", "{{.LogPath}}", "crash-p"), more_than=2)
        assert docker("logs", "crash-p").split() == ["one", "two", "three"]
    for name in NETWORKS:
        docker("exec", f"{name}-server", "nslookup", f"{name}-client")
    docker("rm", "-f", *boxes)
    docker("network", "rm", *NETWORKS)


def test_the_host_is_started_again(host: Host) -> None:
    docker = host.docker
    for name in NETWORKS:
        docker("network", "create", name)
        run = ("run", "-d", "--restart", "always", "--network", name, "--name")
        docker(*run, f"{name}-box", "-p", "127.0.0.1::9", "busybox", "sleep", "1000")
    shown = "{{json .IPAM.Config}}"
    subnets = [docker("network", "inspect", "-f", shown, name) for name in NETWORKS]
    identities = docker("network", "ls", "-q", "--no-trunc", "--filter", "type=custom").split()
    pids = [int(docker("inspect", "-f", "{{.State.Pid}}", f"{name}-box")) for name in NETWORKS]
    host.kill()
    power_off(host, pids, [f"br-{identity[:12]}" for identity in identities])
    assert serving.traces(host.served.root) == []

    host.again()
    assert [docker("network", "inspect", "-f", shown, name) for name in NETWORKS] == subnets
    for name in NETWORKS:
        until(functools.partial(host.runs, f"{name}-box"))
        assert docker("exec", f"{name}-box", "nslookup", f"{name}-box") != ""
        assert docker("port", f"{name}-box", "9").startswith("127.0.0.1:")
    docker("rm", "-f", *(f"{name}-box" for name in NETWORKS))
    assert sorted(docker("network", "prune", "-f").split()[2:]) == list(NETWORKS)


def power_off(host: Host, pids: list[int], bridges: list[str]) -> None:
    """Take away all that a host that was switched off has not any more: processes, links, rules, /run."""
    root = host.served.root
    keepers = [parent_of(pid) for pid in pids]
    name = bridge_name(f"{root}/data")
    for pid in (*keepers, *pids, *zygotes(root)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not zygotes(root))
    with open("/proc/self/mountinfo") as file:
        mounted = [line.split()[4] for line in file if f" {root}/" in line]
    for path in reversed(mounted):
        subprocess.run(["umount", "-l", path], check=True)
    with Netlink(NETLINK_ROUTE) as netlink:
        netlink.attempt([delete_link_request(name=link) for link in (name, *bridges)])
    with Firewall() as firewall:
        ours = [
            (family, table)
            for family, table in firewall.tables()
            if table in bridges or table == name or table.startswith(f"{name}-")
        ]
        firewall.commit([delete_table(family, table) for family, table in ours])
    for found in (name, *bridges):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"/run/sampan-networks/{found}.json")
    shutil.rmtree(f"{root}/run")
    for directory, _, _ in list(os.walk(f"/sys/fs/cgroup/{name}", topdown=False)):
        os.rmdir(directory)
    for hierarchy in os.listdir("/sys/fs/cgroup"):
        for directory, _, _ in list(os.walk(f"/sys/fs/cgroup/{hierarchy}/{name}", topdown=False)):
            os.rmdir(directory)


def parent_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def zygotes(root: str) -> list[int]:
    found = []
    for trace in serving.traces(root):
        if trace.startswith("/proc/"):
            found.append(int(trace.split("/")[2]))
    return found
