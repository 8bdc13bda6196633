#!/usr/bin/env python3
"""Networks of an engine and of a peer, in turns: throughput, connections, look-ups, the price of a start.

Prints a Markdown table of medians (quartiles), and each row's median of the ratios in its turns.

    benchmarks/networks.py --ours /run/sampan/sampan.sock [--peer /path/docker.sock] [--reps 9] [--starts 40]

Compiles ``netload.c``, which is mounted into the containers. Leaves nothing on either engine, and prunes
nothing. A peer may be podman's service.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from compare import Api

SECONDS = "0.5"
NAME = "bench-networks"
PORT = 18080  # on the host, and the next one for the peer
ROWS = {
    "127.0.0.1, published: one stream [MB/s]": ("host", "stream"),
    "127.0.0.1, published: connections/s": ("host", "connect"),
    "container to container: one stream [MB/s]": ("peer", "stream"),
    "container to container: connections/s": ("peer", "connect"),
    "look-ups of a container's name/s": ("name", "lookup"),
}


class Engine:
    """One engine, with a server and a client on a network of their own."""

    def __init__(self, path: str, image: str, port: int, place: str) -> None:
        self.path, self.image, self.port, self.place = path, image, port, place
        self.api = Api(path)
        self.network = ""
        self.boxes: list[str] = []
        self.address = ""

    def docker(self, *words: str) -> str:
        command = ["docker", "-H", f"unix://{self.path}", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def begin(self) -> None:
        self.network = self.docker("network", "create", NAME)
        run = ("run", "-d", "-v", f"{self.place}:/load:ro", "--network", NAME)
        publish = ("-p", f"127.0.0.1:{self.port}:8080", "--name", f"{NAME}-server")
        self.boxes.append(self.docker(*run, *publish, self.image, "/load/netload", "serve", "8080"))
        self.boxes.append(self.docker(*run, self.image, "sleep", "100000"))
        found = json.loads(self.docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", self.boxes[0]))
        self.address = found[NAME]["IPAddress"]

    def end(self) -> None:
        for box in self.boxes:
            self.docker("rm", "-f", box)
        if self.network:
            self.docker("network", "rm", self.network)

    def measure(self, where: str, work: str) -> float:
        inside = ("docker", "-H", f"unix://{self.path}", "exec", self.boxes[1], "/load/netload")
        if where == "host":
            command = (f"{self.place}/netload", work, "127.0.0.1", str(self.port), SECONDS)
        elif where == "peer":
            command = (*inside, work, self.address, "8080", SECONDS)
        else:
            command = (*inside, work, f"{NAME}-server", SECONDS)
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    def start(self, network: str, api: Api | None = None) -> float:
        """Milliseconds of create and start of a container that sleeps; it is removed afterwards."""
        api = api or self.api
        body = {"Image": self.image, "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": network}}
        begun = time.perf_counter()
        box = json.loads(api.call("POST", "/containers/create", body))["Id"]
        api.call("POST", f"/containers/{box}/start")
        took = (time.perf_counter() - begun) * 1e3
        api.call("DELETE", f"/containers/{box}?force=1")
        return took

    def rate(self, network: str, *, count: int, at_once: int) -> float:
        """Starts per second, so many at once, each removed right afterwards."""

        def some(_: int) -> None:
            api = Api(self.path)
            for _ in range(count // at_once):
                self.start(network, api)

        begun = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            list(pool.map(some, range(at_once)))
        return count / (time.perf_counter() - begun)


@contextlib.contextmanager
def load_tool() -> Iterator[str]:
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "netload.c")
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        subprocess.run(["gcc", "-O2", "-static", "-o", f"{place}/netload", source], check=True)
        yield place


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ours", required=True)
    parser.add_argument("--peer")
    parser.add_argument("--image", default="busybox")
    parser.add_argument("--reps", type=int, default=9)
    parser.add_argument("--starts", type=int, default=40)
    given = parser.parse_args()
    with load_tool() as place:
        paths = [path for path in (given.ours, given.peer) if path]
        engines = [Engine(path, given.image, PORT + n, place) for n, path in enumerate(paths)]
        try:
            for engine in engines:
                engine.begin()
            traffic(engines, given.reps)
        finally:
            for engine in engines:
                engine.end()
        if given.starts:
            starts(engines, given.starts)


def traffic(engines: list[Engine], reps: int) -> None:
    print("| traffic | " + " | ".join(("sampan", "peer")[: len(engines)]) + " | ratio |")
    print("|---|" + "---:|" * (len(engines) + 1))
    for row, (where, work) in ROWS.items():
        turns: list[list[float]] = []
        for turn in range(reps):
            order = engines if turn % 2 else engines[::-1]
            found = {engine.path: engine.measure(where, work) for engine in order}
            turns.append([found[engine.path] for engine in engines])
        columns = list(zip(*turns, strict=True))
        ratio = statistics.median(turn[0] / turn[-1] for turn in turns)
        print(f"| {row} | " + " | ".join(map(spread, columns)) + f" | {ratio:.2f} |", flush=True)


def starts(engines: list[Engine], reps: int) -> None:
    print("\n| create and start | sampan | peer |\n|---|---:|---:|")
    rows: dict[str, list[str]] = {"bridge [ms]": [], "none [ms]": [], "difference of pairs [ms]": []}
    for engine in engines:
        pairs = []
        for turn in range(reps + 3):
            order = ("bridge", "none") if turn % 2 else ("none", "bridge")
            found = {network: engine.start(network) for network in order}
            pairs.append((found["bridge"], found["none"]))
        bridge, none = zip(*pairs[3:], strict=True)
        rows["bridge [ms]"].append(spread(bridge))
        rows["none [ms]"].append(spread(none))
        rows["difference of pairs [ms]"].append(spread([a - b for a, b in zip(bridge, none, strict=True)]))
    for network in ("bridge", "none"):
        rows[f"lives/s, 8 at once, {network}"] = [
            f"{engine.rate(network, count=80, at_once=8):.0f}" for engine in engines
        ]
    for row, cells in rows.items():
        print(f"| {row} | " + " | ".join(cells) + " |")


def spread(values: list[float] | tuple[float, ...]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    shape = "{:.2f}" if middle < 100 else "{:.0f}"
    return f"{shape.format(middle)} ({shape.format(low)} to {shape.format(high)})"


if __name__ == "__main__":
    main()
