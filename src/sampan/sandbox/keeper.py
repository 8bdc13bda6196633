"""The keeper: one small process for each running container, parent of its first process and of every exec.

It owns the standard streams, writes the log, waits for the exit and records it (``exit.json``, by rename),
and serves attach and exec clients. It outlives the daemon: a daemon speaks to it over the socket pair it was
launched with, a later daemon over ``keeper.sock`` in the bundle.

Laws:
- Requests are ``{"seq": n, "op": …}`` and are answered by ``{"seq": n, …}``; what happens by itself is
  ``{"event": …}``, sent to every connected daemon.
- The exit is on disk before anyone is told of it.
- The keeper imports nothing after its start: the package may be replaced under it.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from sampan.errors import Failure
from sampan.linux import process as p
from sampan.sandbox import channel, execs
from sampan.sandbox.launch import LaunchError, Started
from sampan.sandbox.launcher import launch_aside
from sampan.sandbox.logfile import LogWriter
from sampan.sandbox.loop import READ, Loop
from sampan.sandbox.messages import PROTOCOL, Exit, Keeping, decode_attach, encode
from sampan.sandbox.stdio import exit_code, standard_pipes, terminal_ends, write_exit
from sampan.sandbox.steps import set_window_size
from sampan.sandbox.streams import Streams

if TYPE_CHECKING:
    from sampan.sandbox.cgroups import Hierarchy

SOCKET = "keeper.sock"


@contextmanager
def socket_path(bundle: str) -> Iterator[str]:
    """A path of a bundle's keeper socket that fits an address (108 bytes), however deep the bundle lies."""
    fd = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET}"
    finally:
        os.close(fd)


