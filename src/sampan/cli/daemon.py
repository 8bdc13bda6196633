"""``daemon``: become the engine. The rest of the line is the engine's own."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # "signal" builds enums: 2 ms
import os
import sys

from sampan.cli.command import Command, Options
from sampan.cli.context import Context


def _daemon(_context: Context, _options: Options, arguments: list[str]) -> int:
    # Blocked until the engine has a way to end: status 0 is what it ends with when it is told to.
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGTERM, _signal.SIGINT))
    os.execv(sys.executable, [sys.executable, "-P", "-m", "sampan.daemon", *arguments])


COMMANDS: tuple[Command, ...] = (
    Command("daemon", "[OPTIONS]", "Run the engine", _daemon, interspersed=False, raw=True),
)
