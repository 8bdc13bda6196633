"""A two-way stream between this process's standard streams and a container: one poll loop, no threads.

Laws:
- Nothing blocks but a write to our own stdout or stderr: input waits in a bounded buffer while the daemon is
  slow, so that a container which writes and reads at once never deadlocks with us.
- Our end of input half-closes the stream; output goes on until the daemon closes it.
- Signals arrive as bytes on a pipe (``signal.set_wakeup_fd``), so that they are handled in the loop's turn.
- The terminal is put back on every way out.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # "signal" builds enums: 2 ms
import _socket
import os
import select

from sampan.cli.command import Exit
from sampan.cli.context import write
from sampan.wire import stdcopy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PIECE = 65536
_RECEIVED = 256 << 10  # bytes of output taken at once
_AT_ONCE = 512  # pieces that one writev takes; the kernel's limit is twice that

_UNTOUCHED = frozenset(
    (
        _signal.SIGKILL,
        _signal.SIGSTOP,
        _signal.SIGCHLD,
        _signal.SIGPIPE,
        _signal.SIGURG,
        32,  # the threading library's own
        33,
    )
)


def signal_name(number: int) -> str:
    """``TERM`` for 15; the number where it has no name."""
    for name, value in vars(_signal).items():
        if value == number and name.startswith("SIG") and not name.startswith("SIG_"):
            return str(name[3:])
    return str(number)


WATCHED = frozenset((_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGQUIT, _signal.SIGWINCH))
"""What a session that passes no signals on has to notice, to put the terminal back."""

_ENOUGH = 3


class Insistence:
    """Signals to a client that does not pass them on: as with Docker's, it leaves at the third request."""

    __slots__ = ("_heard",)

    def __init__(self) -> None:
        self._heard = 0

    def hear(self, number: int) -> None:
        """Raise Exit if ``number`` means that this process shall end now."""
        if number in (_signal.SIGHUP, _signal.SIGQUIT):
            raise Exit(128 + number)
        if number in (_signal.SIGINT, _signal.SIGTERM):
            self._heard += 1
            if self._heard == _ENOUGH:
                raise Exit(1, f"got {_ENOUGH} SIGTERM/SIGINTs, forcefully exiting")


class Signals:
    """Every signal that can be caught, as bytes on ``fd`` while inside."""

    __slots__ = ("_before", "_numbers", "_old", "_write", "fd")

    def __init__(self, numbers: frozenset[int] | None = None) -> None:
        self._numbers = numbers
        self._before: list[tuple[int, object]] = []

    def __enter__(self) -> Signals:
        self.fd, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._old = _signal.set_wakeup_fd(self._write)
        wanted = self._numbers if self._numbers is not None else _signal.valid_signals()
        for number in wanted:
            if number not in _UNTOUCHED:
                try:
                    self._before.append((number, _signal.signal(number, _ignored)))
                except (OSError, ValueError):
                    continue
        return self

    def read(self) -> bytes:
        """The signals that arrived."""
        try:
            return os.read(self.fd, 4096)
        except BlockingIOError:
            return b""

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before:
            if handler is not None:
                _signal.signal(number, handler)
        _signal.set_wakeup_fd(self._old)
        os.close(self.fd)
        os.close(self._write)


def _ignored(_number: int, _frame: object) -> None:
    """The wake-up pipe says it all."""


class Detached(Exception):
    """The detach keys were typed."""


class Output:
    """What the container writes: frames to stdout and stderr, or a terminal's bytes to stdout.

    A frame is written as it comes, whole or not, from where it was received: nothing is copied or collected.
    """

    __slots__ = ("_head", "_left", "_multiplexed", "_stream", "_wanted")

    def __init__(self, *, multiplexed: bool, stdout: bool = True, stderr: bool = True) -> None:
        self._multiplexed = multiplexed
        self._head = b""  # of the next frame, as far as it has come
        self._left = 0  # bytes of the present frame that are still to come
        self._stream = stdcopy.STDOUT
        self._wanted = {stdcopy.STDOUT: stdout, stdcopy.STDERR: stderr, stdcopy.SYSTEM_ERROR: True}

    def feed(self, data: bytes | memoryview) -> None:
        """Write ``data`` to where it belongs."""
        view = memoryview(data)
        if not self._multiplexed:
            write(1, view)
            return
        pieces: list[memoryview] = []
        place = 0
        while place < len(view):
            if not self._left:
                start = place
                place = min(len(view), place + stdcopy.HEADER_SIZE - len(self._head))
                self._head += view[start:place]
                if len(self._head) == stdcopy.HEADER_SIZE:
                    self._begin(pieces)
                continue
            end = min(len(view), place + self._left)
            pieces.append(view[place:end])
            self._left -= end - place
            place = end
        self._flush(pieces)

    def _begin(self, pieces: list[memoryview]) -> None:
        """A frame begins; what came before it is written if it is of another stream."""
        stream, self._left = stdcopy.parse_header(self._head)
        self._head = b""
        if stream != self._stream:
            self._flush(pieces)
            self._stream = stream

    def _flush(self, pieces: list[memoryview]) -> None:
        if pieces and self._wanted.get(self._stream, False):
            write_all(1 if self._stream in (stdcopy.STDIN, stdcopy.STDOUT) else 2, pieces)
        pieces.clear()


