#!/usr/bin/env python3
"""Measure this engine against its peers in the same run, in turns, so that a busy machine disturbs all alike.

    benchmarks/compare.py --ours /run/sampan/sampan.sock --peer /tmp/peer/docker.sock [--sampan PROGRAM]
                          [--podman podman] [--image busybox] [--reps 20] [--rounds 3] [--only WORDS]

All engines need the image, which has sleep and true; podman is measured by its command line alone, and only
when it is named. Prints a Markdown table of medians (minimum to maximum), the ratios to the peers and the
targets. Times alone say little on a shared machine; the ratio does. Memory is the proportional set size of
every process of the engine: the daemon, its descendants, and whatever names a container of its on its command
line.

Short rows are measured --reps times, those of a hundred containers and of 5,000 files --rounds times. --only
takes the parts that are wanted of: lives, execs, commands, hundred, files.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import itertools
import json
import os
import re
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterable, Iterator

Sample = dict[str, float]

LABEL = "compare"


class Api:
    """One keep-alive connection to an engine."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")

    def ask(self, method: str, path: str, body: object = None) -> None:
        data = json.dumps(body).encode() if body is not None else b""
        head = f"{method} /v1.41{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        self.socket.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)

    def call(self, method: str, path: str, body: object = None) -> bytes:
        self.ask(method, path, body)
        status = int(self.file.readline().split()[1])
        headers = {}
        while line := self.file.readline().strip().lower():
            name, _, value = line.partition(b":")
            headers[name] = value.strip()
        if headers.get(b"transfer-encoding") == b"chunked":
            reply = b""
            while size := int(self.file.readline(), 16):
                reply += self.file.read(size)
                self.file.readline()
            self.file.readline()
        else:
            reply = self.file.read(int(headers.get(b"content-length", 0)))
        if status >= 400:
            raise RuntimeError(f"{method} {path}: {status} {reply.decode(errors='replace')}")
        return reply


