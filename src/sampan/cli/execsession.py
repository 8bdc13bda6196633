"""The streams and the exit code of one ``exec``."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # "signal" builds enums: 2 ms

from sampan.cli.command import Exit
from sampan.cli.session import WATCHED, Detached, Insistence, Output, Session, Signals
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.context import Context

DEFAULT_KEYS = "ctrl-p,ctrl-q"


class ExecSession:
    """Start exec ``identity`` and carry its streams. Unlike ``run``, no signal is passed on."""

    def __init__(self, context: Context, identity: str, *, tty: bool, stdin: bool, keys: str) -> None:
        self._context = context
        self._path = f"/exec/{identity}"
        self._tty = tty
        self._stdin = stdin
        self._keys = keys
        self._insistence = Insistence()

    def run(self, start: dict[str, Any]) -> int:
        """Start it; returns the command's exit code."""
        client = self._context.client
        with Signals(WATCHED) as signals:
            fd, early, _ = client.hijack(f"{self._path}/start", None, start)
            escape = None
            if self._tty and self._stdin:
                from sampan.cli.terminal import Escape, detach_keys

                escape = Escape(detach_keys(self._keys or DEFAULT_KEYS)).feed
            session = Session(fd, early, Output(multiplexed=not self._tty), stdin=self._stdin, escape=escape)
            session.on_signal = self._signal
            try:
                self._carry(session, signals)
            except Detached:
                raise Exit(1, "read escape sequence") from None
            finally:
                session.close()
        details = client.call("GET", f"{self._path}/json")
        return int(details.get("ExitCode") or 0)

    def _carry(self, session: Session, signals: Signals) -> None:
        if not self._tty:
            session.run(signals)
            return
        from sampan.cli.terminal import Raw

        with Raw(0 if self._stdin else -1):
            self._resize()
            session.run(signals)

    def _signal(self, number: int) -> None:
        if number != _signal.SIGWINCH:
            self._insistence.hear(number)
        elif self._tty:
            self._resize()

    def _resize(self) -> None:
        from sampan.cli.terminal import size

        rows, columns = size(1)
        if not rows and not columns:
            return
        try:
            self._context.client.raw("POST", f"{self._path}/resize", {"h": str(rows), "w": str(columns)})
        except Failure:
            pass  # not running yet or no more
