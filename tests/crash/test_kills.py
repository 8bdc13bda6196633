"""kill -9 of daemon, zygote, keepers and launchers in the middle of requests; then the next daemon.

Laws under test: a client gets an answer or the end of its connection, never silence; what was acknowledged is
so after the next start; and of everything else nothing is half there: no directory, cgroup, interface or
process that no container owns. The seed decides what is asked, who dies and how long after the question.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.root

ROUNDS = 14
NAMES = ("one", "two", "three")
PATIENCE = 20.0
"""Seconds after which an answer that has not come never will."""
CHATTER = ["sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); done | head -c 20000; exec sleep 1000"]


class Daemon:
    """A daemon with roots of its own that is killed and started again."""

    def __init__(self, root: Path, *options: str) -> None:
        self.root = root
        self._options = options
        self.start()

    def start(self) -> None:
        with open(self.root / "log", "ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "sampan.daemon",
                    "--data-root",
                    self.root / "data",
                    "--exec-root",
                    self.root / "run",
                    *self._options,
                ],
                stdout=log,
                stderr=log,
            )
        wait_for(self._serves, "the daemon serves")

    def _serves(self) -> bool:
        assert self.process.poll() is None, (self.root / "log").read_text()[-2000:]
        with suppress(OSError):
            return self.ask("GET", "/_ping")[0] == 200
        return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Remove all containers and stop as on any other day."""
        for key in self.containers():
            self.ask("DELETE", f"/containers/{key}?force=1&v=1")
        self.process.terminate()
        assert self.process.wait(PATIENCE) == 0

    def send(self, method: str, path: str, document: Any = None) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect(str(self.root / "run/sampan.sock"))
        body = b"" if document is None else json.dumps(document).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
        sock.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        return sock

    def ask(self, method: str, path: str, document: Any = None) -> tuple[int, Any]:
        return answer(self.send(method, path, document))

    def containers(self) -> dict[str, dict[str, Any]]:
        return {found["Id"]: found for found in self.ask("GET", "/containers/json?all=1")[1]}


def answer(sock: socket.socket) -> tuple[int, Any]:
    """Status and document; (0, None) when the connection ended without. A client that hangs fails here."""
    with sock, http.client.HTTPResponse(sock) as response:
        try:
            response.begin()
            body = response.read()
        except (http.client.HTTPException, ConnectionError):
            return 0, None
        with suppress(ValueError):
            return response.status, json.loads(body)
        return response.status, None


def wait_for(true: Callable[[], bool], what: str) -> None:
    """Ask until it is so."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, what
        select.select((), (), (), 0.01)


def processes(root: Path) -> dict[str, list[int]]:
    """The living processes of a daemon's zygotes by what they are."""
    parents: dict[int, int] = {}
    seeds: list[int] = []
    for entry in os.listdir("/proc"):
        with suppress(OSError, ValueError):
            command = Path("/proc", entry, "cmdline").read_bytes()
            fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
            kind, _, place = command.rstrip(b"\0").partition(b" ")
            if place.startswith(bytes(root)) and fields[0] != "Z":
                if kind == b"sampan-zygote":
                    parents[int(entry)] = int(fields[1])
                elif kind == b"sampan-seed":
                    seeds.append(int(entry))
    zygotes = [pid for pid in parents if pid == listener_of(root / "run/zygote.sock")]
    # The keepers of a zygote that was killed are nobody's children.
    keepers = [pid for pid in parents.keys() - zygotes if parents[pid] in (*zygotes, 1)]
    return {
        "zygote": zygotes,
        "seed": seeds,
        "keeper": keepers,
        "launcher": [pid for pid in parents.keys() - zygotes if pid not in keepers],
    }


def listener_of(path: Path) -> int:
    """The process that listens on a socket; 0 when none does."""
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(str(path))
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[0])
    return 0


def cgroups_of(root: Path, ids: set[str]) -> set[str]:
    """Which of ``ids``, and of whatever stands beside them, have a cgroup."""
    parent = parent_of(root)
    return {
        name
        for tree in Path("/sys/fs/cgroup").iterdir()
        if (tree / parent).is_dir()
        for name in os.listdir(tree / parent)
        if len(name) == 64
    } | {name for name in ids if (Path("/sys/fs/cgroup") / parent / name).is_dir()}