class Engine:
    def __init__(self, name: str, sock: str, program: str, image: str) -> None:
        self.name, self.sock, self.program, self.image = name, sock, program, image
        self.api = Api(sock)
        self.environment = {**os.environ, "DOCKER_HOST": f"unix://{sock}", "SAMPAN_HOST": f"unix://{sock}"}

    def command(self, program: str, *arguments: str) -> float:
        start = time.perf_counter()
        subprocess.run([program, *arguments], env=self.environment, check=True, stdout=subprocess.DEVNULL)
        return (time.perf_counter() - start) * 1e3

    def create(self, network: str, *command: str) -> str:
        body = {"Image": self.image, "Cmd": command, "HostConfig": {"NetworkMode": network}}
        found: str = json.loads(self.api.call("POST", "/containers/create", body))["Id"]
        return found

    def life(self, network: str) -> Sample:
        marks = [time.perf_counter()]
        container = self.create(network, "true")
        marks.append(time.perf_counter())
        for method, path in (("POST", "/start"), ("POST", "/wait"), ("DELETE", "")):
            self.api.call(method, f"/containers/{container}{path}")
            marks.append(time.perf_counter())
        steps = [(after - before) * 1e3 for before, after in itertools.pairwise(marks)]
        names = ("create", "start", "wait", "remove")
        sample = {f"API {name}, {network} [ms]": step for name, step in zip(names, steps, strict=True)}
        return {**sample, f"API create, start, wait, remove; {network} [ms]": sum(steps)}

    def sleeper(self, api: Api) -> str:
        """A running container, created and started over ``api``."""
        body = {"Image": self.image, "Cmd": ("sleep", "1000"), "Labels": {LABEL: str(os.getpid())}}
        found: str = json.loads(api.call("POST", "/containers/create", body))["Id"]
        api.call("POST", f"/containers/{found}/start")
        return found

    def timed(self, path: str, count: int) -> float:
        """The mean time of a request, in milliseconds."""
        start = time.perf_counter()
        for _ in range(count):
            self.api.call("GET", path)
        return (time.perf_counter() - start) / count * 1e3

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        container = self.create("none", "sleep", "1000")
        self.api.call("POST", f"/containers/{container}/start")
        try:
            yield container
        finally:
            self.api.call("DELETE", f"/containers/{container}?force=1")

    def exec(self, container: str) -> float:
        """From the request to start it to the end of its output."""
        wanted = {"Cmd": ["true"], "AttachStdout": True}
        made = json.loads(self.api.call("POST", f"/containers/{container}/exec", wanted))["Id"]
        start = time.perf_counter()
        stream = Api(self.sock)
        stream.ask("POST", f"/exec/{made}/start", {"Detach": False})
        stream.file.read()
        return (time.perf_counter() - start) * 1e3

    def rest(self) -> None:
        """Wait until none of the engine's processes has begun or ended for two seconds, a minute at most."""
        since, before = time.monotonic(), set[int]()
        deadline = since + 60
        while time.monotonic() < min(since + 2, deadline):
            now = self.processes()
            if now != before:
                since, before = time.monotonic(), now
            time.sleep(0.1)

    def processes(self, containers: Iterable[str] = ()) -> set[int]:
        """Those of the engine, with those that name one of ``containers``."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(self.sock)
            daemon = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        parents, here = {}, os.readlink("/proc/self/ns/pid")
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/ns/pid") == here:
                    with open(f"/proc/{pid}/stat") as file:
                        parents[int(pid)] = int(file.read().rpartition(")")[2].split()[1])
        own = {daemon} | {pid for pid in parents if any(c in command_line(pid) for c in containers)}
        while more := {pid for pid, parent in parents.items() if parent in own} - own:
            own |= more
        return own

    def memory(self, containers: Iterable[str] = ()) -> float:
        """Megabytes, while ``containers`` run."""
        total = 0
        for pid in self.processes(containers):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as file:
                total += int(re.findall(r"^Pss:\s+(\d+)", file.read(), re.M)[0])
        return total / 1024


def command_line(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline") as file:
        return file.read()
    return ""


MANY, SIDE_BY_SIDE, FILES = 100, 8, 5000
PINGS, INSPECTS = 300, 100

# What each row is to reach: so many times as fast as dockerd; "<=": no more than that.
TARGETS = {
    "`run --rm … true`, bridge, own command line [ms]": "15",
    "`run --rm … true`, none, own command line [ms]": "13",
    "`run --rm … true`, bridge, docker's [ms]": "9",
    "API create, start, wait, remove; bridge [ms]": "24",
    "API create, start, wait, remove; none [ms]": "18",
    "`exec C true`, own command line [ms]": "4",
    "API exec, start to end [ms]": "12",
    "`start` of a created one, own command line [ms]": "9",
    "start 100, one by one [s]": "10",
    "start 100, 8 at a time [s]": "8",
    "memory, idle [MB]": "<= 45",
    "memory, each running container [MB]": "<= 0.34",
    "API list of 100 [ms]": "8",
    "`ps`, few containers, own command line [ms]": "1",
    "`ps`, 100 containers, own command line [ms]": "1",
    "`_ping` over one connection [ms]": "1",
    "API inspect over one connection [ms]": "1",
    "remove 100 running ones in one command [s]": "12",
    "`cp` of 5000 files in [s]": "3",
    "`cp` of 5000 files out [s]": "3",
    "`commit` of 5000 new files [s]": "2",
    "`diff` of 5000 new files [ms]": "4",
}


def lives(engine: Engine, docker: str) -> Sample:
    sample: Sample = {}
    for network in ("bridge", "none"):
        run = ("run", "--rm", "--network", network, engine.image, "true")
        sample[f"`run --rm … true`, {network}, own command line [ms]"] = engine.command(engine.program, *run)
        sample[f"`run --rm … true`, {network}, docker's [ms]"] = engine.command(docker, *run)
        sample |= engine.life(network)
    return sample


def execs(engine: Engine, docker: str) -> Sample:
    with engine.running() as container:
        return {
            "API exec, start to end [ms]": engine.exec(container),
            "`exec C true`, own command line [ms]": engine.command(engine.program, "exec", container, "true"),
            "`exec C true`, docker's [ms]": engine.command(docker, "exec", container, "true"),
        }


def commands(engine: Engine, docker: str) -> Sample:
    sample: Sample = {}
    for whose, program in (("own command line", engine.program), ("docker's", docker)):
        container = engine.create("bridge", "sleep", "1000")
        sample[f"`start` of a created one, {whose} [ms]"] = engine.command(program, "start", container)
        sample[f"`ps`, few containers, {whose} [ms]"] = engine.command(program, "ps")
        if program == engine.program:
            path = f"/containers/{container}/json"
            sample["`_ping` over one connection [ms]"] = engine.timed("/_ping", PINGS)
            sample["API inspect over one connection [ms]"] = engine.timed(path, INSPECTS)
        engine.api.call("DELETE", f"/containers/{container}?force=1")
    return sample


def hundred(engine: Engine, docker: str) -> Sample:
    """A hundred containers that sleep, started one by one, listed, removed; then side by side.

    What is left of them when it is interrupted goes by the label ``compare``.
    """
    try:
        return _hundred(engine, docker)
    finally:
        left = {"filters": json.dumps({"label": [f"{LABEL}={os.getpid()}"]}), "all": "1"}
        for each in json.loads(engine.api.call("GET", f"/containers/json?{urllib.parse.urlencode(left)}")):
            engine.api.call("DELETE", f"/containers/{each['Id']}?force=1")


def _hundred(engine: Engine, docker: str) -> Sample:
    engine.rest()
    sample = {"memory, idle [MB]": engine.memory()}
    start = time.perf_counter()
    found = [engine.sleeper(engine.api) for _ in range(MANY)]
    sample["start 100, one by one [s]"] = time.perf_counter() - start
    sample["memory, each running container [MB]"] = (
        engine.memory(found) - sample["memory, idle [MB]"]
    ) / MANY
    sample["API list of 100 [ms]"] = engine.timed("/containers/json", 20)
    sample["`ps`, 100 containers, own command line [ms]"] = engine.command(engine.program, "ps")
    sample["`ps`, 100 containers, docker's [ms]"] = engine.command(docker, "ps")
    sample["remove 100 running ones in one command [s]"] = engine.command(docker, "rm", "-f", *found) / 1e3
    own = threading.local()

    def another(_number: int) -> str:
        if not hasattr(own, "api"):
            own.api = Api(engine.sock)
        return engine.sleeper(own.api)

    with concurrent.futures.ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        start = time.perf_counter()
        found = list(pool.map(another, range(MANY)))
        sample["start 100, 8 at a time [s]"] = time.perf_counter() - start
    engine.command(docker, "rm", "-f", *found)
    return sample


def files(engine: Engine, docker: str) -> Sample:
    """By the own command line of each."""
    del docker
    sample: Sample = {}
    with tempfile.TemporaryDirectory() as place, engine.running() as container:
        os.mkdir(f"{place}/in")
        for number in range(FILES):
            with open(f"{place}/in/{number}", "w") as file:
                file.write(f"{number}\n" * 100)
        program = engine.program
        sample["`cp` of 5000 files in [s]"] = (
            engine.command(program, "cp", f"{place}/in", f"{container}:/in") / 1e3
        )
        sample["`cp` of 5000 files out [s]"] = (
            engine.command(program, "cp", f"{container}:/in", f"{place}/out") / 1e3
        )
        sample["`diff` of 5000 new files [ms]"] = engine.command(program, "diff", container)
        sample["`commit` of 5000 new files [s]"] = (
            engine.command(program, "commit", container, COMMITTED) / 1e3
        )
        engine.command(program, "rmi", COMMITTED)
    return sample


COMMITTED = "compare-committed"
PARTS = {"lives": lives, "execs": execs, "commands": commands, "hundred": hundred, "files": files}
LONG = ("hundred", "files")


def podman(program: str, image: str, part: str) -> Sample:
    """What podman's command line takes for the same."""

    def took(*arguments: str) -> float:
        start = time.perf_counter()
        subprocess.run([program, *arguments], check=True, stdout=subprocess.DEVNULL)
        return (time.perf_counter() - start) * 1e3

    def made(*arguments: str) -> str:
        return subprocess.run(
            [program, *arguments], check=True, text=True, stdout=subprocess.PIPE
        ).stdout.strip()

    sample: Sample = {}
    if part == "lives":
        for network in ("bridge", "none"):
            run = ("run", "--rm", "--network", network, image, "true")
            sample[f"`run --rm … true`, {network}, own command line [ms]"] = took(*run)
    elif part in ("execs", "commands"):
        container = made("create", image, "sleep", "1000")
        sample["`start` of a created one, own command line [ms]"] = took("start", container)
        sample["`exec C true`, own command line [ms]"] = took("exec", container, "true")
        sample["`ps`, few containers, own command line [ms]"] = took("ps")
        took("rm", "-f", "-t", "0", container)
    elif part == "hundred":
        start = time.perf_counter()
        found = [made("run", "-d", image, "sleep", "1000") for _ in range(MANY)]
        sample["start 100, one by one [s]"] = time.perf_counter() - start
        sample["remove 100 running ones in one command [s]"] = took("rm", "-f", "-t", "0", *found) / 1e3
        with concurrent.futures.ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            start = time.perf_counter()
            found = list(pool.map(lambda _: made("run", "-d", image, "sleep", "1000"), range(MANY)))
            sample["start 100, 8 at a time [s]"] = time.perf_counter() - start
        took("rm", "-f", "-t", "0", *found)
    return sample


