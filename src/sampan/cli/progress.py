"""The daemon's progress messages, shown as lines: one a layer on a terminal, one a change elsewhere."""

from __future__ import annotations

import os

from sampan.cli.context import write
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Progress:
    """Shows messages on ``fd``. On a terminal the line of a layer is rewritten in place."""

    __slots__ = ("_fd", "_lines", "_quiet", "_terminal")

    def __init__(self, fd: int, *, quiet: bool = False) -> None:
        self._fd = fd
        self._quiet = quiet
        self._terminal = os.isatty(fd)
        self._lines: dict[str, int] = {}

    def show(self, message: Any) -> None:
        """One message. Raises Failure if it is an error."""
        if message.get("errorDetail") or message.get("error"):
            detail = message.get("errorDetail") or {}
            raise Failure(detail.get("message") or message["error"])
        if self._quiet:
            return
        if "stream" in message:
            write(self._fd, message["stream"])
            return
        status = message.get("status")
        if status is None:
            return
        identity = message.get("id", "")
        bar = _bar(message.get("progressDetail") or {})
        if not self._terminal:
            if not bar:
                write(self._fd, f"{identity}: {status}\n" if identity else f"{status}\n")
            return
        self._place(identity, f"{identity}: {status} {bar}".rstrip() if identity else status)

    def _place(self, identity: str, line: str) -> None:
        if not identity:
            write(self._fd, f"{line}\n")
            self._lines.clear()
            return
        if identity not in self._lines:
            self._lines[identity] = len(self._lines)
            write(self._fd, f"{line}\n")
            return
        up = len(self._lines) - self._lines[identity]
        write(self._fd, f"\x1b[{up}A\x1b[2K\r{line}\r\x1b[{up}B")


def _bar(detail: dict[str, Any]) -> str:
    from sampan.cli.human import size

    current, total = detail.get("current") or 0, detail.get("total") or 0
    if not current:
        return ""
    if not total:
        return size(current)
    full = min(50, 50 * current // total)
    arrow = "=" * full + ">" if full < 50 else "=" * 50
    return f"[{arrow:<51}]  {size(current)}/{size(total)}"