class Keeper:
    """Runs one container from launch to exit. ``control`` is the daemon that asked for it.

    ``document`` is the descriptor of the launch document.
    """

    def __init__(
        self,
        keeping: Keeping,
        document: int,
        hierarchy: Hierarchy,
        control: socket.socket,
        clients: list[tuple[socket.socket, dict[str, Any]]],
    ) -> None:
        self._keeping = keeping
        self._document = document
        self._clients = clients
        self._control = [control]
        self._loop = Loop()
        self._hierarchy = hierarchy
        self._cgroup = hierarchy.group(keeping.cgroup)
        self._log = LogWriter(keeping.log) if keeping.log else None
        self._execs: dict[str, execs.Exec] = {}
        self._started_at = 0.0
        self._exit: Exit | None = None
        self._quiet = False

    # -- life -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Start the container, serve until it has ended and everybody has been served."""
        signals = p.signalfd(frozenset({signal.SIGCHLD}))
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        self._listener = self._listen()
        try:
            started, streams = self._start()
        except LaunchError as error:
            self._give_up(error)
            return
        self._started, self._streams = started, streams
        self._started_at = time.time()
        self._loop.watch(started.pidfd, READ, self._ended)
        self._loop.watch(signals, READ, lambda _events: self._reap(signals))
        self._loop.watch(self._listener.fileno(), READ, self._accept)
        self._watch_control(self._control[0])
        self._tell(self._control[0], {"event": "started", **self._state()})
        streams.begin()
        self._loop.run()

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        os.makedirs(self._keeping.bundle, 0o711, exist_ok=True)
        with suppress(FileNotFoundError):
            os.unlink(f"{self._keeping.bundle}/{SOCKET}")
        with socket_path(self._keeping.bundle) as path:
            listener.bind(path)
        listener.listen(8)
        listener.setblocking(False)
        return listener

    def _start(self) -> tuple[Started, Streams]:
        keeping = self._keeping
        terminal = keeping.terminal
        inside, outside = ([], {}) if terminal else standard_pipes(stdin=keeping.open_stdin)
        try:
            started = launch_aside(self._document, inside, self._hierarchy)
        finally:
            for fd in (self._document, *inside):
                os.close(fd)
        if terminal:
            outside = terminal_ends(started.console)
        streams = Streams(
            self._loop,
            outputs={n: fd for n, fd in outside.items() if n},
            stdin=outside.get(0, -1) if keeping.open_stdin else -1,
            stdin_once=keeping.stdin_once,
            terminal=terminal,
            log=self._log,
            on_quiet=self._became_quiet,
            on_detach=lambda: self._tell_all({"event": "detached"}),
        )
        for sock, client in self._clients:
            early = client["early"].encode("latin-1")
            streams.attach(sock, decode_attach(client["options"]), owner=True, early=early)
        return started, streams

    def _give_up(self, error: LaunchError) -> None:
        for sock, _ in self._clients:
            sock.close()
        self._cgroup.remove()
        self._tell(self._control[0], {"event": "failed", "message": str(error), "code": error.code})

    def _state(self) -> dict[str, Any]:
        return {
            "pid": self._started.pid,
            "started_at": self._started_at,
            "protocol": PROTOCOL,
            "cgroup": self._keeping.cgroup,
            "state": self._keeping.state,
        }

    # -- exit -----------------------------------------------------------------------------------------

    def _ended(self, _events: int) -> None:
        self._loop.forget(self._started.pidfd)
        result = os.waitid(os.P_PIDFD, self._started.pidfd, os.WEXITED)
        assert result is not None
        oom_killed = self._cgroup.oom_killed()
        self._exit = Exit(code=exit_code(result), oom_killed=oom_killed, finished_at=time.time())
        self._end_rest()
        self._streams.end()
        if self._log is not None:
            self._log.close()
        write_exit(self._keeping.state, self._exit)
        self._tell_all({"event": "exit", "exit": encode(self._exit).decode()})
        self._release()
        self._stop_if_done()

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
        if self._exit is not None and self._quiet and not self._execs:
            self._loop.stop()

    def _release(self) -> None:
        """Let go of everything that the next start of this container will make anew, and say so.

        Clients may still be reading the last output.
        """
        os.close(self._started.mounts)
        self._loop.forget(self._listener.fileno())
        self._listener.close()
        with suppress(OSError):
            os.unlink(f"{self._keeping.bundle}/{SOCKET}")
            os.rmdir(self._keeping.bundle)
        with suppress(OSError, Failure):
            self._cgroup.remove()
        self._tell_all({"event": "released"})

    def _reap(self, signals: int) -> None:
        """Reap what was orphaned into this process; its own children are waited for by descriptor."""
        with suppress(BlockingIOError):
            os.read(signals, 4096)
        own = {self._started.pid, *(running.pid for running in self._execs.values())}
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid in own:
                return
            os.waitpid(found.si_pid, os.WNOHANG)

    # -- control --------------------------------------------------------------------------------------

    def _accept(self, _events: int) -> None:
        with suppress(OSError):
            control, _ = self._listener.accept()
            self._control.append(control)
            self._watch_control(control)
            self._tell(control, {"event": "started", **self._state()})

    def _watch_control(self, control: socket.socket) -> None:
        control.setblocking(False)
        self._loop.watch(control.fileno(), READ, lambda _events: self._serve(control))

    def _serve(self, control: socket.socket) -> None:
        try:
            message = channel.receive(control)
        except BlockingIOError:
            return
        except OSError:
            message = None
        if message is None:
            self._loop.forget(control.fileno())
            self._control.remove(control)
            control.close()
            return
        request, fds = message
        try:
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

    def _exec(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        if self._exit is not None:
            raise LaunchError("container is not running", 128)
        running = execs.start(
            self._loop,
            execs.decode(request),
            fds,
            self._started.pidfd,
            self._cgroup,
            self._keeping,
            self._exec_ended,
        )
        self._execs[running.id] = running
        return {"pid": running.pid}

    def _exec_ended(self, running: execs.Exec, code: int) -> None:
        self._tell_all({"event": "exec-exit", "exec": running.id, "code": code})
        self._execs.pop(running.id, None)
        self._stop_if_done()

    def _tell_all(self, document: dict[str, Any]) -> None:
        for control in tuple(self._control):
            self._tell(control, document)

    def _tell(self, control: socket.socket, document: dict[str, Any]) -> None:
        # A daemon that went away finds everything again by itself.
        with suppress(OSError):
            channel.send(control, document)
