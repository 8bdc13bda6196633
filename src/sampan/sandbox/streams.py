"""The standard streams of one process: from its pipes or terminal to the log and to attached clients.

Laws:
- Everything the process wrote reaches the log and every client in order; stdout and stderr stay apart.
- A client that was there when the process started, or that started it, is waited for: when it reads slowly
  the process feels it, as through a pipe. A client that came later is let go of when ``_LATE_LIMIT`` bytes
  wait for it: a suspended onlooker must not stop a service.
- When the process has ended, what it wrote is taken from the pipes; nobody waits for pipes that others hold.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable

from sampan.sandbox.clients import Client
from sampan.sandbox.logfile import LogWriter
from sampan.sandbox.loop import HANGUP, READ, WRITE, Loop
from sampan.sandbox.messages import AttachOptions

_CHUNK = 64 << 10  # what a new pipe holds
_LARGE = 256 << 10  # what the pipe of a process that fills it is made to hold
_HIGH, _LOW = 1 << 20, 256 << 10
_LATE_LIMIT = 16 << 20
# As much as a pipe can hold, whatever its size was set to.
_LAST_READS = (1 << 20) // _CHUNK + 1

STDOUT, STDERR = 1, 2


class Streams:
    """``outputs`` maps stream number to descriptor (owned from now on); ``stdin`` is the writing end, or -1.

    ``open_log`` is called when there is something to log. ``on_quiet`` is called when the process has ended
    and the last client has all of its output.
    """

    def __init__(
        self,
        loop: Loop,
        *,
        outputs: dict[int, int],
        stdin: int = -1,
        stdin_once: bool = False,
        terminal: bool = False,
        open_log: Callable[[], LogWriter] | None = None,
        on_quiet: Callable[[], None],
        on_detach: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._outputs = dict(outputs)
        self._chunks = dict.fromkeys(outputs, _CHUNK)
        self._open_log = open_log
        self._log: LogWriter | None = None
        self._clients: list[Client] = []
        self._stdin = StdinPipe(loop, stdin, self._stdin_drained)
        self._stdin_once = stdin_once
        self._terminal = terminal
        self._ended = False
        self._held = False
        self._log_full = False
        self._on_quiet = on_quiet
        self._on_detach = on_detach

    def begin(self) -> None:
        """Start reading output."""
        for stream, fd in self._outputs.items():
            os.set_blocking(fd, False)
            self._loop.watch(fd, READ, self._reader(stream, fd))

    def attach(self, sock: socket.socket, options: AttachOptions, *, owner: bool, early: bytes = b"") -> None:
        """Join a client; its socket is owned from now on. ``early`` is input that it sent already."""
        client = Client(self._loop, sock, options, owner=owner, terminal=self._terminal, streams=self)
        self._clients.append(client)
        if options.logs and (log := self._logged()) is not None:
            client.replay(log)
        client.begin(early)
        if self._ended or not options.stream:
            client.finish()

    # -- from clients ---------------------------------------------------------------------------------

    def input(self, data: bytes) -> bool:
        """Input of a client; False when no more should be read from clients for now."""
        return self._stdin.write(data)

    def input_ended(self) -> None:
        if self._stdin_once and not self._terminal:
            self._stdin.close_when_written()

    def detached(self) -> None:
        self._on_detach()

    def backlog_changed(self, client: Client) -> None:
        """A client's backlog grew or shrank: hold the process back or let it go on."""
        if not client.owner and client.backlog > _LATE_LIMIT:
            client.close()
            return
        self._hold_if_needed()

    def _hold_if_needed(self) -> None:
        longest = max((c.backlog for c in self._clients if c.owner), default=0)
        if self._held and longest < _LOW and not self._log_full:
            self._hold(held=False)
        elif not self._held and (longest > _HIGH or self._log_full):
            self._hold(held=True)

    # -- from the log ---------------------------------------------------------------------------------

    def log_full(self) -> None:
        """The log can take no more for now; see ``LogWriter``."""
        self._log_full = True
        self._hold_if_needed()

    def relent(self, *, patient: bool) -> None:
        """Go on, whatever the log has to drop; or, if ``patient``, only as far as it need not."""
        if self._log is not None:
            self._log.relent(patient=patient)
        self._log_full = False
        self._hold_if_needed()

    def gone(self, client: Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
        if client.options.stdin:
            self.input_ended()
        if self._held:
            self.backlog_changed(client)
        if self._ended and not self._clients:
            self._on_quiet()

    # -- to clients -----------------------------------------------------------------------------------

    def _reader(self, stream: int, fd: int) -> Callable[[int], None]:
        def readable(_events: int) -> None:
            self._read(stream, fd)

        return readable

    def _read(self, stream: int, fd: int) -> bool:
        """Move one chunk on; False when there is nothing (more) to read."""
        try:
            data = os.read(fd, self._chunks[stream])
        except BlockingIOError:
            return False
        except OSError:  # a terminal whose last process is gone reads as EIO
            data = b""
        if not data:
            self._close_output(stream)
            return False
        if len(data) == _CHUNK == self._chunks[stream]:
            self._chunks[stream] = _widened(fd)
        if (log := self._logged()) is not None:
            log.write(stream, data)
        for client in tuple(self._clients):
            client.output(stream, data)
        return True

    def _logged(self) -> LogWriter | None:
        if self._log is None and self._open_log is not None:
            self._log = self._open_log()
        return self._log

    def _close_output(self, stream: int) -> None:
        fd = self._outputs.pop(stream, -1)
        if fd >= 0:
            self._loop.forget(fd)
            os.close(fd)
            if self._log is not None:
                self._log.end(stream)

    def _hold(self, *, held: bool) -> None:
        self._held = held
        for stream, fd in self._outputs.items():
            self._loop.watch(fd, 0 if held else READ, self._reader(stream, fd))

    def _stdin_drained(self) -> None:
        for client in tuple(self._clients):
            client.resume_input()

    def drain(self) -> None:
        """The process has ended: take what it left in the pipes, and no more from others who hold them."""
        for stream, fd in tuple(self._outputs.items()):
            for _ in range(_LAST_READS):
                if not self._read(stream, fd):
                    break
            self._close_output(stream)
        if self._log is not None:
            self._log.close()
            self._log = self._open_log = None
        self._stdin.close()

    def release(self) -> None:
        """Let the clients go, each when it has everything. The exit is known by then: they may ask for it."""
        self._ended = True
        if not self._clients:
            self._on_quiet()
        for client in tuple(self._clients):
            client.finish()


def _widened(fd: int) -> int:
    """Let a pipe hold more, so that writer and reader wake each other less often; how much it holds."""
    try:
        return fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _LARGE)
    except OSError:
        return _CHUNK


