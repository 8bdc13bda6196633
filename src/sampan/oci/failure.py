"""What ends a command: one line for the user and for whoever reads the runtime's log."""

from __future__ import annotations


class Failed(Exception):
    """The command cannot be done; the message is told, ``code`` is the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code
