"""The keeper: one small process for each running container, parent of its first process.

It owns the standard streams, writes the log, waits for the exit and records it (``exit.json``, by rename),
and serves attached clients. Execs have an ``attendant`` each, but where another runtime starts them. It
outlives the daemon: a daemon speaks to it over the socket pair it was launched with, a later daemon over
``keeper.sock`` in the bundle.

Laws:
- Requests are ``{"seq": n, "op": …}`` and are answered by ``{"seq": n, …}``; what happens by itself is
  ``{"event": …}``, sent to every connected daemon, in order; a daemon that is slow gets it later.
- The exit is on disk before anyone is told of it.
- A container with a time limit is ended by its stop rules when its time is over, with or without a daemon.
- The keeper imports nothing after its start: the package may be replaced under it.
"""

from __future__ import annotations

import errno
import functools
import os
import signal
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sampan.errors import Failure
from sampan.sandbox import channel, execs, external, keeper_socket
from sampan.sandbox.joining import SETUP_FAILED
from sampan.sandbox.launch import LaunchError, Started
from sampan.sandbox.launcher import started_event
from sampan.sandbox.logfile import LogWriter
from sampan.sandbox.loop import READ, WRITE, Loop
from sampan.sandbox.messages import (
    LOGGED,
    STDIN,
    TERMINAL,
    TIMED,
    Exit,
    Keeping,
    decode_attach,
    decode_client,
    decode_keeping,
    encode,
    fields_of,
)
from sampan.sandbox.stdio import exit_code, terminal_ends, write_exit
from sampan.sandbox.steps import set_window_size
from sampan.sandbox.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.sandbox.cgroups import Cgroup, Hierarchy


