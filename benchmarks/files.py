#!/usr/bin/env python3
"""Copies, export, diff and commit on an engine and on a peer, in turns; prints a table of medians.

benchmarks/files.py --ours /run/sampan/sampan.sock --peer /path/docker.sock [--image busybox] [--reps 5]

Leaves nothing on either engine, and prunes nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

FILES, BLOB = 5000, 100 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", required=True)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--image", default="busybox")
    parser.add_argument("--reps", type=int, default=5)
    options = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as place:
        prepare(Path(place))
        for _ in range(options.reps):
            for name, path in (("ours", options.ours), ("peer", options.peer)):
                for row, seconds in work(f"unix://{path}", options.image, Path(place)):
                    found.setdefault(row, {}).setdefault(name, []).append(seconds)
    print("| work | sampan | peer | ratio |\n|---|---:|---:|---:|")
    for row, times in found.items():
        ours, peer = (statistics.median(times[name]) for name in ("ours", "peer"))
        print(f"| {row} [s] | {shown(times['ours'])} | {shown(times['peer'])} | {peer / ours:.1f} |")


def shown(times: list[float]) -> str:
    return f"{statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})"


def prepare(place: Path) -> None:
    """The fixtures: one large file, many small ones."""
    (place / "blob").write_bytes(os.urandom(BLOB))
    for number in range(FILES):
        path = place / f"many/d{number % 50}/f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(1024))


def work(host: str, image: str, place: Path) -> Iterator[tuple[str, float]]:
    """One turn on one engine: (row, seconds)."""

    def docker(*arguments: str) -> float:
        begun = time.monotonic()
        subprocess.run(["docker", "-H", host, *arguments], check=True, capture_output=True)
        return time.monotonic() - begun

    name, out = "bench-files", str(place / "out")
    docker("run", "-d", "--name", name, image, "sleep", "1000")
    try:
        yield "cp of one small file in", docker("cp", "/etc/hostname", f"{name}:/small")
        yield f"cp of {BLOB >> 20} MB in", docker("cp", str(place / "blob"), f"{name}:/blob")
        yield f"cp of {BLOB >> 20} MB out", docker("cp", f"{name}:/blob", out)
        yield f"commit of {BLOB >> 20} MB", docker("commit", name, "bench-files:blob")
        docker("exec", name, "rm", "/blob")
        yield f"cp of {FILES} files in", docker("cp", str(place / "many"), f"{name}:/many")
        yield f"cp of {FILES} files out", docker("cp", f"{name}:/many", f"{out}.d")
        yield f"diff, {FILES} files", docker("diff", name)
        yield f"commit of {FILES} files", docker("commit", name, "bench-files:many")
        yield f"export with {FILES} files", docker("export", "-o", f"{out}.tar", name)
    finally:
        docker("rm", "-f", name)
        subprocess.run(
            ["docker", "-H", host, "rmi", "-f", "bench-files:blob", "bench-files:many"],
            check=False,
            capture_output=True,
        )
        shutil.rmtree(f"{out}.d", ignore_errors=True)
        for path in (out, f"{out}.tar"):
            Path(path).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
