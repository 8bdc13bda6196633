#!/usr/bin/env python3
"""Measure what a container's output costs, on this engine and on a peer in the same run, in turns.

    benchmarks/logs.py --ours /run/sampan/sampan.sock --peer /tmp/peer/docker.sock [--sampan PROGRAM]
                       [--image busybox] [--reps 5]

One million lines of 80 bytes: how long a container takes to print them to its log, and how long `logs`
takes to give them back. Then attached output, through a pipe as a shell would have it: 512 MB without a log,
64 MB of zeros and the lines again with one. Every client is docker's but where `sampan` is named. The bytes
that arrive are counted: a wrong number is an error. `peak` is how much the daemon's memory grew at most.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

Sample = dict[str, float]

LINES = 1_000_000
LINE = b"%079d\n"


class Engine:
    def __init__(self, sock: str, folder: str, image: str, docker: str, sampan: str) -> None:
        self.sock, self.folder, self.image, self.docker = sock, folder, image, docker
        self.sampan = sampan
        self.environment = {**os.environ, "DOCKER_HOST": f"unix://{sock}", "SAMPAN_HOST": f"unix://{sock}"}
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(sock)
            self.pid = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]

    def said(self, *arguments: str) -> str:
        done = subprocess.run(
            [self.docker, *arguments], env=self.environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def piped(self, program: str, *arguments: str, size: int) -> float:
        """Seconds until all ``size`` bytes of a command's output have come through a pipe."""
        began, count = time.perf_counter(), 0
        with subprocess.Popen([program, *arguments], env=self.environment, stdout=subprocess.PIPE) as running:
            assert running.stdout is not None
            while data := os.read(running.stdout.fileno(), 1 << 20):
                count += len(data)
        took = time.perf_counter() - began
        if count != size:
            raise SystemExit(f"{program} {' '.join(arguments)}: {count} bytes instead of {size}")
        return took

    def resident(self) -> float:
        """The highest resident memory of the daemon since it was last reset, in MB."""
        with open(f"/proc/{self.pid}/status") as file:
            return int(next(line for line in file if line.startswith("VmHWM")).split()[1]) / 1024

    def reset(self) -> float:
        with open(f"/proc/{self.pid}/clear_refs", "w") as file:
            file.write("5")
        return self.resident()

    @contextlib.contextmanager
    def printed(self) -> Iterator[tuple[str, float]]:
        """A container that has printed the lines, and how long that took."""
        began = time.perf_counter()
        arguments = ("-d", "-v", f"{self.folder}:/lines:ro", self.image, "cat", "/lines/lines")
        container = self.said("run", *arguments)
        try:
            self.said("wait", container)
            yield container, time.perf_counter() - began
        finally:
            self.said("rm", "-f", container)

    def sample(self) -> Sample:
        size = LINES * len(LINE % 0)
        found: Sample = {}
        with self.printed() as (container, took):
            found["a million lines, until exit [s]"] = took
            before = self.reset()
            found["`docker logs` of them [s]"] = self.piped(self.docker, "logs", container, size=size)
            found["peak of the daemon meanwhile [MB]"] = self.resident() - before
            if self.sampan:
                found["`sampan logs` of them [s]"] = self.piped(self.sampan, "logs", container, size=size)
            began = time.perf_counter()
            self.said("logs", "--tail", "10", container)
            found["`docker logs --tail 10` [ms]"] = (time.perf_counter() - began) * 1e3
        zeros = ("dd", "if=/dev/zero", "bs=1M")
        for program in filter(None, (self.docker, self.sampan)):
            name = os.path.basename(program)
            for count, flags, what in (
                (512, ("--log-driver", "none"), "512 MB, no log"),
                (64, (), "64 MB of zeros, logged"),
            ):
                run = ("run", "--rm", *flags, self.image, "sh", "-c", f"{' '.join(zeros)} count={count} 2>&-")
                rate = count * 1.048576 / self.piped(program, *run, size=count << 20)
                found[f"`{name} run`: {what} [MB/s]"] = rate
            run = ("run", "--rm", "-v", f"{self.folder}:/lines:ro", self.image, "cat", "/lines/lines")
            rate = size / 1e6 / self.piped(program, *run, size=size)
            found[f"`{name} run`: the lines, logged [MB/s]"] = rate
        return found


def row(work: str, ours: list[float], peer: list[float]) -> str:
    def shown(values: list[float]) -> str:
        middle = statistics.median(values)
        return f"{middle:.2f} ({min(values):.2f} to {max(values):.2f})"

    if not peer:
        return f"| {work} | {shown(ours)} | - | - |"
    one, other = statistics.median(ours), statistics.median(peer)
    ratio = one / other if work.endswith("[MB/s]") else other / one if one > 0 else 0
    return f"| {work} | {shown(ours)} | {shown(peer)} | {ratio:.1f}x |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ours", required=True)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--sampan", default="sampan")
    parser.add_argument("--docker", default="docker")
    parser.add_argument("--image", default="busybox")
    parser.add_argument("--reps", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        with open(f"{folder}/lines", "wb") as file:
            file.writelines(LINE % number for number in range(LINES))
        ours = Engine(options.ours, folder, options.image, options.docker, options.sampan)
        peer = Engine(options.peer, folder, options.image, options.docker, "")
        samples: dict[str, tuple[list[float], list[float]]] = {}
        for repetition in range(options.reps + 1):
            for index, engine in ((0, ours), (1, peer)) if repetition % 2 else ((1, peer), (0, ours)):
                for work, value in engine.sample().items():
                    if repetition:  # the first one warms up
                        samples.setdefault(work, ([], []))[index].append(value)
            print(f"{repetition} of {options.reps}", file=sys.stderr)
    print("| work | sampan | dockerd | ratio |\n|---|---:|---:|---:|")
    for work, (mine, others) in samples.items():
        # Our own client is compared with what docker's takes on the peer.
        same = samples.get(work.replace("`sampan", "`docker"), (None, others))[1]
        print(row(work, mine, others or same))


if __name__ == "__main__":
    main()
