"""A real daemon in a root of its own, which must leave nothing behind."""

from __future__ import annotations

import contextlib
import glob
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sampan.network.naming import bridge_name
from tests.e2e import images
from tests.e2e.talk import ask

START_SECONDS = 120  # for a machine that another one plays by software (tools/vm-smoke)


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """A serving daemon: the path of its socket, and its root directory."""

    socket: str
    root: str

    @property
    def host(self) -> str:
        """What DOCKER_HOST and SAMPAN_HOST want."""
        return f"unix://{self.socket}"


@contextlib.contextmanager
def daemon(*options: str, before: Sequence[str] = ()) -> Iterator[Daemon]:
    """Serve with ``options`` while the context lasts, with busybox:latest (``images.py``) as the only image.

    ``before``: words of a command that becomes the daemon; "ROOT" in them is its root directory.

    AssertionError at its end if a container is left, an error was logged, or the host is not as before.
    """
    root = tempfile.mkdtemp(prefix="sampan-e2e-")
    served = Daemon(socket=f"{root}/run/sampan.sock", root=root)
    process = start(served, options, before=[word.replace("ROOT", root) for word in before])
    try:
        status, said = ask(served.socket, "POST", "/images/load?quiet=1", images.busybox())
        assert status == 200, said
        yield served
        left = ask(served.socket, "GET", "/containers/json?all=1")
        assert left == (200, b"[]\n"), f"containers are left: {left}"
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(START_SECONDS)
        left_behind = traces(root)
        log = _log(served)
        shutil.rmtree(root, ignore_errors=True)
    assert code == 0, log
    assert left_behind == [], (left_behind, log)
    assert "level=error" not in log, log


def start(served: Daemon, options: Sequence[str], *, before: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Returns once it serves."""
    with open(f"{served.root}/log", "wb") as log:
        process = subprocess.Popen(
            [
                # As a script's background job has it; no container may notice.
                *("/bin/sh", "-c", "trap '' HUP QUIT; exec \"$@\"", "sh"),
                *before,
                *(sys.executable, "-m", "sampan.daemon", "-H", served.host),
                *("--data-root", f"{served.root}/data", "--exec-root", f"{served.root}/run"),
                *options,
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    for _ in range(START_SECONDS * 50):
        if "msg=serving" in _log(served):
            return process
        with contextlib.suppress(subprocess.TimeoutExpired):
            raise AssertionError(f"the daemon ended with {process.wait(0.02)}: {_log(served)}")
    process.kill()
    raise AssertionError(f"the daemon does not serve: {_log(served)}")


def _log(served: Daemon) -> str:
    with open(f"{served.root}/log") as file:
        return file.read()


def traces(root: str) -> list[str]:
    """What a daemon that is gone left on the host: mounts, cgroups, links, processes of its root."""
    name = bridge_name(f"{root}/data")
    with open("/proc/self/mountinfo") as file:
        found = [line for line in file if f" {root}/" in line]
    found += glob.glob(f"/sys/fs/cgroup/*/{name}") + glob.glob(f"/sys/fs/cgroup/{name}")
    found += glob.glob(f"/sys/class/net/{name}")
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            command = file.read()
            if f"{root}/".encode() in command:
                found.append(f"{path}: {command!r}")
    return found