class Keeper:
    """Keeps one container from its first sign of life to its exit; see ``standby`` for what is before.

    ``keeping`` is encoded; ``control`` and ``listener`` are descriptors.
    """

    def __init__(
        self, keeping: bytes, hierarchy: Hierarchy, started: Started, *, control: int, listener: int
    ) -> None:
        self._encoded = keeping
        self._hierarchy = hierarchy
        self._started = started
        self._listener = listener
        self._controls: dict[int, socket.socket | None] = {}
        self._unsent: dict[int, list[dict[str, Any]]] = {}  # to a daemon that does not read
        self._execs: dict[str, execs.Exec] = {}
        self._exit: Exit | None = None
        self._quiet = False
        self._timed_out = False
        self._loop = Loop()
        self._watch_control(control)

    @functools.cached_property
    def _keeping(self) -> Keeping:
        return decode_keeping(self._encoded)

    @property
    def _cgroup(self) -> Cgroup:
        return self._hierarchy.group(self._keeping.cgroup)

    # -- life -----------------------------------------------------------------------------------------

    def run(self, pipes: dict[int, int], clients: list[tuple[int, dict[str, Any]]]) -> None:
        """Serve until the container has ended and everybody has been served.

        ``pipes`` are our ends of the standard streams, unless there is a terminal; ``clients`` are the
        sockets of ``messages.InitialClient``.
        """
        flags = self._encoded[0]
        self._streams = self._join_streams(
            flags, terminal_ends(self._started.console) if flags & TERMINAL else pipes
        )
        for fd, document in clients:
            client = decode_client(document)
            early = client.early.encode("latin-1")
            self._streams.attach(socket.socket(fileno=fd), client.options, owner=True, early=early)
        self._loop.watch(self._started.pidfd, READ, self._ended)
        self._loop.watch(self._listener, READ, self._accept)
        if flags & TIMED and (limit := self._keeping.limit) is not None:
            self._loop.after(limit.seconds - (time.time() - self._started.at), self._time_is_over)
        self._streams.begin()
        self._loop.run()

    def reap_at_end_of(self, fd: int, pid: int) -> None:
        """Reap the child ``pid`` once the other end of ``fd`` is closed, as it is when the child ends."""

        def ended(_events: int) -> None:
            self._loop.forget(fd)
            os.close(fd)
            os.waitpid(pid, 0)

        self._loop.watch(fd, 0, ended)

    def _join_streams(self, flags: int, outside: dict[int, int]) -> Streams:
        stdin = outside.pop(0)
        if flags & TERMINAL and not flags & STDIN:
            os.close(stdin)
        return Streams(
            self._loop,
            outputs=outside,
            stdin=stdin if flags & STDIN else -1,
            stdin_once=bool(flags & STDIN) and self._keeping.stdin_once,
            terminal=bool(flags & TERMINAL),
            open_log=self._open_log if flags & LOGGED else None,
            on_quiet=self._became_quiet,
            on_detach=lambda: self._tell_all({"event": "detached"}),
        )

    def _open_log(self) -> LogWriter:
        assert self._keeping.log is not None
        return LogWriter(
            self._keeping.log,
            on_rotated=lambda: self._tell_all({"event": "log", "what": "rotated"}),
            on_full=self._log_full,
        )

    def _log_full(self) -> None:
        """Hold the process back until a daemon has sent the log on; without one, the oldest part goes."""
        self._streams.log_full()
        self._tell_all({"event": "log", "what": "full"})
        if not self._controls:
            self._streams.relent(patient=False)

    # -- exit -----------------------------------------------------------------------------------------

    def _ended(self, _events: int) -> None:
        self._loop.forget(self._started.pidfd)
        result = os.waitid(os.P_PIDFD, self._started.pidfd, os.WEXITED)
        assert result is not None
        oom_killed = self._cgroup.oom_killed()
        self._exit = Exit(
            code=exit_code(result),
            oom_killed=oom_killed,
            finished_at=time.time(),
            timed_out=self._timed_out,
        )
        self._end_rest()
        self._streams.drain()
        write_exit(self._keeping.state, self._exit)
        self._tell_all({"event": "exit", "exit": encode(self._exit).decode()})
        self._streams.release()
        self._release()
        self._stop_if_done()

    def _time_is_over(self) -> None:
        limit = self._keeping.limit
        if limit is None or self._exit is not None:
            return
        self._timed_out = True
        self._signal(limit.signal)
        if self._cgroup.frozen():
            self._cgroup.thaw()
        if limit.grace is not None:
            self._loop.after(limit.grace, lambda: self._signal(signal.SIGKILL))

    def _end_rest(self) -> None:
        """End what still runs. In a pid namespace of its own the kernel has done so already."""
        for running in tuple(self._execs.values()):
            running.kill()
        if "pid" not in self._keeping.namespaces:
            self._cgroup.kill()

    def _became_quiet(self) -> None:
        self._quiet = True
        self._stop_if_done()

    def _stop_if_done(self) -> None:
        if self._exit is not None and self._quiet and not self._execs and not self._unsent:
            self._loop.stop()

    def _release(self) -> None:
        """Let go of everything that the next start of this container will make anew, and say so.

        Clients may still be reading the last output.
        """
        if self._started.mounts >= 0:
            os.close(self._started.mounts)
        self._loop.forget(self._listener)
        os.close(self._listener)
        if self._keeping.runtime is not None:
            external.clear(self._keeping.bundle)
        with suppress(OSError, Failure):
            self._cgroup.remove()
        # The bundle goes last: while it is there, a daemon looks for what else may be left.
        keeper_socket.remove(self._keeping.bundle)
        self._tell_all({"event": "released"})

    # -- control --------------------------------------------------------------------------------------

    def _accept(self, _events: int) -> None:
        with suppress(OSError):
            listener = socket.socket(fileno=self._listener)
            try:
                accepted, _ = listener.accept()
            finally:
                listener.detach()
            control = accepted.detach()
            self._watch_control(control)
            self._tell(control, started_event(self._keeping, self._started))

    def _watch_control(self, control: int) -> None:
        self._controls[control] = None
        os.set_blocking(control, False)
        self._watch(control, READ)

    def _watch(self, control: int, events: int) -> None:
        self._loop.watch(control, events, lambda ready: self._ready(control, ready))

    def _ready(self, control: int, events: int) -> None:
        if events & WRITE:
            self._send_waiting(control)
        if events & ~WRITE and control in self._controls:
            self._serve(control)

    def _socket(self, control: int) -> socket.socket:
        """The socket object of a control connection, made when it is first needed."""
        known = self._controls[control]
        if known is None:
            known = self._controls[control] = socket.socket(fileno=control)
        return known

    def _serve(self, control: int) -> None:
        sock = self._socket(control)
        try:
            message = channel.receive(sock)
        except BlockingIOError:
            return
        except OSError:
            message = None
        if message is None:
            self._loop.forget(control)
            del self._controls[control]
            self._unsent.pop(control, None)
            sock.close()
            if not self._controls:
                self._streams.relent(patient=False)
            self._stop_if_done()
            return
        request, fds = message
        try:
            if request["op"] == "entrance":
                self._lend_entrance(control, request["seq"])
                return
            answer = self._handle(request, fds)
        except OSError as error:
            answer = {"failed": error.strerror, "code": 128}
        except LaunchError as error:
            answer = {"failed": str(error), "code": error.code}
        self._tell(control, {"seq": request["seq"], **answer})

    def _handle(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        match request["op"]:
            case "signal":
                self._signal(request["number"])
            case "pause":
                self._cgroup.freeze()
            case "resume":
                self._cgroup.thaw()
            case "resize":
                self._resize(request)
            case "attach":
                early = request["early"].encode("latin-1")
                options = decode_attach(request["options"])
                self._streams.attach(socket.socket(fileno=fds[0]), options, owner=False, early=early)
            case "log":
                self._streams.relent(patient=request["patient"])
            case "exec":
                return self._exec(request, fds)
            case other:
                raise OSError(errno.ENOSYS, f"unknown request {other}")
        return {}

    def _signal(self, number: int) -> None:
        if self._exit is not None:
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._started.pidfd, number)
        if number == signal.SIGKILL and self._cgroup.frozen():
            self._cgroup.thaw()

    def _resize(self, request: dict[str, Any]) -> None:
        running = self._execs.get(request.get("exec", ""))
        console = running.console if running else self._started.console
        if console >= 0:
            set_window_size(console, request["height"], request["width"])

    def _lend_entrance(self, control: int, number: int) -> None:
        """What a daemon that did not start the container needs for others to enter it."""
        if self._keeping.runtime is not None:
            raise OSError(errno.ENOSYS, "it is for its runtime to enter")
        container = fields_of(self._keeping.surroundings)
        channel.send(self._socket(control), {"seq": number, "container": container}, (self._started.pidfd,))

    def _exec(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        if self._exit is not None:
            raise LaunchError("container is not running", 128)
        if self._keeping.runtime is None:
            raise OSError(errno.ENOSYS, "unknown request exec")

        def clone(_loop: Loop, wanted: execs.Request, stdio: Sequence[int]) -> tuple[int, int, int]:
            if self._cgroup.frozen():
                raise LaunchError(execs.FROZEN, SETUP_FAILED)
            return external.start_exec(self._keeping, wanted, stdio, self._started.pidfd, self._cgroup)

        running = execs.start(self._loop, execs.decode(request), fds, clone, self._exec_ended)
        self._execs[running.id] = running
        return {"pid": running.pid}

    def _exec_ended(self, running: execs.Exec, code: int) -> None:
        self._tell_all({"event": "exec-exit", "exec": running.id, "code": code})
        self._execs.pop(running.id, None)
        self._stop_if_done()

    def _tell_all(self, document: dict[str, Any]) -> None:
        for control in tuple(self._controls):
            self._tell(control, document)

    def _tell(self, control: int, document: dict[str, Any]) -> None:
        if (waiting := self._unsent.get(control)) is not None:
            waiting.append(document)
        elif not self._send(control, document):
            self._unsent[control] = [document]
            self._watch(control, READ | WRITE)

    def _send(self, control: int, document: dict[str, Any]) -> bool:
        """False when the daemon has so much to read that this has to wait."""
        try:
            channel.send(self._socket(control), document)
        except BlockingIOError:
            return False
        except OSError:
            pass  # a daemon that went away finds everything again by itself
        return True

    def _send_waiting(self, control: int) -> None:
        waiting = self._unsent.get(control, [])
        while waiting and self._send(control, waiting[0]):
            del waiting[0]
        if not waiting:
            self._unsent.pop(control, None)
            self._watch(control, READ)
            self._stop_if_done()
