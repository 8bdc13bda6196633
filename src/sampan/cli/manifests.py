"""``manifest``: the commands and their flags. They come with the registry client, which they say."""

from __future__ import annotations

from sampan.cli.command import Command, Options
from sampan.cli.context import PROGRAM, Context
from sampan.errors import Failure


def _not_yet(context: Context, _options: Options, _arguments: list[str]) -> int:
    raise Failure(f"{PROGRAM} {context.spelled}: manifest lists are not offered yet")


_INSECURE = ("", "insecure", "bool", "Allow communication with an insecure registry")

COMMANDS: tuple[Command, ...] = (
    Command(
        "manifest annotate",
        "[OPTIONS] MANIFEST_LIST MANIFEST",
        "Add information to a manifest of a local list",
        _not_yet,
        flags=(
            ("", "arch", "string", "Set architecture"),
            ("", "os", "string", "Set operating system"),
            ("", "os-features", "strings", "Set operating system feature"),
            ("", "os-version", "string", "Set operating system version"),
            ("", "variant", "string", "Set architecture variant"),
        ),
        least=2,
        most=2,
    ),
    Command(
        "manifest create",
        "MANIFEST_LIST MANIFEST [MANIFEST...]",
        "Create a local manifest list",
        _not_yet,
        flags=(("a", "amend", "bool", "Amend an existing manifest list"), _INSECURE),
        least=2,
    ),
    Command(
        "manifest inspect",
        "[OPTIONS] [MANIFEST_LIST] MANIFEST",
        "Display an image manifest, or manifest list",
        _not_yet,
        flags=(_INSECURE, ("v", "verbose", "bool", "Show layers and platform too")),
        least=1,
        most=2,
    ),
    Command(
        "manifest push",
        "[OPTIONS] MANIFEST_LIST",
        "Push a manifest list to a repository",
        _not_yet,
        flags=(
            ("", "insecure", "bool", "Allow push to an insecure registry"),
            ("p", "purge", "bool", "Remove the local manifest list after push"),
        ),
        least=1,
        most=1,
    ),
    Command(
        "manifest rm",
        "MANIFEST_LIST [MANIFEST_LIST...]",
        "Delete one or more local manifest lists",
        _not_yet,
        least=1,
    ),
)
