"""The zygote: one small process without threads, from which every visitor is forked, and by way of the
seed every keeper.

It is started before anything heavy is loaded and has imported everything that a keeper will need. It looks
at no request itself: the forked keeper does, so that a bad one ends one keeper and nothing else, and because
every page that the zygote writes to is one less that the keepers share.

Laws:
- It outlives the daemon and serves the next one of its own edition on ``zygote.sock``.
- It is the subreaper of what dead keepers leave: when a keeper dies without having recorded its container's
  exit, the container is killed by its cgroup. The daemon learns of it by the end of the keeper's socket.
- It ends when no daemon is connected and its last child is gone: the keeper that stood by is in the cgroup,
  too, that it takes away.
- It lives in a cgroup of the engine's own, as do the keepers, so that the end of the session or service that
  the daemon was started in touches no container.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
from contextlib import suppress
from typing import NoReturn

from sampan.linux import process as p
from sampan.sandbox import attendant, cgroups, channel, seed, visit, workers
from sampan.sandbox.attendant import ATTEND
from sampan.sandbox.edition import edition
from sampan.sandbox.expected import EXPECT
from sampan.sandbox.loop import READ, Loop
from sampan.sandbox.messages import PROTOCOL, decode_keeping
from sampan.sandbox.visit import VISIT

SOCKET = "zygote.sock"


class Zygote:
    """Serves launch requests on ``listener`` until nobody needs it; ``group`` is its cgroup, if not empty."""

    def __init__(self, listener: socket.socket, path: str, group: str) -> None:
        self._listener = listener
        self._path = path
        self._group = group
        self._inode = os.stat(path).st_ino
        self._edition = edition()
        self._loop = Loop()
        self._daemons: list[socket.socket] = []
        self._keepers: dict[int, bytes] = {}
        self._spare: tuple[int, socket.socket] | None = None
        self._expectation = -1
        self._signals = -1
        self._hierarchy = cgroups.detect()
        self._seed: socket.socket | None = None

    def run(self) -> None:
        if self._group:
            with suppress(OSError):  # as in a container that may not: then everything stays together
                self._hierarchy.shelter(self._group)
        p.set_child_subreaper()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        self._signals = p.signalfd(frozenset({signal.SIGCHLD}))
        self._loop.watch(self._signals, READ, self._reap)
        self._loop.watch(self._listener.fileno(), READ, self._accept)
        workers.prepare()
        # Nothing that exists now is ever collected: its pages stay shared with every keeper.
        gc.collect()
        gc.disable()
        gc.freeze()
        self._loop.run()
        with suppress(OSError):
            if os.stat(self._path).st_ino == self._inode:  # a newer zygote may have taken the place
                os.unlink(self._path)
        if self._group:
            with suppress(OSError):
                self._hierarchy.leave(self._group)
                self._hierarchy.remove_parent(self._group.rpartition("/")[0])

    def _accept(self, _events: int) -> None:
        daemon, _ = self._listener.accept()
        self._daemons.append(daemon)
        self._loop.watch(daemon.fileno(), READ, lambda _events: self._serve(daemon))
        with suppress(OSError):
            channel.send(daemon, {"edition": self._edition, "protocol": PROTOCOL, "pid": os.getpid()})
        self._prepare()

    def _serve(self, daemon: socket.socket) -> None:
        try:
            message = channel.receive_bytes(daemon)
        except OSError:
            message = None
        if message is None:
            self._loop.forget(daemon.fileno())
            self._daemons.remove(daemon)
            daemon.close()
            self._stop_if_done()
            return
        keeping, fds = message
        try:
            if keeping == EXPECT:
                self._expect(fds)
            elif keeping == ATTEND:
                self._send_attendant(fds[0])
            elif keeping[0] & VISIT:
                self._send_visitor(keeping[1:], fds)
            else:
                self._give(keeping, fds)
        except OSError as error:
            if not keeping[0] & VISIT:  # whoever waits for a visitor sees its socket end
                _refuse(fds[1], f"{error.filename or 'fork'}: {error.strerror}")
        finally:
            for fd in fds:
                os.close(fd)

    def _give(self, keeping: bytes, fds: list[int]) -> None:
        """Give a job to the keeper that stands by, or to a new one."""
        # What nobody has been told of yet may be this very job: it must not be made once more.
        self._forget_expectation()
        pid, job = self._spare or self._fork()
        self._spare = None
        try:
            channel.send_bytes(job, keeping, fds)
        except OSError:  # it was killed while it stood by
            job.close()
            pid, job = self._fork()
            channel.send_bytes(job, keeping, fds)
        self._keepers[pid] = keeping
        # The socket ends with the launcher: then the container runs, and there is time to fork the next one.
        self._loop.watch(job.fileno(), 0, lambda _events: self._done(job))

    def _expect(self, fds: list[int]) -> None:
        """Let the keeper that stands by, or the next one to do so, know what is expected."""
        self._forget_expectation()
        self._expectation = fds.pop(0)
        if self._spare is not None:
            self._pass_on(self._spare[1])

    def _pass_on(self, job: socket.socket) -> None:
        if self._expectation >= 0:
            with suppress(OSError):
                channel.send_bytes(job, EXPECT, (self._expectation,))
            self._forget_expectation()

    def _forget_expectation(self) -> None:
        if self._expectation >= 0:
            os.close(self._expectation)
            self._expectation = -1

    def _send_visitor(self, request: bytes, fds: list[int]) -> None:
        """Fork a process that looks at a container's files; nobody waits for it here."""
        if os.fork() == 0:
            _become_visitor(request, fds)

    def _send_attendant(self, job: int) -> None:
        """Fork a process that execs can be had of; its daemon waits for it, nobody here."""
        if os.fork() == 0:
            attendant.attend(job, self._hierarchy, f"sampan-exec {os.path.dirname(self._path)}")

    def _done(self, job: socket.socket) -> None:
        self._loop.forget(job.fileno())
        job.close()
        self._prepare()

    def _prepare(self) -> None:
        """Have a keeper stand by. Its failure costs the next start a fork, nothing else."""
        if self._spare is None and self._daemons:
            with suppress(OSError):
                self._spare = self._fork()
                self._pass_on(self._spare[1])

    def _fork(self) -> tuple[int, socket.socket]:
        """A new keeper's pid, and its launcher's socket."""
        if self._seed is not None:
            try:
                return seed.order(self._seed)
            except ConnectionError:  # it was killed, perhaps with the order in its hands
                self._seed.close()
                self._seed = None
        self._seed = self._plant()
        return seed.order(self._seed)

    def _plant(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            if os.fork() == 0:
                seed.grow(theirs.fileno(), self._hierarchy)
        return ours

    def _reap(self, _events: int) -> None:
        with suppress(BlockingIOError):
            os.read(self._signals, 4096)
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                self._buried(*ended)
        self._stop_if_done()

    def _buried(self, pid: int, status: int) -> None:
        """A child ended. A keeper that did not end by itself leaves a container that nobody watches."""
        if self._spare is not None and self._spare[0] == pid:
            self._spare[1].close()  # its launcher ends by that, with what it has made
            self._spare = None
            self._prepare()
        keeping = self._keepers.pop(pid, b"")
        if keeping and status != 0:
            with suppress(OSError):
                self._hierarchy.group(decode_keeping(keeping).cgroup).kill()

    def _stop_if_done(self) -> None:
        if self._daemons:
            return
        if self._spare is not None:
            self._spare[1].close()
            self._spare = None
        if self._seed is not None:
            self._seed.close()
            self._seed = None
        if not _has_children():
            self._loop.stop()


def _has_children() -> bool:
    """Whether a keeper, a visitor, or what a dead keeper left has not been buried yet."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _refuse(control: int, message: str) -> None:
    with suppress(OSError), socket.socket(fileno=os.dup(control)) as sock:
        channel.send(sock, {"event": "failed", "message": message, "code": 128})


def _become_visitor(request: bytes, fds: list[int]) -> NoReturn:
    try:
        start = 3
        for fd in (*sorted(fds), 1 << 20):
            os.closerange(start, fd)
            start = fd + 1
        visit.main(request, fds)
    finally:
        os._exit(1)
    raise AssertionError("unreachable")
