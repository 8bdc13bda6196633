"""The daemon on demand: the first command that finds none starts it and waits until it answers.

Two clients may start one at the same time: the engine lets one live per data root, and both clients wait for
the socket, not for the process that they started.
"""

from __future__ import annotations

import os
import sys
import time

from sampan.cli.context import err
from sampan.client.connection import Address, Unreachable, connect

PATIENCE = 30.0  # seconds for the engine to answer
_STEP = 0.005


def start(host: str, arguments: tuple[str, ...] = ()) -> bool:
    """Start the daemon with ``arguments`` and wait for ``host`` to answer. Whether it does."""
    address = Address(host)
    folder = os.path.dirname(address.path)
    try:
        os.makedirs(folder, mode=0o755, exist_ok=True)
        log = os.open(
            os.path.join(folder, "daemon.log"),
            os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC,
            0o640,
        )
    except OSError:
        return False  # not ours to start: the caller says that nobody answers
    try:
        before = os.fstat(log).st_size
        child = _spawn(log, arguments)
    finally:
        os.close(log)
    if not _answers(address, child):
        _say_why(os.path.join(folder, "daemon.log"), before)
        return False
    if os.isatty(2):
        err(f"Started the engine. To use the docker command with it: export DOCKER_HOST={host}")
    return True


def _say_why(log: str, before: int) -> None:
    """The last words of a daemon that could not serve."""
    try:
        with open(log, "rb") as file:
            file.seek(before)
            lines = file.read(1 << 16).decode(errors="replace").splitlines()
    except OSError:
        return
    for line in [line for line in lines if line.startswith("sampan daemon: ")][-1:]:
        err(line)


def present(host: str) -> None:
    """Start the daemon unless somebody listens at ``host``. A failure is the next command's to tell."""
    try:
        connect(Address(host)).close()
    except Unreachable as error:
        if error.absent:
            start(host)


def _spawn(log: int, arguments: tuple[str, ...]) -> int:
    """The daemon, in a session of its own and at the root folder, with nothing of ours but its log."""
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    here = os.open(".", os.O_PATH | os.O_CLOEXEC)
    actions = [
        (os.POSIX_SPAWN_DUP2, null, 0),
        (os.POSIX_SPAWN_DUP2, log, 1),
        (os.POSIX_SPAWN_DUP2, log, 2),
    ]
    # -P: a file named like a module of ours in the user's folder is not one
    command = [sys.executable, "-P", "-m", "sampan.daemon", "--on-demand", *arguments]
    try:
        os.chdir("/")
        return os.posix_spawn(sys.executable, command, os.environ, file_actions=actions, setsid=True)
    finally:
        os.fchdir(here)
        os.close(here)
        os.close(null)


def _answers(address: Address, child: int) -> bool:
    deadline = time.monotonic() + PATIENCE
    alive = True
    while time.monotonic() < deadline:
        try:
            connect(address).close()
            return True
        except Unreachable as error:
            if not error.absent:
                return False
        if alive and os.waitpid(child, os.WNOHANG)[0]:
            # another client's daemon may be on its way up: give it a moment, not the whole time
            alive = False
            deadline = min(deadline, time.monotonic() + 2)
        time.sleep(_STEP)
    return False
