#!/usr/bin/env python3
"""Load, save, pull, push and removal of images on an engine, a peer and podman, in turns; a table of medians.

benchmarks/images.py --ours /run/sampan/sampan.sock --peer /path/docker.sock [--podman] --tree /path/of/a/root

The image is the tree cut into ten layers of about equal size, and again as one layer. Needs docker-registry
and skopeo, which is run on loopback. Prunes nothing; removes what it made.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

LAYERS = (1, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", required=True)
    parser.add_argument("--peer")
    parser.add_argument("--podman", action="store_true", help="measure podman too")
    parser.add_argument("--tree", required=True)
    parser.add_argument("--place", default="/tmp", help="where fixtures are made")
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--json", help="write every time to this file")
    options = parser.parse_args()
    engines = {"ours": ["docker", "-H", f"unix://{options.ours}"]}
    if options.peer:
        engines["peer"] = ["docker", "-H", f"unix://{options.peer}"]
    if options.podman:
        engines["podman"] = ["podman"]
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(dir=options.place) as place, registry(f"{place}/from") as host:
        for layers in LAYERS:
            archive(Path(options.tree), Path(place), layers)
        remote = f"{host}/bench/source:latest"
        source = f"docker-archive:{place}/10.tar"
        subprocess.run(
            ["skopeo", "copy", "-q", "--dest-tls-verify=false", source, f"docker://{remote}"], check=True
        )
        for turn in range(options.reps):
            for name, command in list(engines.items())[:: 1 if turn % 2 else -1]:
                with registry(f"{place}/{name}-{turn}") as target:  # empty: nothing is mounted or there
                    rows = work(command, Path(place), remote, f"{target}/bench/{name}")
                    with contextlib.closing(rows):
                        for row, seconds in rows:
                            found.setdefault(row, {}).setdefault(name, []).append(seconds)
    report(found, [name for name in engines if name != "ours"])
    if options.json:
        Path(options.json).write_text(json.dumps(found))


def report(found: dict[str, dict[str, list[float]]], others: Sequence[str]) -> None:
    print(f"| work | sampan | {' | '.join(others)} | ratio to the better |")
    print("|---|---:|" + "---:|" * (len(others) + 1))
    for row, times in found.items():
        better = min((statistics.median(times[name]) for name in others), default=0.0)
        ratio = better / statistics.median(times["ours"])
        cells = [shown(times[name]) for name in ("ours", *others)]
        print(f"| {row} [s] | {' | '.join(cells)} | {ratio:.1f} |")


def shown(times: Sequence[float]) -> str:
    return f"{statistics.median(times):.3f} ({min(times):.3f} to {max(times):.3f})"


def work(engine: Sequence[str], place: Path, remote: str, mine: str) -> Iterator[tuple[str, float]]:
    """One turn on one engine: (row, seconds)."""
    insecure = ["--tls-verify=false"] if engine[0] == "podman" else []
    saved = place / "saved.tar"

    def timed(*arguments: str) -> float:
        os.sync()
        begun = time.monotonic()
        subprocess.run([*engine, *arguments], check=True, capture_output=True)
        return time.monotonic() - begun

    def removed(*names: str) -> None:
        subprocess.run([*engine, "rmi", "-f", *names], check=False, capture_output=True)

    try:
        for layers in LAYERS:
            what = f"{layers} layer{'s'[: layers > 1]}"
            yield f"load {what}", timed("load", "-i", str(place / f"{layers}.tar"))
            yield f"save {what}", timed("save", "-o", str(saved), tag(layers))
            saved.unlink()
            yield f"rmi {what}", timed("rmi", tag(layers))
        yield "pull ten layers", timed("pull", *insecure, remote)
        yield "pull of what is here", timed("pull", *insecure, remote)
        timed("tag", remote, mine)
        yield "push ten layers", timed("push", *insecure, mine)
        yield "push of what is there", timed("push", *insecure, mine)
    finally:
        removed(remote, mine, *map(tag, LAYERS))


def tag(layers: int) -> str:
    return f"localhost/bench-images-{layers}:latest"


@contextlib.contextmanager
def registry(place: str) -> Iterator[str]:
    """The address of an empty registry."""
    os.mkdir(place)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    settings = {
        "version": "0.1",
        "log": {"level": "error"},
        "http": {"addr": host},
        "storage": {"filesystem": {"rootdirectory": f"{place}/registry"}},
    }
    Path(f"{place}/registry.yml").write_text(json.dumps(settings))
    process = subprocess.Popen(
        ["docker-registry", "serve", f"{place}/registry.yml"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://{host}/v2/", timeout=1).close()
                break
            time.sleep(0.05)
        yield host
    finally:
        process.terminate()
        process.wait()


def archive(root: Path, place: Path, layers: int) -> None:
    """A docker-archive of the tree in ``layers`` layers of about equal size."""
    sized = sorted(
        (os.path.relpath(path, root), os.lstat(path).st_size)
        for above, directories, files in os.walk(root)
        for path in (os.path.join(above, name) for name in directories + files)
    )
    share = sum(size for _, size in sized) / layers
    groups: list[list[str]] = [[] for _ in range(layers)]
    running = 0
    for path, size in sized:
        groups[min(int(running / share), layers - 1)].append(path)
        running += size
    with tempfile.TemporaryDirectory(dir=place) as made:
        names = []
        digests = []
        for number, group in enumerate(groups):
            name = f"layer{number}.tar"
            options = ["--no-recursion", "--numeric-owner", "--null", "-T", "-"]
            subprocess.run(
                ["tar", "-C", str(root), "-cf", f"{made}/{name}", *options],
                input="\0".join(group).encode(),
                check=True,
            )
            with open(f"{made}/{name}", "rb") as file:
                digests.append(f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}")
            names.append(name)
        config = {
            "architecture": "amd64",
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": {"Cmd": ["bash"]},
            "history": [{"created": "2024-01-01T00:00:00Z"}] * layers,
            "rootfs": {"type": "layers", "diff_ids": digests},
        }
        listing = [{"Config": "config.json", "RepoTags": [tag(layers)], "Layers": names}]
        Path(made, "config.json").write_text(json.dumps(config))
        Path(made, "manifest.json").write_text(json.dumps(listing))
        members = ["manifest.json", "config.json", *names]
        subprocess.run(["tar", "-C", made, "-cf", str(place / f"{layers}.tar"), *members], check=True)


if __name__ == "__main__":
    main()
