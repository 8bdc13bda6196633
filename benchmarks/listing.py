#!/usr/bin/env python3
"""Measure listing 100 containers on this engine and on a peer in the same run, in turns.

    benchmarks/listing.py --ours /run/sampan/sampan.sock --peer /tmp/peer/docker.sock [--image busybox]
                          [--count 100] [--running 20] [--reps 50]

Both engines need the image, and should have no other containers. ``--running`` of the containers sleep, the
others are created only. Prints a Markdown table of medians with their spread and the ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time

from compare import Api, Engine

REQUESTS = {
    "all": "/containers/json?all=1",
    "running": "/containers/json",
    "all, with sizes": "/containers/json?all=1&size=1",
    "one by name": "/containers/json?all=1&filters=%7B%22name%22%3A%5B%22listed-7%24%22%5D%7D",
}


def populate(engine: Engine, count: int, running: int) -> list[str]:
    made = []
    for number in range(count):
        body = {"Image": engine.image, "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"}}
        engine.api.call("POST", f"/containers/create?name=listed-{number}", body)
        made.append(f"listed-{number}")
        if number < running:
            engine.api.call("POST", f"/containers/listed-{number}/start")
    return made


def took(api: Api, path: str) -> float:
    """Milliseconds of one request."""
    start = time.perf_counter()
    api.call("GET", path)
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", required=True)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--image", default="busybox")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--running", type=int, default=20)
    parser.add_argument("--reps", type=int, default=50)
    options = parser.parse_args()
    engines = [
        Engine("ours", options.ours, "sampan", options.image),
        Engine("peer", options.peer, "docker", options.image),
    ]
    names = [populate(engine, options.count, options.running) for engine in engines]
    try:
        print(f"| {options.count} containers, {options.running} running | ours [ms] | peer [ms] | ratio |")
        print("|---|---:|---:|---:|")
        for what, path in REQUESTS.items():
            samples: list[list[float]] = [[], []]
            for _ in range(options.reps):
                for engine, taken in zip(engines, samples, strict=True):
                    taken.append(took(engine.api, path))
            cells = [f"{statistics.median(s):.2f} ({min(s):.2f} to {max(s):.2f})" for s in samples]
            ratio = statistics.median(samples[1]) / statistics.median(samples[0])
            print(f"| {what} | {cells[0]} | {cells[1]} | {ratio:.1f} x |")
    finally:
        for engine, made in zip(engines, names, strict=True):
            for name in made:
                engine.api.call("DELETE", f"/containers/{name}?force=1")


if __name__ == "__main__":
    main()
