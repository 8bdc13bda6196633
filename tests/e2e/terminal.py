"""A person at a real terminal: waits for what appears, then types. No sleeps."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping, Sequence

PATIENCE = 30.0
"""Seconds after which what was waited for is not coming."""


class Terminal:
    """A program on a pseudo terminal. Closing it ends the program."""

    def __init__(self, argv: Sequence[str], *, environment: Mapping[str, str]) -> None:
        self.seen = b""
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            try:
                os.execvpe(argv[0], list(argv), dict(environment))
            finally:
                os._exit(127)
        self.size(24, 80, tell=False)
        self._status: int | None = None

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)

    def size(self, rows: int, columns: int, *, tell: bool = True) -> None:
        """Make the window ``rows`` by ``columns``."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if tell:
            os.kill(self.pid, signal.SIGWINCH)

    def type(self, data: bytes) -> None:
        """Type ``data``."""
        os.write(self._fd, data)

    def signal(self, number: int) -> None:
        """Send a signal to the program."""
        os.kill(self.pid, number)

    def expect(self, text: bytes) -> bytes:
        """Read until ``text`` has appeared since the last call; returns what came up to it."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.seen:
            if not self._read(deadline):
                raise AssertionError(f"{text!r} did not appear in {self.seen!r}")
        before, _, self.seen = self.seen.partition(text)
        return before

    def end(self) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        if time.monotonic() >= deadline:
            raise AssertionError(f"the program goes on after {self.seen!r}")
        self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    def is_raw(self) -> bool:
        """Whether the terminal passes every key on."""
        return not termios.tcgetattr(self._fd)[3] & termios.ICANON

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # the last program on the terminal is gone
            return False
        self.seen += data
        return bool(data)
