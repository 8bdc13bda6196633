"""Calling the program of another OCI runtime: its arguments, its words, its terminal.

Laws: a call ends, by force if need be. What a ``Caller`` runs inherits nothing but the streams it is given,
and dies with its caller. See ``sandbox.external`` for what runtimes are called for.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from sampan.linux import process as p
from sampan.sandbox.launch import LaunchError
from sampan.sandbox.messages import ExternalRuntime, Launch, encode

# A runtime that talks to a remote sandbox may take its time; one that hangs must not hang the keeper.
_PATIENCE = 30.0
_NOT_FOUND = ("executable file not found", "no such file or directory", "not found in $path")
_NOT_EXECUTABLE = ("permission denied", "is a directory")
# What they say before the reason; it is said once more by who tells the user.
_HEADS = (
    "runc create failed: ",
    "sampan create failed: ",
    "exec failed: ",
    "unable to start container process: ",
)
SETUP_FAILED = 128
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Place:
    """Where a container's runtime keeps what it needs; paths below ``oci`` of the bundle."""

    def __init__(self, bundle: str) -> None:
        self.directory = f"{bundle}/oci"
        self.root = f"{self.directory}/rootfs"
        self.mounts = f"{self.directory}/mounts"
        self.state = f"{self.directory}/state"
        self.log = f"{self.directory}/log.json"
        self.pid = f"{self.directory}/pid"
        self.runtime = f"{self.directory}/runtime.json"

    def make(self, launch: Launch) -> None:
        os.makedirs(self.directory, 0o711, exist_ok=True)
        # First of all: what is named here is looked after when everybody is killed.
        named = {"id": launch.id, "group": launch.spec["linux"]["cgroupsPath"], "runtime": launch.runtime}
        write(self.runtime, encode(named))
        for path in (self.root, self.mounts, self.state):
            os.makedirs(path, 0o711, exist_ok=True)


class Caller:
    """Runs one runtime for one container. ``cgroup_fd`` is the group it is cloned into, or None."""

    def __init__(self, runtime: ExternalRuntime, place: Place, cgroup_fd: int | None = None) -> None:
        self._runtime = runtime
        self._place = place
        self._cgroup_fd = cgroup_fd

    def call(self, *words: str, stdio: Sequence[int] = ()) -> None:
        """Run one of its commands to the end. LaunchError with its own words if it fails."""
        place, path = self._place, self._runtime.path
        with suppress(FileNotFoundError):
            os.unlink(place.log)
        argv = command(self._runtime, place, words)
        try:
            pid, pidfd = p.clone3(cgroup_fd=self._cgroup_fd)
        except OSError as error:
            raise LaunchError(f"{path}: {error.strerror}", SETUP_FAILED) from error
        if pid == 0:
            _become_runtime(path, argv, place.directory, stdio)
        code = wait(pidfd)
        if code != 0:
            raise _failure(path, words[0], code, _last_error(place.log))


def command(runtime: ExternalRuntime, place: Place, words: Sequence[str]) -> list[str]:
    arguments = ("--root", place.state, "--log", place.log, "--log-format", "json")
    return [runtime.path, *runtime.arguments, *arguments, *words]


def _become_runtime(path: str, argv: list[str], directory: str, stdio: Sequence[int]) -> None:
    try:
        p.set_parent_death_signal(signal.SIGKILL)
        null = os.open("/dev/null", os.O_RDWR)
        for target, fd in enumerate(stdio or (null, null, null)):
            os.dup2(fd, target)
        os.closerange(3, 1 << 20)
        for number in signal.valid_signals():
            if signal.getsignal(number) not in (signal.SIG_DFL, None):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.chdir(directory)
        os.execve(path, argv, {"PATH": PATH})
    finally:
        os._exit(127)


def wait(pidfd: int) -> int:
    """The exit code of a child, which is killed when it takes too long."""
    ended = select.poll()
    ended.register(pidfd, select.POLLIN)
    try:
        if not ended.poll(_PATIENCE * 1000):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        assert result is not None
        return result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status
    finally:
        os.close(pidfd)


def _last_error(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        with suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and record.get("level") in ("error", "fatal"):
                return str(record.get("msg", ""))
    return ""


def _failure(path: str, command: str, code: int, said: str) -> LaunchError:
    """A runtime tells the reason in words alone: these are the words that Docker looks for."""
    for head in _HEADS:
        said = said.removeprefix(head)
    words = said.lower()
    if any(part in words for part in _NOT_FOUND):
        exit_code = 127
    elif any(part in words for part in _NOT_EXECUTABLE):
        exit_code = 126
    else:
        exit_code = SETUP_FAILED
    return LaunchError(said or f"{path} {command} ended with {code}", exit_code)


@contextmanager
def console_socket(place: Place) -> Iterator[tuple[str, socket.socket]]:
    """A listening socket for a terminal's master, and a name of it that fits an address."""
    directory = os.open(place.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    name = f"/proc/{os.getpid()}/fd/{directory}/console.sock"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            with suppress(FileNotFoundError):
                os.unlink(name)
            listener.bind(name)
            listener.listen(1)
            yield name, listener
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)
        os.close(directory)


def receive_console(listener: socket.socket) -> int:
    """The master that the runtime has sent by now: it does so before it ends."""
    listener.setblocking(False)
    try:
        accepted, _ = listener.accept()
    except BlockingIOError:
        raise LaunchError("the runtime has sent no terminal", SETUP_FAILED) from None
    size = struct.calcsize("i")
    with accepted:
        accepted.setblocking(False)
        _, ancillary, _, _ = accepted.recvmsg(4096, socket.CMSG_SPACE(size), socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS) and len(data) >= size:
            return int.from_bytes(data[:size], sys.byteorder)
    raise LaunchError("the runtime has sent no terminal", SETUP_FAILED)


def write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)