def write_all(fd: int, pieces: list[memoryview]) -> None:
    """Write all of ``pieces`` with as few calls as can be."""
    for start in range(0, len(pieces), _AT_ONCE):
        batch = pieces[start : start + _AT_ONCE]
        written = os.writev(fd, batch)
        for piece in batch:
            if written < len(piece):
                write(fd, piece[written:])
            written = max(0, written - len(piece))


class Session:
    """One attached stream.

    ``fd``: the hijacked socket, owned from now on. ``early``: its bytes that were already received.
    ``escape``: feeds on what is typed and finds the detach keys. ``on_signal``: called with each signal.
    """

    __slots__ = (
        "_buffer",
        "_early",
        "_escape",
        "_input",
        "_open",
        "_output",
        "_pending",
        "_signals",
        "_sock",
        "on_signal",
    )

    def __init__(
        self,
        fd: int,
        early: bytes,
        output: Output,
        *,
        stdin: bool,
        escape: Callable[[bytes], tuple[bytes, bool]] | None = None,
    ) -> None:
        self._sock = _socket.socket(fileno=fd)
        self._early = early
        self._buffer = memoryview(bytearray(_RECEIVED))
        self._output = output
        self._input = stdin
        self._open = True
        self._escape = escape
        self._pending = b""
        self.on_signal: Callable[[int], None] = print  # set by the owner before ``run``

    def close(self) -> None:
        """Close the stream."""
        self._sock.close()

    def run(self, signals: Signals) -> None:
        """Carry bytes until the daemon closes its side. Raises Detached, and what ``on_signal`` raises."""
        poll = select.poll()
        poll.register(signals.fd, select.POLLIN)
        sock = self._sock.fileno()
        poll.register(sock, select.POLLIN)
        early, self._early = self._early, b""
        if early:
            self._output.feed(early)
        reading = False
        while True:
            if (self._input and not self._pending) != reading:
                reading = not reading
                if reading:
                    poll.register(0, select.POLLIN)
                else:
                    poll.unregister(0)
            poll.modify(sock, select.POLLIN | select.POLLOUT if self._pending else select.POLLIN)
            for fd, events in poll.poll():
                if fd == 0:
                    self._type()
                elif fd != sock:
                    for number in signals.read():
                        self.on_signal(number)
                elif not self._exchange(events):
                    return

    def _exchange(self, events: int) -> bool:
        """Send and receive as the socket allows; False once the daemon closed."""
        if events & select.POLLOUT:
            self._send()
        return not events & ~select.POLLOUT or self._receive()

    def _receive(self) -> bool:
        try:
            count = self._sock.recv_into(self._buffer)
        except ConnectionResetError:
            return False
        if count:
            self._output.feed(self._buffer[:count])
        return count > 0

    def _type(self) -> None:
        try:
            data = os.read(0, PIECE)
        except OSError:  # a terminal that hung up
            data = b""
        detached = False
        if data and self._escape is not None:
            data, detached = self._escape(data)
            if not data and not detached:
                return
        if detached:
            self._pending += data
            self._send()
            raise Detached
        if not data:
            self._input = False
            self._half_close()
            return
        self._pending = data
        self._send()

    def _half_close(self) -> None:
        if self._open and not self._pending:
            self._open = False
            try:
                self._sock.shutdown(_socket.SHUT_WR)
            except OSError:
                pass  # the daemon closed first

    def _send(self) -> None:
        try:
            sent = self._sock.send(self._pending, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:  # nobody reads any more; output may still be on its way
            self._pending, self._input = b"", False
            return
        self._pending = self._pending[sent:]
        if not self._input:
            self._half_close()
