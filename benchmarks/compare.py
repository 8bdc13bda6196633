#!/usr/bin/env python3
"""Measure this engine against a peer in the same run, in turns, so that a busy machine disturbs both alike.

    benchmarks/compare.py --ours /run/sampan/sampan.sock --peer /tmp/peer/docker.sock [--sampan PROGRAM]
                          [--image busybox] [--reps 15]

Both engines need the image. Prints a Markdown table of medians with their spread and the ratio. Times alone
say little on a shared machine; the ratio does. Memory is the proportional set size of every process of the
engine: the daemon, its descendants, and whatever names one of its containers on its command line.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import socket
import statistics
import struct
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator

Sample = dict[str, float]


class Api:
    """One keep-alive connection to an engine."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")

    def call(self, method: str, path: str, body: object = None) -> bytes:
        data = json.dumps(body).encode() if body is not None else b""
        head = f"{method} /v1.41{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        self.socket.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
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
        return {**sample, f"API create to remove, {network} [ms]": sum(steps)}

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        container = self.create("none", "sleep", "1000")
        self.api.call("POST", f"/containers/{container}/start")
        try:
            yield container
        finally:
            self.api.call("DELETE", f"/containers/{container}?force=1")

    def exec(self, container: str) -> float:
        start = time.perf_counter()
        made = json.loads(self.api.call("POST", f"/containers/{container}/exec", {"Cmd": ["true"]}))["Id"]
        self.api.call("POST", f"/exec/{made}/start", {"Detach": True})
        while json.loads(self.api.call("GET", f"/exec/{made}/json"))["Running"]:
            pass
        return (time.perf_counter() - start) * 1e3

    def memory(self, containers: Iterable[str] = ()) -> float:
        """Megabytes, while ``containers`` run."""
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
        total = 0
        for pid in own:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as file:
                total += int(re.findall(r"^Pss:\s+(\d+)", file.read(), re.M)[0])
        return total / 1024


def command_line(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline") as file:
        return file.read()
    return ""


def one_round(engine: Engine, programs: dict[str, str]) -> Sample:
    sample: Sample = {}
    for network in ("none", "bridge"):
        sample |= engine.life(network)
        for name, program in programs.items():
            arguments = ("run", "--rm", "--network", network, engine.image, "true")
            sample[f"`{name} run --rm … true`, {network} [ms]"] = engine.command(program, *arguments)
    with engine.running() as container:
        sample["API exec true [ms]"] = engine.exec(container)
        for name, program in programs.items():
            sample[f"`{name} exec C true` [ms]"] = engine.command(program, "exec", container, "true")
    return sample


def memory(engine: Engine, count: int = 20) -> Sample:
    idle = engine.memory()
    with contextlib.ExitStack() as stack:
        busy = engine.memory([stack.enter_context(engine.running()) for _ in range(count)])
    return {"memory, idle [MB]": idle, "memory, each running container [MB]": (busy - idle) / count}


def table(samples: dict[str, dict[str, list[float]]], ours: str, peer: str) -> Iterator[str]:
    yield f"| work | {ours} | (min to max) | {peer} | (min to max) | ratio |"
    yield "|---|---:|---:|---:|---:|---:|"
    for work, by_engine in samples.items():
        mine, other = by_engine.get(ours), by_engine.get(peer)
        cells = [
            f"{statistics.median(v):.2f} | {min(v):.2f} to {max(v):.2f}" if v else "- | -"
            for v in (mine, other)
        ]
        ratio = f"{statistics.median(other) / statistics.median(mine):.1f}x" if mine and other else "-"
        yield f"| {work} | {cells[0]} | {cells[1]} | {ratio} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", required=True)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--sampan", default="sampan")
    parser.add_argument("--docker", default="docker")
    parser.add_argument("--image", default="busybox")
    parser.add_argument("--reps", type=int, default=15)
    options = parser.parse_args()
    engines = {
        "ours": (Engine("ours", options.ours, options.sampan, options.image), {"docker": options.docker}),
        "peer": (Engine("peer", options.peer, options.docker, options.image), {"docker": options.docker}),
    }
    samples: dict[str, dict[str, list[float]]] = {}

    def add(name: str, measure: Callable[[], Sample]) -> None:
        for work, value in measure().items():
            samples.setdefault(work, {}).setdefault(name, []).append(value)

    for repetition in range(options.reps + 1):
        order = list(engines) if repetition % 2 else list(reversed(engines))
        for name in order:
            engine, programs = engines[name]
            if repetition == 0:  # the first one warms up
                one_round(engine, programs)
                continue
            add(name, lambda engine=engine, programs=programs: one_round(engine, programs))  # type: ignore[misc]
            if name == "ours":
                for network in ("none", "bridge"):
                    arguments = ("run", "--rm", "--network", network, engine.image, "true")
                    took = engine.command(options.sampan, *arguments)
                    # Compared with the peer's own command line.
                    work = f"`docker run --rm … true`, {network} [ms]"
                    samples.setdefault(f"`sampan run --rm … true`, {network} [ms]", {}).setdefault(
                        "ours", []
                    ).append(took)
                    samples[f"`sampan run --rm … true`, {network} [ms]"]["peer"] = samples.get(work, {}).get(
                        "peer", []
                    )
    for name, (engine, _) in engines.items():
        add(name, lambda engine=engine: memory(engine))  # type: ignore[misc]
    print("\n".join(table(samples, "ours", "peer")))


if __name__ == "__main__":
    main()
