#!/usr/bin/env python3
"""How the cost of an engine grows with what it holds: running containers, stopped containers, images.

    benchmarks/growth.py --engine /run/sampan/sampan.sock [--running 1000] [--stopped 10000] [--images 1000]
                         [--image busybox] [--svg benchmarks/growth.svg] [--restart PIDFILE COMMAND…]

Running containers are spread over several networks (a bridge holds 1,023). At each step of ``STEPS`` it
measures one start by the API (median of 15), the engine's memory, and ``ps`` by the API and by the command
line. Stopped ones are made by the API alone, images by builds of one label each; then ``ps -a``,
``images``, ``system df`` and, with --restart, how long a new daemon takes to its first answer. All is
removed at the end, by the prune commands. The picture has starts, memory and listing against the number of
running containers.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from compare import Api, Engine
from load import archive_of, raw

STEPS = (0, 100, 250, 500, 1000)
PER_NETWORK = 250
LABEL = {"growth": "1"}


def timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return (time.perf_counter() - begun) * 1e3


def spread(make: Callable[[Api, int], None], sock: str, numbers: Iterable[int]) -> None:
    """Make many things, 8 at a time."""
    local = threading.local()

    def one(number: int) -> None:
        if not hasattr(local, "api"):
            local.api = Api(sock)
        make(local.api, number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, numbers))


class Growth:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.engine = Engine("ours", options.engine, shutil.which("sampan") or "sampan", options.image)
        self.ids: list[str] = []

    def create(self, api: Api, number: int, network: str = "none") -> str:
        body = {
            "Image": self.options.image,
            "Cmd": ["sleep", "100000"],
            "Labels": LABEL,
            "HostConfig": {"NetworkMode": network},
        }
        made: str = json.loads(api.call("POST", f"/containers/create?name=growth-{number}", body))["Id"]
        return made

    def start(self, api: Api, number: int) -> None:
        made = self.create(api, number, f"growth-{number // PER_NETWORK}")
        api.call("POST", f"/containers/{made}/start")

    def one_start(self) -> float:
        made = self.create(self.engine.api, 999_999, "growth-0")
        took = timed(lambda: self.engine.api.call("POST", f"/containers/{made}/start"))
        self.engine.api.call("DELETE", f"/containers/{made}?force=1")
        return took

    def median(self, measure: Callable[[], float], times: int = 15) -> float:
        return statistics.median(measure() for _ in range(times))

    def running(self) -> list[tuple[int, float, float, float, float]]:
        """(how many, start, memory in MB, ps by the API, ps by the command line) of each step."""
        rows = []
        api = self.engine.api
        steps = [step for step in STEPS if step <= self.options.running]
        for number in range(max(1, -(-max(steps) // PER_NETWORK))):
            api.call("POST", "/networks/create", {"Name": f"growth-{number}", "Labels": LABEL})
        before = 0
        for step in steps:
            spread(self.start, self.options.engine, range(before, step))
            before = step
            self.one_start()
            start = self.median(self.one_start)
            listed = self.median(lambda: timed(lambda: api.call("GET", "/containers/json")))
            typed = self.median(lambda: self.engine.command(self.engine.program, "ps"), 7)
            rows.append((step, start, self.engine.memory(), listed, typed))
            print("| {} | {:.1f} | {:.1f} | {:.2f} | {:.1f} |".format(*rows[-1]), flush=True)
        return rows

    def build(self, api: Api, number: int) -> None:
        dockerfile = f"FROM {self.options.image}\nLABEL growth=1 number={number}\n".encode()
        archive = archive_of("Dockerfile", dockerfile)
        raw(self.options.engine, "POST", f"/build?t=growth:{number}&q=1", archive)

    def stored(self) -> None:
        """Stopped containers and images, and what asks for all of them."""
        print("\n| stopped | images | `ps -a` [ms] | `images` [ms] | `system df` [ms] | daemon start [s] |")
        print("|---:|---:|---:|---:|---:|---:|")
        before = (0, 0)
        for share in (0.1, 0.5, 1.0):
            stopped, images = int(self.options.stopped * share), int(self.options.images * share)
            spread(lambda api, n: void(self.create(api, n)), self.options.engine, range(before[0], stopped))
            spread(self.build, self.options.engine, range(before[1], images))
            before = (stopped, images)
            cells = [
                self.median(lambda words=words: self.engine.command(self.engine.program, *words), 3)  # type: ignore[misc]
                for words in (("ps", "-a"), ("images",), ("system", "df"))
            ]
            again = f"{self.restart():.2f}" if self.options.restart else "-"
            print(
                f"| {stopped} | {images} | " + " | ".join(f"{c:.0f}" for c in cells) + f" | {again} |",
                flush=True,
            )
        for words in (("container", "prune", "-f"), ("image", "prune", "-af")):
            took = self.engine.command(self.engine.program, *words, "--filter", "label=growth")
            print(f"`{' '.join(words)}`: {took / 1e3:.1f} s", flush=True)

    def restart(self) -> float:
        """End the daemon and start it again: seconds until its first answer."""
        pidfile, *command = self.options.restart
        with open(pidfile) as file:
            pid = int(file.read())
        handle = os.pidfd_open(pid)
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        select.select((handle,), (), ())
        os.close(handle)
        begun = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while True:
            try:
                self.engine.api = Api(self.options.engine)
                self.engine.api.call("GET", "/containers/json?limit=1")
                break
            except OSError:
                if process.poll() is not None:
                    raise
                time.sleep(0.005)
        return time.perf_counter() - begun

    def clear(self) -> None:
        found = json.loads(
            self.engine.api.call("GET", '/containers/json?all=1&filters={"label":["growth=1"]}')
        )
        begun = time.perf_counter()
        ids = [entry["Id"] for entry in found]
        spread(
            lambda api, n: void(api.call("DELETE", f"/containers/{ids[n]}?force=1")),
            self.options.engine,
            range(len(ids)),
        )
        print(f"{len(ids)} containers removed in {time.perf_counter() - begun:.1f} s", flush=True)
        for network in json.loads(self.engine.api.call("GET", '/networks?filters={"label":["growth=1"]}')):
            self.engine.api.call("DELETE", f"/networks/{network['Id']}")


def void(_value: object) -> None:
    """A value that nobody wants."""


def picture(rows: list[tuple[int, float, float, float, float]]) -> str:
    """Starts and memory against the number of running containers, as SVG."""
    width, height, edge = 360, 220, 46
    panels = (("start of one [ms]", 1), ("memory of the engine [MB]", 2), ("ps by the API [ms]", 3))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width * len(panels)}" height="{height + edge}" '
        'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
    ]
    right = max(row[0] for row in rows) or 1
    for place, (title, column) in enumerate(panels):
        top = max(row[column] for row in rows) * 1.15
        left = place * width + edge

        def at(row: tuple[float, ...], left: int = left, column: int = column, top: float = top) -> str:
            x = left + row[0] / right * (width - edge - 24)
            return f"{x:.0f},{height - row[column] / top * (height - 36):.0f}"

        points = [at(row) for row in rows]
        parts.append(f'<text x="{left}" y="18" font-size="13">{title}</text>')
        parts.append(f'<path d="M{left},36 V{height} h{width - edge - 10}" stroke="black" fill="none"/>')
        parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="#0868ac" stroke-width="2"/>')
        for row, point in zip(rows, points, strict=True):
            x, y = point.split(",")
            parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="#0868ac"/>')
            parts.append(f'<text x="{x}" y="{int(y) - 7}" text-anchor="middle">{row[column]:.3g}</text>')
            parts.append(f'<text x="{x}" y="{height + 16}" text-anchor="middle">{row[0]}</text>')
    parts.append(f'<text x="{edge}" y="{height + 36}">running containers</text></svg>')
    return "\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", required=True, help="the engine's socket")
    parser.add_argument("--image", default="busybox")
    parser.add_argument("--running", type=int, default=1000)
    parser.add_argument("--stopped", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--svg", help="where the picture goes")
    parser.add_argument("--restart", nargs=argparse.REMAINDER, help="the daemon's pid file and command, last")
    options = parser.parse_args()
    growth = Growth(options)
    print(f"load {os.getloadavg()[0]:.1f} at the beginning\n")
    try:
        if options.running:
            print(
                "| running | start [ms] | memory [MB] | `ps`, API [ms] | `sampan ps` [ms] |\n"
                "|---:|---:|---:|---:|---:|"
            )
            rows = growth.running()
            if options.svg:
                with open(options.svg, "w") as file:
                    file.write(picture(rows))
            growth.clear()
        if options.stopped:
            growth.stored()
    finally:
        growth.clear()


if __name__ == "__main__":
    main()
