#!/usr/bin/env python3
"""Measure builds on this engine and on a peer in the same run, in turns, with the docker CLI and with sampan.

    benchmarks/builds.py --ours /run/sampan/sampan.sock --peer /tmp/peer/docker.sock [--reps 3]
                         [--buildkit /usr/bin/docker] [--only NAME …]

Both engines need busybox:latest. Nothing is pruned: cold builds say --no-cache, and every image that is made
is removed. ``--buildkit`` is a docker command line that speaks BuildKit's protocol without a plugin (20.10).
Prints a Markdown table of medians in seconds, and how many times as fast as BuildKit ``sampan build`` is.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

NAME = "build-benchmark"
BUILDKIT = "docker build, BuildKit"
Run = Callable[..., float]


def contexts(root: Path) -> None:
    """The folders that are built."""
    runs = "".join(f"RUN echo {number} > /f{number}\n" for number in range(10))
    _put(root / "run10/Dockerfile", f"FROM busybox\n{runs}")
    _put(root / "copy5000/Dockerfile", "FROM busybox\nCOPY files /app\nRUN ls -R /app | wc -l > /n\n")
    for number in range(5000):
        _put(root / f"copy5000/files/d{number % 50}/f{number}", f"{number}\n" * 200)
    stages = "".join(f"FROM busybox AS s{n}\nRUN sleep 1 && echo {n} > /o\n" for n in range(4))
    copies = "".join(f"COPY --from=s{n} /o /o{n}\n" for n in range(4))
    _put(root / "stages4/Dockerfile", f"{stages}FROM busybox\n{copies}")
    for name, ignored, copied in (("ignored200", "big\n", "keep"), ("copied200", "", "big")):
        _put(root / f"{name}/Dockerfile", f"FROM busybox\nCOPY {copied} /{copied}\n")
        _put(root / f"{name}/.dockerignore", ignored)
        _put(root / f"{name}/keep", "kept\n")
        for number in range(20):
            path = root / f"{name}/big/f{number}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(str(number).encode() + os.urandom(10 << 20))


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


CASES = {
    "ten RUN steps, cold": ("run10", True),
    "ten RUN steps, cached": ("run10", False),
    "COPY of 5,000 files + RUN, cold": ("copy5000", True),
    "COPY of 5,000 files + RUN, cached": ("copy5000", False),
    "four stages of sleep 1": ("stages4", True),
    "200 MB context, ignored": ("ignored200", True),
    "200 MB context, copied": ("copied200", True),
}


def runner(program: list[str], socket: str, root: Path, *, buildkit: bool = False) -> Run:
    """A function that builds a context and answers with the seconds that it took."""
    host = f"unix://{socket}"
    environment = {
        **os.environ,
        "DOCKER_HOST": host,
        "SAMPAN_HOST": host,
        "DOCKER_BUILDKIT": str(int(buildkit)),
    }

    def run(context: str, *, cold: bool) -> float:
        flags = ["--no-cache"] if cold else []
        words = [*program, "build", "-q", *flags, "-t", NAME, str(root / context)]
        start = time.perf_counter()
        subprocess.run(words, env=environment, check=True, capture_output=True)
        return time.perf_counter() - start

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--peer")
    parser.add_argument("--buildkit")
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    sampan = [str(Path(sys.executable).with_name("sampan"))]
    root = Path(tempfile.mkdtemp(prefix="build-benchmark-"))
    try:
        contexts(root)
        engines = {"sampan build": runner(sampan, options.ours, root)}
        engines["docker build, sampan"] = runner(["docker"], options.ours, root)
        if options.peer:
            engines["docker build, dockerd"] = runner(["docker"], options.peer, root)
        if options.buildkit:
            engines[BUILDKIT] = runner([options.buildkit], options.peer, root, buildkit=True)
        ratio = BUILDKIT in engines
        titles = [*engines, *(["times as fast"] if ratio else [])]
        print(f"| seconds | {' | '.join(titles)} |\n|---|{'---|' * len(titles)}", flush=True)
        for case, (context, cold) in CASES.items():
            if options.only and not any(word in case for word in options.only):
                continue
            taken: dict[str, list[float]] = {name: [] for name in engines}
            for run in engines.values():
                run(context, cold=False)
            for number in range(options.reps):
                order = list(engines) if number % 2 else list(reversed(engines))
                for name in order:
                    taken[name].append(engines[name](context, cold=cold))
            medians = {name: statistics.median(values) for name, values in taken.items()}
            shown = [f"{value:.3f}" for value in medians.values()]
            if ratio:
                shown.append(f"{medians[BUILDKIT] / medians['sampan build']:.2f}")
            print(f"| {case} | {' | '.join(shown)} |", flush=True)
    finally:
        shutil.rmtree(root)
        for socket in filter(None, (options.ours, options.peer)):
            words = ["docker", "-H", f"unix://{socket}", "rmi", "-f", NAME]
            subprocess.run(words, capture_output=True, check=False)


if __name__ == "__main__":
    main()
