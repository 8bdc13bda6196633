#!/usr/bin/env python3
"""Measure what a user namespace of its own costs a container's life, in turns with the host's ids.

    benchmarks/userns.py --engine /run/sampan/sampan.sock [--reps 60] [--layers 1,50]

Makes images of so many layers from ``busybox`` of the peer or host (a static /bin/busybox), loads and removes
them. A life is create, start, wait, remove over one keep-alive connection. Prints a Markdown table of medians
with the quartiles, and of the difference in each pair.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import json
import os
import socket
import statistics
import sys
import tarfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from compare import Api

PLACES = ("create", "start", "wait", "remove")


def image(name: str, layers: int) -> bytes:
    """A docker-save archive: busybox, then layers of one file each."""
    with open("/bin/busybox", "rb") as file:
        program = file.read()
    tars = [_tar({"bin/busybox": program, "bin/true": None})]
    tars += [_tar({f"layer{number}": b"x"}) for number in range(1, layers)]
    digests = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in tars]
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": digests}}
    raw = json.dumps({**config, "config": {"Env": ["PATH=/bin"]}}).encode()
    paths = [f"{number}/layer.tar" for number in range(layers)]
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": paths}]
    return _tar(
        {
            "config.json": raw,
            "manifest.json": json.dumps(manifest).encode(),
            **dict(zip(paths, tars, strict=True)),
        }
    )


def _tar(files: dict[str, bytes | None]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.mode = 0o755
            if data is None:
                member.type, member.linkname = tarfile.SYMTYPE, "busybox"
            else:
                member.size = len(data)
            archive.addfile(member, io.BytesIO(data or b""))
    return out.getvalue()


def load(path: str, archive: bytes) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    head = "POST /v1.41/images/load?quiet=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    sock.sendall(f"{head}Content-Length: {len(archive)}\r\n\r\n".encode() + archive)
    reply = b""
    while data := sock.recv(1 << 16):
        reply += data
    if b" 200 " not in reply.split(b"\r\n")[0]:
        raise RuntimeError(reply.decode(errors="replace"))


def life(api: Api, name: str, users: str, network: str) -> list[float]:
    """Milliseconds of each step and of all."""
    body = {"Image": name, "Cmd": ["true"], "HostConfig": {"UsernsMode": users, "NetworkMode": network}}
    marks = [time.perf_counter()]
    container = json.loads(api.call("POST", "/containers/create", body))["Id"]
    marks.append(time.perf_counter())
    for method, path in (("POST", "/start"), ("POST", "/wait"), ("DELETE", "")):
        api.call(method, f"/containers/{container}{path}")
        marks.append(time.perf_counter())
    steps = [(after - before) * 1e3 for before, after in itertools.pairwise(marks)]
    return [*steps, sum(steps)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", required=True)
    parser.add_argument("--reps", type=int, default=60)
    parser.add_argument("--layers", default="1,50")
    given = parser.parse_args()
    api = Api(given.engine)
    print("| layers, network | step | host's ids [ms] | own ids [ms] | difference of pairs [ms] |")
    print("|---|---|---:|---:|---:|")
    for layers in map(int, given.layers.split(",")):
        name = f"benchmark-userns:{layers}"
        load(given.engine, image(name, layers))
        for network in ("none", "bridge"):
            rows: dict[str, list[list[float]]] = {"host": [], "private": []}
            for turn in range(given.reps + 3):
                for users in ("host", "private") if turn % 2 else ("private", "host"):
                    rows[users].append(life(api, name, users, network))
            for index, step in ((1, "start"), (4, "whole life")):
                host, own = ([row[index] for row in rows[users][3:]] for users in ("host", "private"))
                gaps = [b - a for a, b in zip(host, own, strict=True)]
                print(f"| {layers}, {network} | {step} | {spread(host)} | {spread(own)} | {spread(gaps)} |")
        api.call("DELETE", f"/images/{name}?force=1")


def spread(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
