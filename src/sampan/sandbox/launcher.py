"""The launcher: a short-lived child of the keeper that starts the container's first process.

It is forked because starting costs memory: everything that reading the specification and setting up a
container touches is copied from the zygote's pages and would stay with the keeper for the container's life.
The container becomes the keeper's child all the same (CLONE_PARENT), so that the keeper learns its exit.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from sampan.errors import Failure
from sampan.sandbox import channel, keeper_socket
from sampan.sandbox.launch import REQUEST_FAILED, LaunchError, Started, start
from sampan.sandbox.logfile import create
from sampan.sandbox.messages import PROTOCOL, Keeping, decode_keeping, decode_launch
from sampan.sandbox.stdio import read_file

if TYPE_CHECKING:
    from sampan.sandbox.cgroups import Hierarchy

_SETUP_FAILED = 128


def _read_line(fd: int) -> bytes:
    """A line, without its end; empty when the pipe has ended. Lines are short: byte by byte will do."""
    line = b""
    while (byte := os.read(fd, 1)) and byte != b"\n":
        line += byte
    return line


def started_event(keeping: Keeping, started: Started) -> dict[str, object]:
    """What a daemon is told of a running container."""
    return {
        "event": "started",
        "pid": started.pid,
        "started_at": started.at,
        "protocol": PROTOCOL,
        "cgroup": keeping.cgroup,
        "state": keeping.state,
    }


class Launcher:
    """``keeping`` is encoded, ``document`` the launch document's descriptor, ``control`` the daemon's.

    ``stdio`` are the process's descriptors, none for a terminal.
    """

    def __init__(
        self, keeping: bytes, hierarchy: Hierarchy, *, document: int, control: int, stdio: Sequence[int]
    ) -> None:
        self._encoded = keeping
        self._hierarchy = hierarchy
        self._document = document
        self._control = control
        self._stdio = stdio

    def run_aside(self, listener: int, *, terminal: bool) -> tuple[int, int, int, int, float] | None:
        """Fork, and start the container there: what ``Started`` holds, in order; None when it failed.

        A plain tuple, for a keeper that is to stay small. The fork itself tells the daemon how it went, and
        makes the socket ``listener`` listen in the bundle.
        """
        read, write = os.pipe2(os.O_CLOEXEC)
        ours, theirs = socket.socketpair() if terminal else (None, None)
        fork = os.fork()
        if fork == 0:
            self._serve(listener, write, theirs)
        os.close(write)
        if theirs is not None:
            theirs.close()
        try:
            return _await_start(read, ours)
        finally:
            os.close(read)
            os.waitpid(fork, 0)

    # -- in the fork ----------------------------------------------------------------------------------

    def _serve(self, listener: int, pipe: int, console: socket.socket | None) -> NoReturn:
        try:
            self._start(listener, pipe, console)
        except LaunchError as error:
            self._fail(str(error), error.code)
        except Failure as error:
            self._fail(str(error), REQUEST_FAILED)
        except OSError as error:
            what = f"{error.filename}: " if error.filename else ""
            self._fail(f"{what}{error.strerror}", _SETUP_FAILED)
        finally:
            os._exit(0)
        raise AssertionError("unreachable")

    def _start(self, listener: int, pipe: int, console: socket.socket | None) -> None:
        keeping = decode_keeping(self._encoded)
        launch = decode_launch(os.pread(self._document, os.fstat(self._document).st_size, 0))
        keeper_socket.listen(listener, keeping.bundle)
        if keeping.log is not None:
            create(keeping.log)
        cgroup = self._hierarchy.group(keeping.cgroup)
        cgroup.create(launch.spec["linux"].get("resources", {}))
        try:
            started = start(
                launch,
                self._stdio,
                cgroup,
                self._hierarchy.mounted(),
                read_file(launch.seccomp_filter) if launch.seccomp_filter else None,
                sibling=True,
                on_clone=lambda pid: _say(pipe, pid),
            )
        except BaseException:
            cgroup.remove()
            keeper_socket.remove(keeping.bundle)
            raise
        if console is not None:
            channel.send(console, {}, (started.console,))
        self._tell(started_event(keeping, started))
        _say(pipe, started.at)

    def _fail(self, message: str, code: int) -> None:
        self._tell({"event": "failed", "message": message, "code": code})

    def _tell(self, document: dict[str, object]) -> None:
        with suppress(OSError), socket.socket(fileno=os.dup(self._control)) as sock:
            channel.send(sock, document)


def _say(pipe: int, number: float) -> None:
    os.write(pipe, f"{number!r}\n".encode())


def _await_start(pipe: int, console: socket.socket | None) -> tuple[int, int, int, int, float] | None:
    # The process, our child, exists once its pid is said. It may be over by now, and its mounts with it.
    said = _read_line(pipe)
    if not said:
        return None
    pid = int(said)
    pidfd = os.pidfd_open(pid)
    mounts = -1
    with suppress(FileNotFoundError):
        mounts = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    started_at = _read_line(pipe)
    if not started_at:
        # A launcher that was killed may leave a program of which nobody knows.
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        return None
    master = -1
    if console is not None:
        message = channel.receive(console)
        console.close()
        if message is not None:
            (master,) = message[1]
    return pid, pidfd, mounts, master, float(started_at)