def met(work: str, mine: float, ratio: float | None) -> str:
    """The target of a row, and whether it is met."""
    target = TARGETS.get(work)
    if target is None:
        return ""
    if target.startswith("<="):
        return f"{target}: {'met' if mine <= float(target[2:]) else '**not met**'}"
    return f"{target} x: {'-' if ratio is None else 'met' if ratio >= float(target) else '**not met**'}"


def table(samples: dict[str, dict[str, list[float]]], peers: list[str]) -> Iterator[str]:
    yield f"| work | sampan | {' | '.join(f'{name} | ratio' for name in peers)} | target |"
    yield f"|---|---:|{'---:|---:|' * len(peers)}---|"
    for work in sorted(samples, key=lambda work: list(TARGETS).index(work) if work in TARGETS else 99):
        values = samples[work]
        mine = statistics.median(values["sampan"]) if "sampan" in values else None
        if mine is None:
            continue
        cells, ratios = [shown(values["sampan"])], []
        for name in peers:
            found = values.get(name)
            ratios.append(statistics.median(found) / mine if found else None)
            cells += [shown(found), f"{ratios[-1]:.1f} x" if found else ""] if found else ["", ""]
        yield f"| {work} | {' | '.join(cells)} | {met(work, mine, ratios[0] if ratios else None)} |"


