"""``builder`` mounts, export-mount, import-mount: what ``RUN --mount=type=cache`` keeps."""

from __future__ import annotations

import os

from sampan.cli.command import FORMAT_HELP, Command, Options
from sampan.cli.context import Context, out
from sampan.cli.delivery import deliver, hand_in, not_to_a_terminal
from sampan.cli.human import ago, size
from sampan.cli.listing import Fields, render
from sampan.client.http import quote
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar


class CacheMount(Fields):
    """A row of ``builder mounts``."""

    columns: ClassVar[dict[str, str]] = {
        "ID": "ID",
        "InUse": "IN USE",
        "LastUsed": "LAST USED",
        "Size": "SIZE",
    }
    __slots__ = ("_found",)

    def __init__(self, found: dict[str, Any]) -> None:
        self._found = found

    def ID(self) -> str:
        return str(self._found["Id"])

    def InUse(self) -> str:
        return "true" if self._found["InUse"] else "false"

    def LastUsed(self) -> str:
        return ago(self._found["LastUsed"])

    def Size(self) -> str:
        return size(self._found["Size"])


def _list(context: Context, options: Options, _arguments: list[str]) -> int:
    rows = [CacheMount(one) for one in context.client.call("GET", "/build/mounts")]
    if options["quiet"]:
        for row in rows:
            out(row.ID())
        return 0
    template = options["format"]
    default = "table {{.ID}}\t{{.Size}}\t{{.LastUsed}}\t{{.InUse}}"
    render(rows, CacheMount, default if template in ("", "table") else template)
    return 0


def _export(context: Context, options: Options, arguments: list[str]) -> int:
    path = options["output"]
    not_to_a_terminal(path)
    if path and os.path.isdir(path):
        raise Failure("invalid output path: cannot write to a directory")
    deliver(context.client.open("GET", "/build/mounts/export", {"id": arguments[0]}), path)
    return 0


def _import(context: Context, _options: Options, arguments: list[str]) -> int:
    path = f"/build/mounts/import?id={quote(arguments[0])}"
    hand_in(context.client, path, arguments[1] if len(arguments) > 1 else "-")
    out(arguments[0])
    return 0


COMMANDS: tuple[Command, ...] = (
    Command(
        "builder mounts",
        "[OPTIONS]",
        "List what RUN --mount=type=cache keeps",
        _list,
        flags=(
            ("", "format", "string", FORMAT_HELP),
            ("q", "quiet", "bool", "Print only the ids"),
        ),
        most=0,
    ),
    Command(
        "builder export-mount",
        "[OPTIONS] ID",
        "Export what is in a cache mount as a tar archive",
        _export,
        flags=(("o", "output", "string", "Write to this file, not to STDOUT"),),
        least=1,
        most=1,
    ),
    Command(
        "builder import-mount",
        "ID [FILE|-]",
        "Create a cache mount from a tar archive, compressed or not",
        _import,
        least=1,
        most=2,
    ),
)