def parent_of(root: Path) -> str:
    from sampan.network.naming import bridge_name

    return bridge_name(str(root / "data"))


def ports_of(root: Path) -> int:
    with suppress(FileNotFoundError):
        return len(os.listdir(f"/sys/class/net/{parent_of(root)}/brif"))
    return 0


def untrue(daemon: Daemon) -> str:
    """What is wrong with the host, as the daemon tells it; "" when all is well."""
    root, found = daemon.root, daemon.containers()
    running = {key for key, one in found.items() if one["State"] in ("running", "paused")}
    every = set(found)
    checks = {
        "directories": (set(os.listdir(root / "data/containers")), every),
        "layers": (set(os.listdir(root / "data/snapshots")), every),
        "bundles": (set(os.listdir(root / "run/containers")), running),
        "cgroups": (cgroups_of(root, every), running),
        "interfaces": (ports_of(root), len(running)),
        "temporary files": (os.listdir(root / "data/tmp"), []),
    }
    ahead = set(os.listdir(root / "run/containers")) - every
    for what, (there, wanted) in checks.items():
        if what in ("bundles", "cgroups") and len(ahead) == 1:  # of the container that is expected next
            there = {name for name in there if name not in ahead}  # type: ignore[attr-defined]
        if there != wanted:
            return f"{what}: there are {there}, wanted {wanted}"
    for key in running:
        pid = daemon.ask("GET", f"/containers/{key}/json")[1]["State"]["Pid"]
        if key not in Path(f"/proc/{pid}/cgroup").read_text():
            return f"{key}: pid {pid} is not in its cgroup"
    if len(processes(root)["keeper"]) not in (len(running), len(running) + 1):  # one may stand by
        return f"keepers: {processes(root)} for {running}"
    return ""


def settled(daemon: Daemon) -> None:
    last = ""

    def well() -> bool:
        nonlocal last
        last = untrue(daemon)
        return not last

    try:
        wait_for(well, "settled")
    except AssertionError:
        raise AssertionError(last) from None


@contextmanager
def running_daemon(*options: str) -> Iterator[Daemon]:
    """A daemon below a short path, for its sockets; afterwards nothing of it is left anywhere."""
    with tempfile.TemporaryDirectory(prefix="sampan-kills-") as name:
        daemon = Daemon(Path(name), *options)
        try:
            yield daemon
            if daemon.process.poll() is None:
                daemon.end()
        except BaseException:
            daemon.kill()
            for pids in processes(daemon.root).values():
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            daemon.start()
            daemon.end()
            raise


def question(rng: random.Random) -> tuple[str, str, Any]:
    name = rng.choice(NAMES)
    body = {"Image": "sampan/base", "Cmd": CHATTER, "Tty": rng.random() < 0.3}
    return rng.choice(
        (
            ("POST", f"/containers/create?name={name}", body),
            ("POST", f"/containers/{name}/start", None),
            ("POST", f"/containers/{name}/start", None),
            ("POST", f"/containers/{name}/restart?t=0", None),
            ("POST", f"/containers/{name}/stop?t=0", None),
            ("POST", f"/containers/{name}/kill", None),
            ("DELETE", f"/containers/{name}?force=1&v=1", None),
        )
    )


