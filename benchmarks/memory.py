#!/usr/bin/env python3
"""Where the engine's memory is: the daemon, the processes that forks come from, and one keeper of each kind.

    benchmarks/memory.py --engine /run/sampan/sampan.sock [--containers 100] [--image busybox]

Prints the proportional set size of every process of the engine before and while containers run that sleep in
silence, and then while as many run that have written one line: the keeper of a container that has done
anything but sleep has been awake, and each page that it wrote to then is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import struct
import time

from compare import Api
from load import descendants

SILENT, SPEAKING = "exec sleep 100000", "echo up; exec sleep 100000"


def pss(pid: int) -> int:
    """Kilobytes; 0 for a process that is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return int(re.findall(r"^Pss:\s+(\d+)", file.read(), re.M)[0])
    except (OSError, IndexError):
        return 0


def name_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read().split(" ")[0].split("\0")[0]
    except OSError:
        return ""


def engine_memory(sock: str) -> tuple[float, float]:
    """(all of the engine's processes, the daemon alone) in megabytes; nothing of what runs in containers."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(sock)
        daemon = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    own = {pid for pid in descendants(daemon) if pid == daemon or name_of(pid).startswith("sampan-")}
    return sum(map(pss, own)) / 1024, pss(daemon) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", required=True, help="the engine's socket")
    parser.add_argument("--containers", type=int, default=100)
    parser.add_argument("--image", default="busybox")
    parser.add_argument("--network", default="bridge")
    options = parser.parse_args()
    api, count = Api(options.engine), options.containers
    print(f"load {os.getloadavg()[0]:.1f}\n")
    print("| state | engine [MB] | the daemon of it [MB] | for each container [MB] |\n|---|---:|---:|---:|")
    idle, daemon = engine_memory(options.engine)
    print(f"| idle | {idle:.1f} | {daemon:.1f} | |")
    for what, script in (("silent", SILENT), ("wrote a line", SPEAKING)):
        made = []
        body = {
            "Image": options.image,
            "Cmd": ["sh", "-c", script],
            "HostConfig": {"NetworkMode": options.network},
        }
        try:
            for _ in range(count):
                made.append(json.loads(api.call("POST", "/containers/create", body))["Id"])
                api.call("POST", f"/containers/{made[-1]}/start")
            time.sleep(1)  # the next keeper is forked
            full, daemon = engine_memory(options.engine)
        finally:
            for container in made:
                api.call("DELETE", f"/containers/{container}?force=1")
        print(
            f"| {count} run, {what} | {full:.1f} | {daemon:.1f} | {(full - idle) / count:.3f} |", flush=True
        )
    time.sleep(1)
    after, daemon = engine_memory(options.engine)
    print(f"| idle again | {after:.1f} | {daemon:.1f} | |")


if __name__ == "__main__":
    main()
