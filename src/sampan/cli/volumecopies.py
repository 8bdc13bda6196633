"""``volume`` clone, export, import, rename, snapshot: what Docker has not."""

from __future__ import annotations

import os

from sampan.cli.command import Command, Options
from sampan.cli.context import Context, out
from sampan.cli.delivery import deliver, hand_in, not_to_a_terminal
from sampan.client.api import segment
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

_MANNER = (
    ("", "pause", "bool", "Let running containers stand still while what they change is copied", "true"),
    ("", "pause-limit", "duration", "Longest time that they stand still", "10s"),
)


def _manner(options: Options) -> dict[str, str]:
    query = {} if options["pause"] else {"pause": "0"}
    if "pause-limit" in options.given:
        query["limit"] = f"{options['pause-limit'] / 1e9:.3f}"
    return query


def _path(name: str, verb: str) -> str:
    return f"/sampan-volumes/{segment(name)}/{verb}"


def _clone(context: Context, options: Options, arguments: list[str]) -> int:
    query = {"name": arguments[1], **_manner(options)}
    out(context.client.call("POST", _path(arguments[0], "clone"), query)["Name"])
    return 0


def _snapshot(context: Context, options: Options, arguments: list[str]) -> int:
    query = _manner(options)
    if len(arguments) > 1:
        query["name"] = arguments[1]
    out(context.client.call("POST", _path(arguments[0], "snapshot"), query)["Name"])
    return 0


def _rename(context: Context, _options: Options, arguments: list[str]) -> int:
    context.client.raw("POST", _path(arguments[0], "rename"), {"name": arguments[1]})
    return 0


def _export(context: Context, options: Options, arguments: list[str]) -> int:
    path = options["output"]
    not_to_a_terminal(path)
    folder = os.path.dirname(path)
    if folder and not os.path.isdir(folder):
        raise Failure(f"invalid output path: stat {folder}: no such file or directory")
    if path and os.path.isdir(path):
        raise Failure("invalid output path: cannot write to a directory")
    deliver(context.client.open("GET", _path(arguments[0], "export"), _manner(options)), path)
    return 0


def _import(context: Context, options: Options, arguments: list[str]) -> int:
    path = _path(arguments[0], "import")
    if options["label"]:
        from sampan.cli.labels import labels
        from sampan.client.http import quote

        given = labels([], options["label"])
        path += "?" + "&".join(f"label={quote(f'{key}={value}')}" for key, value in given.items())
    hand_in(context.client, path, arguments[1] if len(arguments) > 1 else "-")
    out(arguments[0])
    return 0


COMMANDS: tuple[Command, ...] = (
    Command(
        "volume clone",
        "[OPTIONS] VOLUME NEW_VOLUME",
        "Copy a volume to a new one, as it is at one moment",
        _clone,
        flags=_MANNER,
        least=2,
        most=2,
    ),
    Command(
        "volume snapshot",
        "[OPTIONS] VOLUME [SNAPSHOT]",
        "Keep a volume as it is now: a copy that containers mount read-only",
        _snapshot,
        flags=_MANNER,
        least=1,
        most=2,
    ),
    Command(
        "volume rename",
        "VOLUME NEW_VOLUME",
        "Rename a volume that no container uses",
        _rename,
        least=2,
        most=2,
    ),
    Command(
        "volume export",
        "[OPTIONS] VOLUME",
        "Export what is in a volume as a tar archive",
        _export,
        flags=(("o", "output", "string", "Write to this file, not to STDOUT"), *_MANNER),
        least=1,
        most=1,
    ),
    Command(
        "volume import",
        "[OPTIONS] NEW_VOLUME [FILE|-]",
        "Create a volume from a tar archive, compressed or not",
        _import,
        flags=(("", "label", "label", "Set a label"),),
        least=1,
        most=2,
    ),
)
