"""A real engine on a data root that is its caller's, perhaps in an earlier life of the machine."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tests.e2e.talk import ask

SECONDS = 30
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_EARLIER = "00000000-0000-4000-8000-000000000001\n"
_IN_ANOTHER_BOOT = f'mount --bind "$0" {_BOOT_ID} && exec "$@"'


class Refused(AssertionError):
    """An answer that was not expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One that serves. ``root`` has its socket, exec root and log."""

    root: str
    data: str
    pid: int

    @property
    def socket(self) -> str:
        return f"{self.root}/sampan.sock"

    def send(self, method: str, target: str, body: Any = None, /, **query: str) -> Any:
        """The answer's document, or its bytes. Refused if the status is none of success."""
        text = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if raw is None and method == "POST":
            raw = b""
        status, said = ask(self.socket, method, f"{target}?{text}" if text else target, raw)
        if status >= 300 and status != 304:
            raise Refused(f"{method} {target} {text}: {status} {said[:500]!r}")
        try:
            return json.loads(said)
        except ValueError:
            return said

    def log(self) -> str:
        with open(f"{self.root}/log") as file:
            return file.read()


@contextlib.contextmanager
def engine(root: str, data: str, *options: str, earlier: bool = False) -> Iterator[Engine]:
    """An engine with its data in ``data``, all else in ``root``; ended as on any day, without containers.

    ``earlier``: it takes the time before the present boot for its own. It reads that once, and containers
    must not find anything mounted below /proc: the kernel would not give them one of their own.
    """
    command = [
        *(sys.executable, "-m", "sampan.daemon", "-H", f"unix://{root}/sampan.sock"),
        *("--data-root", data, "--exec-root", f"{root}/run", *options),
    ]
    if earlier:
        with open(f"{root}/boot", "w") as file:
            file.write(_EARLIER)
        space = ["unshare", "--mount", "--propagation", "slave"]
        command = [*space, "sh", "-c", _IN_ANOTHER_BOOT, f"{root}/boot", *command]
    with open(f"{root}/log", "ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    serving = Engine(root=root, data=data, pid=process.pid)
    try:
        _await(lambda: "msg=serving" in serving.log(), process, serving)
        if earlier:
            subprocess.run(
                ["nsenter", "--mount", "--target", str(process.pid), "umount", _BOOT_ID], check=True
            )
        yield serving
        for container in serving.send("GET", "/containers/json", all="1"):
            serving.send("DELETE", f"/containers/{container['Id']}", force="1")
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(SECONDS)
        _end_rest(root)
    assert code == 0, serving.log()


def _end_rest(root: str) -> None:
    """What a daemon that failed left of its processes would keep the data's file system in use."""
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            if f"{root}/run".encode() in file.read():
                os.kill(int(path.split("/")[2]), signal.SIGKILL)


def _await(true: Any, process: subprocess.Popen[bytes], serving: Engine) -> None:
    ended = os.pidfd_open(process.pid)
    try:
        deadline = time.monotonic() + SECONDS
        while not true():
            gone, _, _ = select.select((ended,), (), (), 0.01)
            assert not gone, f"the engine ended: {serving.log()}"
            assert time.monotonic() < deadline, f"the engine does not serve: {serving.log()}"
    finally:
        os.close(ended)