class StdinPipe:
    """The writing end of a process's standard input, buffered: a process that does not read blocks nobody."""

    def __init__(self, loop: Loop, fd: int, on_drained: Callable[[], None]) -> None:
        self._loop = loop
        self._fd = fd
        self._buffer = bytearray()
        self._closing = False
        self._on_drained = on_drained
        if fd >= 0:
            os.set_blocking(fd, False)

    def write(self, data: bytes) -> bool:
        """Take input; False when the buffer is long enough for now."""
        if self._fd >= 0 and not self._closing:
            self._buffer += data
            self._flush()
        return len(self._buffer) < _CHUNK

    def close_when_written(self) -> None:
        self._closing = True
        if not self._buffer:
            self.close()

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._buffer.clear()

    def _flush(self) -> None:
        while self._buffer:
            try:
                written = os.write(self._fd, self._buffer)
            except BlockingIOError:
                self._loop.watch(self._fd, WRITE, self._writable)
                return
            except OSError:  # the process closed its end
                self.close()
                return
            del self._buffer[:written]
        self._loop.forget(self._fd)
        if self._closing:
            self.close()

    def _writable(self, events: int) -> None:
        if events & HANGUP:
            self.close()
        else:
            self._flush()
        if len(self._buffer) < _CHUNK:
            self._on_drained()
