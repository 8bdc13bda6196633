"""``export``: a container's files as a tar archive."""

from __future__ import annotations

import os
import stat

from sampan.cli.command import Command, Options
from sampan.cli.context import Context
from sampan.cli.delivery import deliver, not_to_a_terminal
from sampan.client.api import segment
from sampan.errors import Failure


def _export(context: Context, options: Options, arguments: list[str]) -> int:
    path = options["output"]
    not_to_a_terminal(path)
    if path and (why := _refusal(path)):
        raise Failure(f"failed to export container: {why}")
    answer = context.client.open("GET", f"/containers/{segment(arguments[0])}/export")
    deliver(answer, path)
    return 0


def _refusal(path: str) -> str:
    """Why nothing can be written there, or nothing."""
    folder = os.path.dirname(path)
    if folder and not os.path.isdir(folder):
        return f"invalid output path: stat {folder}: no such file or directory"
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return ""
    if stat.S_ISDIR(mode):
        return "cannot write to a directory"
    if stat.S_ISCHR(mode):
        return "cannot write to a character device file"
    if stat.S_ISBLK(mode):
        return "cannot write to a block device file"
    return ""


COMMANDS: tuple[Command, ...] = (
    Command(
        "export",
        "[OPTIONS] CONTAINER",
        "Export a container's filesystem as a tar archive",
        _export,
        flags=(("o", "output", "string", "Write to this file, not to STDOUT"),),
        least=1,
        most=1,
        aliases=("container export", "export"),
    ),
)
