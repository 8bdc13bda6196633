"""``prune`` of every kind: say what will go, ask, remove, say what was freed."""

from __future__ import annotations

import sys

from sampan.cli.command import Command, Options
from sampan.cli.context import Context, out, write
from sampan.cli.human import size
from sampan.cli.listing import encoded, filters, natural
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_WARNINGS = {
    "container": "all stopped containers",
    "network": "all custom networks not used by at least one container",
    "volume": "anonymous local volumes not used by at least one container",
    "image": "all dangling images",
}


def confirmed(question: str) -> bool:
    """Ask on stdout, read a line from stdin; anything but yes is no."""
    write(1, f"{question} [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _filters(options: Options) -> dict[str, list[str]]:
    return filters(options) if "filter" in options.given else {}


def _prune(context: Context, kind: str, chosen: dict[str, list[str]]) -> tuple[list[str], int]:
    """Remove; the lines to print and the bytes freed."""
    found = context.client.call("POST", f"/{kind}s/prune", {"filters": encoded(chosen)}) or {}
    return _removed(kind, found), found.get("SpaceReclaimed") or 0


def _removed(kind: str, found: dict[str, Any]) -> list[str]:
    if kind == "image":
        return [
            f"untagged: {item['Untagged']}" if item.get("Untagged") else f"deleted: {item['Deleted']}"
            for item in found.get("ImagesDeleted") or ()
        ]
    return list(found.get(f"{kind.capitalize()}sDeleted") or ())


def _act(kind: str) -> Any:
    def act(context: Context, options: Options, _arguments: list[str]) -> int:
        what = _WARNINGS[kind]
        chosen = _filters(options)
        if kind == "image":
            chosen["dangling"] = ["0" if options["all"] else "1"]
            if options["all"]:
                what = "all images without at least one container associated to them"
        elif kind == "volume" and options["all"]:
            chosen["all"] = ["1"]
            what = "all local volumes not used by at least one container"
        if not options["force"]:
            question = f"WARNING! This will remove {what}.\nAre you sure you want to continue?"
            if not confirmed(question):
                return 0
        lines, freed = _prune(context, kind, chosen)
        if lines:
            out(f"Deleted {kind.capitalize()}s:\n" + "\n".join(lines) + "\n")
        if kind != "network":
            out(f"Total reclaimed space: {size(freed)}")
        return 0

    return act


def _system(context: Context, options: Options, _arguments: list[str]) -> int:
    everything = options["all"]
    chosen = _filters(options)
    if options["volumes"] and "until" in chosen:
        raise Failure('ERROR: The "until" filter is not supported with "--volumes"')
    if not options["force"] and not confirmed(_system_question(options, chosen)):
        return 0
    freed = 0
    kinds = ["container", "network", *(["volume"] if options["volumes"] else []), "image"]
    for kind in kinds:
        own = dict(chosen)
        if kind == "image":
            own["dangling"] = ["0" if everything else "1"]
        lines, space = _prune(context, kind, own)
        freed += space
        if lines:
            out(f"Deleted {kind.capitalize()}s:\n" + "\n".join(lines) + "\n")
    out(f"Total reclaimed space: {size(freed)}")
    return 0


def _system_question(options: Options, chosen: dict[str, list[str]]) -> str:
    lines = ["all stopped containers", "all networks not used by at least one container"]
    if options["volumes"]:
        lines.append("all anonymous volumes not used by at least one container")
    if options["all"]:
        lines += ["all images without at least one container associated to them", "all build cache"]
    else:
        lines += ["all dangling images", "unused build cache"]
    text = "WARNING! This will remove:\n" + "".join(f"  - {line}\n" for line in lines)
    shown = [f"{key}={value}" for key in ("label", "label!", "until") for value in chosen.get(key, ())]
    if shown:
        text += "\n  Items to be pruned will be filtered with:\n"
        text += "".join(f"  - {line}\n" for line in sorted(shown, key=natural))
    return text + "\nAre you sure you want to continue?"


_FILTER = ("", "filter", "filter", 'Remove only what meets the conditions (e.g. "until=TIME", "label=KEY")')
_FORCE = ("f", "force", "bool", "Do not ask")


def _command(kind: str, summary: str, *flags: tuple[str, ...]) -> Command:
    return Command(f"{kind} prune", "[OPTIONS]", summary, _act(kind), flags=(*flags, _FILTER, _FORCE), most=0)


COMMANDS: tuple[Command, ...] = (
    _command("container", "Remove all stopped containers"),
    _command(
        "image", "Remove unused images", ("a", "all", "bool", "Remove every image that no container uses")
    ),
    _command("network", "Remove all unused networks"),
    _command("volume", "Remove unused local volumes", ("a", "all", "bool", "Remove named volumes too")),
    Command(
        "system prune",
        "[OPTIONS]",
        "Remove unused data",
        _system,
        flags=(
            ("a", "all", "bool", "Remove every image that no container uses"),
            _FILTER,
            _FORCE,
            ("", "volumes", "bool", "Remove anonymous volumes too"),
        ),
        most=0,
    ),
)
