"""``diff``: what a container has changed in its image's files."""

from __future__ import annotations

from sampan.cli.command import Command, Options
from sampan.cli.context import Context, out
from sampan.client.api import segment
from sampan.errors import Failure

_KINDS = ("C", "A", "D")


def _diff(context: Context, _options: Options, arguments: list[str]) -> int:
    name = arguments[0]
    if not name:
        raise Failure("Container name cannot be empty")
    changes = context.client.call("GET", f"/containers/{segment(name)}/changes") or []
    if changes:
        out("\n".join(f"{_KINDS[change['Kind']]} {change['Path']}" for change in changes))
    return 0


COMMANDS: tuple[Command, ...] = (
    Command(
        "diff",
        "CONTAINER",
        "List what a container added (A), changed (C) and deleted (D) in its filesystem",
        _diff,
        least=1,
        most=1,
        aliases=("container diff", "diff"),
    ),
)