@pytest.mark.parametrize(("seed", "options"), [(1, ("--userns", "host")), (2, ())])
def test_killed_in_the_middle(seed: int, options: tuple[str, ...]) -> None:
    rng = random.Random(seed)
    print("seed", seed)
    with running_daemon(*options) as daemon:
        root = daemon.root
        for name in NAMES:
            body = {"Image": "sampan/base", "Cmd": CHATTER}
            assert daemon.ask("POST", f"/containers/create?name={name}", body)[0] == 201
            assert daemon.ask("POST", f"/containers/{name}/start")[0] == 204
        for _ in range(ROUNDS):
            method, path, document = question(rng)
            victim = rng.choice(("daemon", "zygote", "seed", "keeper", "launcher"))
            sock = daemon.send(method, path, document)
            select.select((sock,), (), (), rng.uniform(0, 0.04))
            if victim != "daemon":
                for pid in rng.sample(found, 1) if (found := processes(root)[victim]) else ():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            else:
                daemon.kill()
            status, told = answer(sock)
            print(method, path, "while the", victim, "dies:", status)
            assert status or victim == "daemon"
            if victim != "daemon":
                daemon.kill()
            daemon.start()
            settled(daemon)
            if method == "POST" and status == 201:
                assert told["Id"] in daemon.containers()
            if method == "DELETE" and status == 204:
                assert daemon.ask("GET", f"/containers/{path.split('/')[2].partition('?')[0]}/json")[0] == 404
        for name in NAMES:
            assert daemon.ask("DELETE", f"/containers/{name}?force=1&v=1")[0] in (204, 404)
        settled(daemon)
        daemon.end()
        wait_for(lambda: not any(processes(root).values()), "the zygote ends with its daemon")
        assert not os.path.exists(f"/sys/class/net/{parent_of(root)}")
        assert str(root) not in Path("/proc/mounts").read_text()
        assert not cgroups_of(root, set())
        assert "Traceback" not in (root / "log").read_text()


def test_nothing_that_was_said_is_lost_while_no_daemon_runs() -> None:
    with running_daemon() as daemon:
        root = daemon.root
        body = {"Image": "sampan/base", "Cmd": ["sh", "-c", "echo ready; read go; seq 1 5000; exit 7"]}
        create = daemon.send("POST", "/containers/create?name=one", {**body, "OpenStdin": True})
        assert answer(create)[0] == 201
        assert daemon.ask("POST", "/containers/one/start")[0] == 204
        sock = daemon.send("POST", "/containers/one/attach?logs=1&stream=1&stdin=1&stdout=1")
        heard = b""
        while b"ready" not in heard:  # then the keeper has the connection
            heard += sock.recv(65536)
        daemon.kill()
        sock.sendall(b"go\n")
        sock.close()
        wait_for(lambda: bool(list(root.glob("data/containers/*/exit.json"))), "it ends by itself")
        daemon.start()
        assert daemon.ask("POST", "/containers/one/wait")[1]["StatusCode"] == 7
        (log,) = root.glob("data/containers/*/*-json.log")
        said = [json.loads(line)["log"] for line in log.read_text().splitlines()]
        assert said == ["ready\n", *(f"{number}\n" for number in range(1, 5001))]
        assert daemon.ask("DELETE", "/containers/one")[0] == 204


@pytest.mark.parametrize("victim", ["keeper", "launcher", "seed"])
def test_who_stands_by_is_killed(victim: str) -> None:
    """The next start has to do without, and nobody hears of it."""
    with running_daemon() as daemon:
        body = {"Image": "sampan/base", "Cmd": CHATTER}
        assert daemon.ask("POST", "/containers/create?name=one", body)[0] == 201
        wait_for(lambda: bool(processes(daemon.root)[victim]), "one stands by")
        (pid,) = processes(daemon.root)[victim]
        handle = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        select.select((handle,), (), ())
        os.close(handle)
        for _ in range(2):
            assert daemon.ask("POST", "/containers/one/start") == (204, None)
            settled(daemon)
            assert daemon.ask("POST", "/containers/one/kill") == (204, None)
            assert daemon.ask("POST", "/containers/one/wait")[0] == 200


def test_what_a_dead_launcher_made_ahead_is_cleared_away() -> None:
    """It waits for a container that may never come; those that come instead see to it."""
    with running_daemon() as daemon:

        def ahead() -> set[str]:
            return set(os.listdir(daemon.root / "run/containers")) - set(daemon.containers())

        body = {"Image": "sampan/base", "Cmd": CHATTER}
        assert daemon.ask("POST", "/containers/create?name=one", body)[0] == 201
        assert daemon.ask("POST", "/containers/one/start")[0] == 204
        wait_for(lambda: bool(ahead()), "another is expected")
        lost = ahead()
        for pid in processes(daemon.root)["launcher"]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        seen = set(lost)
        for _ in range(3):
            assert daemon.ask("POST", "/containers/one/restart?t=0")[0] == 204
            wait_for(lambda seen=frozenset(seen): bool(ahead() - seen), "another is expected")  # type: ignore[misc]
            seen |= ahead()
        wait_for(lambda: not lost & (ahead() | cgroups_of(daemon.root, set())), "what was lost is gone")
