"""The zygote: one small process without threads, from which every keeper is forked.

It is started before anything heavy is loaded and has imported everything that a keeper will need. It looks
at no request itself: the forked keeper does, so that a bad one ends one keeper and nothing else, and because
every page that the zygote writes to is one less that the keepers share.

Laws:
- It outlives the daemon and serves the next one of its own version on ``zygote.sock``.
- It is the subreaper of what dead keepers leave: when a keeper dies without having recorded its container's
  exit, the container is killed by its cgroup. The daemon learns of it by the end of the keeper's socket.
- It ends when no daemon is connected and its last keeper is gone.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import traceback
from collections.abc import Iterable
from contextlib import suppress
from typing import NoReturn

from sampan import __version__
from sampan.linux import process as p
from sampan.sandbox import cgroups, channel, keeper
from sampan.sandbox.loop import READ, Loop
from sampan.sandbox.messages import PROTOCOL, decode_keeping

SOCKET = "zygote.sock"


class Zygote:
    """Serves launch requests on ``listener`` until nobody needs it."""

    def __init__(self, listener: socket.socket, path: str) -> None:
        self._listener = listener
        self._path = path
        self._loop = Loop()
        self._daemons: list[socket.socket] = []
        self._keepers: dict[int, bytes] = {}
        self._signals = -1
        self._hierarchy = cgroups.detect()

    def run(self) -> None:
        p.set_child_subreaper()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        self._signals = p.signalfd(frozenset({signal.SIGCHLD}))
        self._loop.watch(self._signals, READ, self._reap)
        self._loop.watch(self._listener.fileno(), READ, self._accept)
        # Nothing that exists now is ever collected: its pages stay shared with every keeper.
        gc.collect()
        gc.disable()
        gc.freeze()
        self._loop.run()
        with suppress(OSError):
            os.unlink(self._path)

    def _accept(self, _events: int) -> None:
        daemon, _ = self._listener.accept()
        self._daemons.append(daemon)
        self._loop.watch(daemon.fileno(), READ, lambda _events: self._serve(daemon))
        with suppress(OSError):
            channel.send(daemon, {"version": __version__, "protocol": PROTOCOL, "pid": os.getpid()})

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
            self._fork(keeping, fds)
        except OSError as error:
            _refuse(fds[1], f"{error.filename or 'fork'}: {error.strerror}")
        finally:
            for fd in fds:
                os.close(fd)

    def _fork(self, keeping: bytes, fds: list[int]) -> None:
        inherited = (
            self._loop.fileno(),
            self._listener.fileno(),
            self._signals,
            *(daemon.fileno() for daemon in self._daemons),
        )
        pid = os.fork()
        if pid == 0:
            _become_keeper(keeper.Keeper(keeping, self._hierarchy, fds), inherited)
        self._keepers[pid] = keeping

    def _reap(self, _events: int) -> None:
        with suppress(BlockingIOError):
            os.read(self._signals, 4096)
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                self._buried(*ended)
        self._stop_if_done()

    def _buried(self, pid: int, status: int) -> None:
        """A child ended. A keeper that did not end by itself leaves a container that nobody watches."""
        keeping = self._keepers.pop(pid, b"")
        if keeping and status != 0:
            with suppress(OSError):
                self._hierarchy.group(decode_keeping(keeping).cgroup).kill()

    def _stop_if_done(self) -> None:
        if not self._daemons and not self._keepers:
            self._loop.stop()


def _refuse(control: int, message: str) -> None:
    with suppress(OSError), socket.socket(fileno=os.dup(control)) as sock:
        channel.send(sock, {"event": "failed", "message": message, "code": 128})


def _become_keeper(made: keeper.Keeper, inherited: Iterable[int]) -> NoReturn:
    try:
        for fd in inherited:
            os.close(fd)
        made.run()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)
    raise AssertionError("unreachable")
