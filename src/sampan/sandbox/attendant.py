"""The attendant: the parent of an exec's program, so that the container's keeper can sleep on.

It is forked from the zygote, serves one exec after the other, of any container, and never enters one: what
it clones does (``joining``). So it stays warm: it has written to the pages that an exec writes to, which a
keeper would have to do for its container's first one, and would have for its own until the end.

Laws:
- One exec at a time. On its socket to the daemon come the requests: to run a program, with a pidfd of the
  container's first process and the client's socket, if any; and to change the size of its terminal. It sends
  the answers; the exit, before the client sees the end of the output; and that it is free again, when the
  client has all of it.
- There is no program before the daemon was sent its pidfd: when the attendant is killed, the daemon ends it.
- A free attendant ends with the daemon; one that serves, when the exec is over.
- It imports nothing after its start.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from sampan.linux import process as p
from sampan.sandbox import channel, execs
from sampan.sandbox.entering import failure_of
from sampan.sandbox.joining import JOINED, SETUP_FAILED, Joiner
from sampan.sandbox.launch import LaunchError
from sampan.sandbox.loop import READ, Loop
from sampan.sandbox.messages import Surroundings
from sampan.sandbox.program import Program
from sampan.sandbox.stdio import read_file
from sampan.sandbox.steps import set_window_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.sandbox.cgroups import Hierarchy
    from sampan.sandbox.execs import Request

ATTEND = b"\xfe"
_JOB = 3


def attend(job: int, hierarchy: Hierarchy, title: str) -> NoReturn:
    """Serve the daemon at the other end of ``job``, the only descriptor that is kept."""
    try:
        if job != _JOB:
            os.dup2(job, _JOB, inheritable=False)
        os.closerange(_JOB + 1, 1 << 20)
        p.set_title(title)
        p.set_dumpable(dumpable=False)  # nor is what it clones, from the beginning
        _Attendant(hierarchy, socket.socket(fileno=_JOB)).run()
    finally:
        os._exit(0)
    raise AssertionError("unreachable")


class _Attendant:
    def __init__(self, hierarchy: Hierarchy, daemon: socket.socket) -> None:
        self._hierarchy = hierarchy
        self._daemon = daemon
        self._loop = Loop()
        self._exec: execs.Exec | None = None
        self._orphaned = False

    def run(self) -> None:
        self._loop.watch(self._daemon.fileno(), READ, self._serve)
        self._loop.run()

    def _serve(self, _events: int) -> None:
        try:
            message = channel.receive(self._daemon)
        except OSError:
            message = None
        if message is None:
            self._loop.forget(self._daemon.fileno())
            self._orphaned = True
            if self._exec is None:
                self._loop.stop()
            return
        request, fds = message
        answer = self._run(request, fds) if request["op"] == "exec" else self._resize(request)
        self._tell({"seq": request["seq"], **answer})

    def _run(self, document: dict[str, Any], fds: list[int]) -> dict[str, object]:
        init, *client = fds
        request = execs.decode(document)
        entry = _Entry(self._hierarchy, Surroundings(**document["container"]), init, self._daemon)
        try:
            self._exec = execs.start(
                self._loop, request, client, entry.clone, self._ended, on_quiet=self._served
            )
        except LaunchError as error:
            return {"failed": str(error), "code": error.code}
        except Exception as error:
            return failure_of(error, setup_failed=SETUP_FAILED)
        finally:
            os.close(init)
        return {"pid": self._exec.pid}

    def _resize(self, request: dict[str, Any]) -> dict[str, object]:
        if self._exec is not None and self._exec.console >= 0:
            with suppress(OSError):
                set_window_size(self._exec.console, request["height"], request["width"])
        return {}

    def _ended(self, _running: execs.Exec, code: int) -> None:
        self._tell({"event": "exec-exit", "code": code})

    def _served(self) -> None:
        if self._exec is None:
            return
        self._exec = None
        if self._orphaned:
            self._loop.stop()
        else:
            self._tell({"event": "free"})

    def _tell(self, document: dict[str, Any]) -> None:
        with suppress(OSError):  # a daemon that went away has forgotten the exec
            channel.send(self._daemon, document)


class _Entry:
    """How a program gets into the container of pidfd ``init``."""

    def __init__(
        self, hierarchy: Hierarchy, container: Surroundings, init: int, daemon: socket.socket
    ) -> None:
        self._container = container
        self._init = init
        self._daemon = daemon
        self.cgroup = hierarchy.group(container.cgroup)

    def clone(self, loop: Loop, request: Request, stdio: Sequence[int]) -> tuple[int, int, int]:
        """(pid, pidfd, console master or -1) of the program, once it runs. Raises LaunchError."""
        if self.cgroup.frozen():
            raise LaunchError(execs.FROZEN, SETUP_FAILED)
        flags = 0
        for kind in self._container.namespaces:
            flags |= JOINED.get(kind, 0)
        path = self._container.seccomp_filter if request.filtered else None
        program = Program(
            process=request.process,
            user=request.user,
            group_add=tuple(self._container.group_add),
            filter=read_file(path) if path else None,
            make_directory=False,
        )
        opened: list[int] = []
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        joiner = Joiner(theirs, program, stdio, request.console_size, gated=True)
        try:
            if (group := self.cgroup.clone_fd()) is not None:
                opened.append(group)
            opened += (entrances := self.cgroup.entrances())
            p.setns(self._init, p.CLONE_NEWPID)  # for children only
            pid, pidfd = p.clone3(cgroup_fd=group)
            if pid == 0:
                ours.close()
                joiner.run(self._init, flags, entrances)
        except OSError as error:
            ours.close()
            raise LaunchError(f"cannot join the container: {error.strerror}", SETUP_FAILED) from error
        finally:
            theirs.close()
            for fd in opened:
                os.close(fd)
        with suppress(OSError):
            channel.send(self._daemon, {"event": "cloned"}, (pidfd,))
        return pid, pidfd, execs.see_in(loop, ours, pidfd, self.cgroup)
