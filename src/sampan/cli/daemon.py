"""``daemon``: become the engine. The rest of the line is the engine's own."""

from __future__ import annotations

import os
import sys

from sampan.cli.command import Command, Options
from sampan.cli.context import Context


def _daemon(_context: Context, _options: Options, arguments: list[str]) -> int:
    os.execv(sys.executable, [sys.executable, "-P", "-m", "sampan.daemon", *arguments])


COMMANDS: tuple[Command, ...] = (
    Command("daemon", "[OPTIONS]", "Run the engine", _daemon, interspersed=False, raw=True),
)
