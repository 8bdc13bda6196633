"""The terminal at the other end of a descriptor: its size, raw mode, and its state put back.

Law: whatever ends a raw session, the terminal is as it was found. ``Raw`` is a context manager, and every
path out of a session goes through it.
"""

from __future__ import annotations

import os
import termios

_IFLAG = (
    termios.IGNBRK
    | termios.BRKINT
    | termios.PARMRK
    | termios.ISTRIP
    | termios.INLCR
    | termios.IGNCR
    | termios.ICRNL
    | termios.IXON
)
_LFLAG = termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN


def size(fd: int) -> tuple[int, int]:
    """Rows and columns of the terminal on ``fd``, or 0, 0."""
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        return 0, 0
    return rows, columns


class Raw:
    """Raw mode on ``fd`` while inside; nothing happens where ``fd`` is no terminal, or is -1."""

    __slots__ = ("_before", "_fd")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before: list[object] | None = None

    def __enter__(self) -> Raw:
        if self._fd < 0:
            return self
        try:
            before = termios.tcgetattr(self._fd)
        except (termios.error, OSError):
            return self
        self._before = list(before)
        raw = list(before)
        raw[0] &= ~_IFLAG
        raw[1] &= ~termios.OPOST
        raw[2] = (raw[2] & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
        raw[3] &= ~_LFLAG
        raw[6] = list(raw[6])
        raw[6][termios.VMIN] = 1
        raw[6][termios.VTIME] = 0
        termios.tcsetattr(self._fd, termios.TCSANOW, raw)
        return self

    def __exit__(self, *_: object) -> None:
        before, self._before = self._before, None
        if before is not None:
            try:
                termios.tcsetattr(self._fd, termios.TCSANOW, before)  # type: ignore[arg-type]
            except (termios.error, OSError):
                pass  # the terminal is gone


def detach_keys(text: str) -> bytes:
    """``ctrl-p,ctrl-q`` as the bytes that a terminal sends for it. Raises ValueError."""
    codes = bytearray()
    for key in text.split(","):
        if len(key) == 1:
            codes += key.encode()
        elif key.startswith("ctrl-") and len(key) == 6 and key[5] in _CONTROL:
            codes.append(_CONTROL.index(key[5]))
        elif key == "DEL":
            codes.append(127)
        else:
            raise ValueError(f"Unknown character: '{key}'")
    return bytes(codes)


_CONTROL = "@abcdefghijklmnopqrstuvwxyz[\\]^_"


class Escape:
    """Finds the detach sequence in what is typed, across pieces.

    Bytes that begin the sequence are held back until the next byte decides.
    """

    __slots__ = ("_held", "_keys")

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = 0  # how many bytes of the sequence have been seen

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to send on, and whether the sequence is complete."""
        out = bytearray()
        for byte in data:
            if byte == self._keys[self._held]:
                self._held += 1
                if self._held == len(self._keys):
                    return bytes(out), True
                continue
            out += self._keys[: self._held]
            self._held = 0
            if byte == self._keys[0]:
                self._held = 1
                if len(self._keys) == 1:
                    return bytes(out), True
            else:
                out.append(byte)
        return bytes(out), False