def shown(values: list[float]) -> str:
    digits = 3 if statistics.median(values) < 1 else 1
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ours", required=True)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--sampan", default="sampan")
    parser.add_argument("--docker", default="docker")
    parser.add_argument("--podman", default="")
    parser.add_argument("--image", default="busybox")
    parser.add_argument("--reps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(PARTS), choices=list(PARTS))
    options = parser.parse_args()
    engines = {
        "sampan": Engine("sampan", options.ours, options.sampan, options.image),
        "dockerd": Engine("dockerd", options.peer, options.docker, options.image),
    }
    samples: dict[str, dict[str, list[float]]] = {}

    def measure(name: str, part: str) -> Sample:
        if name == "podman":
            return podman(options.podman, options.image, part)
        return PARTS[part](engines[name], options.docker)

    names = [*engines, *(("podman",) if options.podman else ())]
    print(f"load at the beginning: {os.getloadavg()[0]:.1f}", file=sys.stderr)
    for part in options.only:
        count = options.rounds if part in LONG else options.reps
        for turn in range(count + (part not in LONG)):
            for name in names if turn % 2 else reversed(names):
                sample = measure(name, part)
                if turn == 0 and part not in LONG:  # the first one warms up
                    continue
                for work, value in sample.items():
                    samples.setdefault(work, {}).setdefault(name, []).append(value)
    print(f"load at the end: {os.getloadavg()[0]:.1f}", file=sys.stderr)
    print("\n".join(table(samples, names[1:])))


if __name__ == "__main__":
    main()
