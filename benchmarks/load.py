#!/usr/bin/env python3
"""Many clients at once on an engine that runs many containers: errors, latencies, and what is left.

    benchmarks/load.py --engine /run/sampan/sampan.sock [--containers 500] [--clients 50] [--seconds 600]
                       [--operations N] [--image busybox] [--seed N]

The engine runs ``--containers`` that sleep, over several networks. Then each client does one piece of work
after the other, drawn at random from ``WORK``, until the time is over, or until N pieces are done in all.
Every answer is checked. Afterwards everything is removed, and what the engine then holds (memory,
descriptors, threads, processes, disk, directories, mounts) is compared with what it held before, when each
kind of work had been done once.

Exits with 1 if anything failed or anything but memory was left. Times alone say little on a busy machine.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from compare import Api, Engine

PER_NETWORK = 200  # containers; a bridge has 1,023 ports
BLOCK = os.urandom(64 << 10)
PATIENCE = 60.0


class Refused(Exception):
    """The engine answered what it should not have."""


@dataclass
class Load:
    """What the clients share."""

    sock: str
    image: str
    names: list[str] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)
    times: dict[str, list[float]] = field(default_factory=lambda: collections.defaultdict(list))
    errors: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def create(self, api: Api, name: str, *command: str, network: str = "none", **host: object) -> str:
        body = {
            "Image": self.image,
            "Cmd": command,
            "Labels": {"load": "1"},
            "HostConfig": {"NetworkMode": network, **host},
        }
        made: str = json.loads(api.call("POST", f"/containers/create?name={name}", body))["Id"]
        return made


class Client:
    """One connection, and the work it does; each method is one piece, timed as a whole."""

    def __init__(self, load: Load, number: int, seed: int) -> None:
        self.load, self.number = load, number
        self.random = random.Random(seed * 1000 + number)
        self.api = Api(load.sock)
        self.turn = 0

    def name(self) -> str:
        self.turn += 1
        return f"load-{self.number}-{self.turn}"

    def one(self) -> str:
        return self.random.choice(self.load.names)

    def run(self) -> None:
        """As ``run --rm``: attached, the output read to its end."""
        name = self.name()
        network = self.random.choice((*self.load.networks, "none"))
        command = ("sh", "-c", f"echo {name}; exit 3")
        self.load.create(self.api, name, *command, network=network, AutoRemove=True)
        with socket.socket(socket.AF_UNIX) as attached:
            attached.connect(self.load.sock)
            attached.sendall(
                f"POST /containers/{name}/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\n"
                "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n".encode()
            )
            output = attached.makefile("rb")
            while output.readline().strip():
                pass
            self.api.call("POST", f"/containers/{name}/start")
            said = output.read()[8:]
        expect(said == f"{name}\n".encode(), f"run: {said!r} of {name}")

    def exec(self) -> None:
        body = {"Cmd": ["sh", "-c", "exit 4"]}
        made = json.loads(self.api.call("POST", f"/containers/{self.one()}/exec", body))["Id"]
        self.api.call("POST", f"/exec/{made}/start", {"Detach": True})
        until = time.monotonic() + PATIENCE
        while (state := json.loads(self.api.call("GET", f"/exec/{made}/json")))["Running"]:
            expect(time.monotonic() < until, "exec does not end")
            time.sleep(0.002)
        expect(state["ExitCode"] == 4, f"exec: {state['ExitCode']}")

    def inspect(self) -> None:
        found = json.loads(self.api.call("GET", f"/containers/{self.one()}/json"))
        expect(found["State"]["Running"], "inspect: it does not run")

    def logs(self) -> None:
        said = self.api.call("GET", f"/containers/{self.one()}/logs?stdout=1")
        expect(said[8:] == b"up\n", f"logs: {said[:80]!r}")

    def ps(self) -> None:
        found = json.loads(self.api.call("GET", "/containers/json"))
        expect(len(found) >= len(self.load.names), f"ps: {len(found)}")

    def cp(self) -> None:
        name = self.one()
        archive = archive_of(f"from-{self.number}", BLOCK)
        raw(self.load.sock, "PUT", f"/containers/{name}/archive?path=/tmp", archive)
        back = self.api.call("GET", f"/containers/{name}/archive?path=/tmp/from-{self.number}")
        with tarfile.open(fileobj=io.BytesIO(back)) as tar:
            member = tar.extractfile(f"from-{self.number}")
            expect(member is not None and member.read() == BLOCK, "cp: not what was put there")

    def create(self) -> None:
        name = self.name()
        self.load.create(self.api, name, "true")
        self.api.call("DELETE", f"/containers/{name}")

    def connect(self) -> None:
        name, network = self.name(), self.random.choice(self.load.networks)
        self.load.create(self.api, name, "sleep", "1000", network="bridge")
        self.api.call("POST", f"/containers/{name}/start")
        self.api.call("POST", f"/networks/{network}/connect", {"Container": name})
        found = json.loads(self.api.call("GET", f"/containers/{name}/json"))
        expect(len(found["NetworkSettings"]["Networks"]) == 2, "connect: not on two networks")
        self.api.call("POST", f"/networks/{network}/disconnect", {"Container": name})
        self.api.call("DELETE", f"/containers/{name}?force=1")

    def build(self) -> None:
        tag = self.name()
        dockerfile = f"FROM {self.load.image}\nRUN echo {tag} >/made\nLABEL load=1\n".encode()
        archive = archive_of("Dockerfile", dockerfile)
        said = raw(self.load.sock, "POST", f"/build?t={tag}&q=1&rm=1", archive)
        expect(b"sha256:" in said and b"errorDetail" not in said, f"build: {said[-200:]!r}")
        self.api.call("DELETE", f"/images/{tag}?force=1")

    def work(self, kind: str) -> None:
        begun = time.perf_counter()
        try:
            getattr(self, kind)()
        except Exception as error:
            with self.load.lock:
                self.load.errors.append(f"{kind}: {type(error).__name__}: {error}")
            self.api = Api(self.load.sock)
        else:
            with self.load.lock:
                self.load.times[kind].append((time.perf_counter() - begun) * 1e3)


# How often each kind is drawn.
WORK = {
    "run": 20,
    "exec": 20,
    "inspect": 20,
    "logs": 10,
    "ps": 5,
    "cp": 5,
    "create": 10,
    "connect": 5,
    "build": 2,
}


def expect(true: bool, what: str) -> None:
    if not true:
        raise Refused(what)


def archive_of(name: str, content: bytes) -> bytes:
    """A tar archive of one file."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def raw(sock: str, method: str, path: str, body: bytes) -> bytes:
    """Send an archive on a connection of its own; the whole answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(sock)
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\nConnection: close\r\n"
        )
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = connection.makefile("rb").read()
    expect(answer[9:12] == b"200", f"{method} {path}: {answer[:300]!r}")
    return answer


def held(engine: Engine) -> dict[str, float]:
    """What the engine holds: its daemon's and that one's descendants' resources, and the host's things."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(engine.sock)
        peer = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        daemon: int = struct.unpack("3i", peer)[0]
    root = json.loads(engine.api.call("GET", "/info"))["DockerRootDir"]
    processes = descendants(daemon)
    with open(f"/proc/{daemon}/mountinfo") as file:
        mounts = sum(root in line for line in file)
    usage = subprocess.run(["du", "-sxk", root], capture_output=True, text=True, check=False).stdout
    with open(f"/proc/{daemon}/status") as file:
        threads = next(int(line.split()[1]) for line in file if line.startswith("Threads"))
    return {
        "memory [MB]": round(engine.memory(), 1),
        "processes": len(processes),
        "descriptors of the daemon": len(os.listdir(f"/proc/{daemon}/fd")),
        "threads of the daemon": threads,
        "disk [MB]": round(int(usage.split()[0]) / 1024, 1),
        "directories of containers": len(os.listdir(f"{root}/containers")),
        "snapshots": len(os.listdir(f"{root}/snapshots")),
        "mounts": mounts,
    }


