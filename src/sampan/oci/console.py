"""Terminals: given away over ``--console-socket``, or joined to the caller's own while a process runs."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import termios
import tty
from contextlib import suppress
from typing import TYPE_CHECKING

from sampan.oci.failure import Failed

if TYPE_CHECKING:
    from typing import Any

_CHUNK = 1 << 16


def give(path: str, console: int) -> None:
    """Send a terminal's master to whoever listens at ``path``."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(path)
            socket.send_fds(sock, [b"/dev/ptmx"], [console])
    except OSError as error:
        raise Failed(f"--console-socket {path}: {(error.strerror or str(error)).lower()}") from error


class Relay:
    """Joins our own standard streams to a terminal's master; restores our terminal at the end."""

    def __init__(self, console: int) -> None:
        self._console = console
        self._saved: list[Any] | None = None
        self._waiting = select.poll()
        self._waiting.register(console, select.POLLIN)
        self._waiting.register(0, select.POLLIN)
        if os.isatty(0):
            self._saved = termios.tcgetattr(0)
            tty.setraw(0)
            self.resize()

    def resize(self) -> None:
        """Give the terminal the size of ours."""
        with suppress(OSError):
            fcntl.ioctl(self._console, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8))

    def watch(self, fd: int) -> None:
        self._waiting.register(fd, select.POLLIN)

    def pass_on(self) -> list[int]:
        """Wait until anything happens and pass on what came; the other descriptors that are ready."""
        others = []
        for fd, _ in self._waiting.poll():
            if fd == self._console:
                if not self._move(self._console, 1):
                    self._waiting.unregister(self._console)
            elif fd == 0:
                if not self._move(0, self._console):
                    self._waiting.unregister(0)
            else:
                others.append(fd)
        return others

    def _move(self, source: int, target: int) -> bool:
        try:
            data = os.read(source, _CHUNK)
            while data:
                data = data[os.write(target, data) :]
                if not data:
                    return True
        except OSError:  # a terminal whose last process is gone reads as EIO
            pass
        return False

    def finish(self) -> None:
        """Pass on what is left and give our terminal back."""
        os.set_blocking(self._console, False)
        while self._move(self._console, 1):
            pass
        if self._saved is not None:
            with suppress(OSError):
                termios.tcsetattr(0, termios.TCSADRAIN, self._saved)


def wait(pidfd: int, console: int) -> int:
    """Be the process's foreground until it ends: pass on signals, and the terminal if there is one.

    The exit code is as a shell has it.
    """
    from sampan.linux.process import signalfd

    passed = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1})
    passed |= {signal.SIGUSR2, signal.SIGWINCH}
    signal.pthread_sigmask(signal.SIG_BLOCK, passed)
    signals = signalfd(passed)
    relay = Relay(console) if console >= 0 else None
    if relay is not None:
        relay.watch(pidfd)
        relay.watch(signals)
    plain = select.poll()
    plain.register(pidfd, select.POLLIN)
    plain.register(signals, select.POLLIN)
    try:
        while True:
            ready = relay.pass_on() if relay is not None else [fd for fd, _ in plain.poll()]
            if signals in ready:
                _pass_signal(os.read(signals, 128)[0], pidfd, relay)
            if pidfd in ready:
                break
    finally:
        if relay is not None:
            relay.finish()
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    assert result is not None
    return result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status


def _pass_signal(number: int, pidfd: int, relay: Relay | None) -> None:
    if number == signal.SIGWINCH:
        if relay is not None:
            relay.resize()
        return
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)