def descendants(daemon: int) -> set[int]:
    parents = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as file:
                parents[int(pid)] = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            continue
    own = {daemon}
    while more := {pid for pid, parent in parents.items() if parent in own} - own:
        own |= more
    return own


def populate(load: Load, count: int) -> None:
    """``count`` containers that sleep, over as many networks as they need and two at least."""
    api = Api(load.sock)
    for number in range(max(2, -(-count // PER_NETWORK))):
        body = {"Name": f"load-{number}", "Labels": {"load": "1"}}
        api.call("POST", "/networks/create", body)
        load.networks.append(f"load-{number}")
    local = threading.local()

    def start(number: int) -> str:
        if not hasattr(local, "api"):
            local.api = Api(load.sock)
        name, network = f"load-sleeps-{number}", load.networks[number % len(load.networks)]
        load.create(local.api, name, "sh", "-c", "echo up; exec sleep 100000", network=network)
        local.api.call("POST", f"/containers/{name}/start")
        return name

    with ThreadPoolExecutor(8) as pool:
        load.names += pool.map(start, range(count))


def clear(load: Load, *, networks: bool = True) -> None:
    api = Api(load.sock)
    every = json.loads(api.call("GET", '/containers/json?all=1&filters={"label":["load=1"]}'))
    local = threading.local()

    def remove(container: str) -> None:
        if not hasattr(local, "api"):
            local.api = Api(load.sock)
        local.api.call("DELETE", f"/containers/{container}?force=1")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(remove, (found["Id"] for found in every)))
    if networks:
        for name in load.networks:
            api.call("DELETE", f"/networks/{name}")
    api.call("POST", "/build/prune?all=1")


def drive(load: Load, clients: int, seconds: float, operations: int, seed: int) -> None:
    until = time.monotonic() + seconds
    left = [operations] if operations else [1 << 60]

    def serve(number: int) -> None:
        client = Client(load, number, seed)
        while time.monotonic() < until:
            with load.lock:
                if left[0] <= 0:
                    return
                left[0] -= 1
            client.work(client.random.choices(list(WORK), list(WORK.values()))[0])

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(serve, range(clients)))


def settle(engine: Engine, before: dict[str, float]) -> dict[str, float]:
    """What is held once nothing goes any more: what was asked for last is being given back."""
    until = time.monotonic() + PATIENCE
    while True:
        after = held(engine)
        if time.monotonic() > until or not leftovers(before, after):
            return after
        time.sleep(0.5)


def leftovers(before: dict[str, float], after: dict[str, float]) -> list[str]:
    # One keeper and its launcher stand by or are being forked; threads wait for work, as many as it took. The
    # database and its copy stay as large as they were with the most containers, 4 MB each for 500.
    room = {
        "memory [MB]": 1e9,
        "disk [MB]": 10,
        "processes": 2,
        "descriptors of the daemon": 4,
        "threads of the daemon": 40,
    }
    return [what for what, much in after.items() if much > before[what] + room.get(what, 0)]


def percentile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


def measure(options: argparse.Namespace, say: Callable[[str], None]) -> list[str]:
    """Do it all; what was wrong, one line each."""
    engine = Engine("ours", options.engine, shutil.which("sampan") or "sampan", options.image)
    load = Load(options.engine, options.image)
    try:
        populate(load, 2)
        first = Client(load, 999, options.seed)
        for kind in WORK:
            first.work(kind)
        clear(load)
        load = Load(options.engine, options.image, errors=load.errors)
        time.sleep(1)
        before = held(engine)
        begun = time.monotonic()
        populate(load, options.containers)
        say(f"{options.containers} containers started in {time.monotonic() - begun:.1f} s, 8 at a time")
        full = held(engine)
        begun = time.monotonic()
        drive(load, options.clients, options.seconds, options.operations, options.seed)
        took = time.monotonic() - begun
    finally:
        clear(load)
    after = settle(engine, before)
    done = sum(map(len, load.times.values()))
    say(f"{done} pieces of work in {took:.0f} s by {options.clients} clients, {len(load.errors)} failed\n")
    say("| work | times | median [ms] | 90 % | 99 % | longest |\n|---|---:|---:|---:|---:|---:|")
    for kind, times in load.times.items():
        shares = " | ".join(f"{percentile(times, share):.0f}" for share in (0.5, 0.9, 0.99, 1))
        say(f"| {kind} | {len(times)} | {shares} |")
    say("\n| held | before | full | after |\n|---|---:|---:|---:|")
    for what, much in before.items():
        say(f"| {what} | {much} | {full[what]} | {after[what]} |")
    wrong = [f"{count} times {error}" for error, count in collections.Counter(load.errors).most_common(20)]
    return wrong + [f"left: {what}: {before[what]}, then {after[what]}" for what in leftovers(before, after)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", required=True, help="the engine's socket")
    parser.add_argument("--containers", type=int, default=500)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--operations", type=int, default=0)
    parser.add_argument("--image", default="busybox")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 20))
    options = parser.parse_args()
    print(f"seed {options.seed}, load {os.getloadavg()[0]:.1f} at the beginning")
    wrong = measure(options, lambda line: print(line, flush=True))
    print("\n".join(wrong))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
