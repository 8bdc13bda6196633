"""What the user's configuration file and variables say in place of a flag that was not given."""

from __future__ import annotations

import os

from sampan.cli.context import PROGRAM
from sampan.cli.index import INSTEAD
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.command import Command, Options

FORMATS = {
    "images": "imagesFormat",
    "network ls": "networksFormat",
    "ps": "psFormat",
    "stats": "statsFormat",
    "volume ls": "volumesFormat",
}
"""Commands whose ``--format`` the configuration file may give; ``--quiet`` sets it aside silently."""

PLATFORMS = frozenset(("build", "create", "import", "pull", "run"))
"""Commands whose ``--platform`` DOCKER_DEFAULT_PLATFORM gives."""


def apply(command: Command, options: Options, settings: dict[str, Any]) -> None:
    """Put the user's preferences into ``options`` where the flag has no value.

    Raises Failure where signatures are asked for, which nothing here could check.
    """
    if options.get("disable-content-trust") is False:
        raise Failure(f"{PROGRAM} {command.words}: {INSTEAD['trust']}")
    key = FORMATS.get(command.words)
    if key and not options["format"] and not options.get("quiet"):
        options.prefer("format", settings.get(key))
    if options.get("detach-keys") == "":
        options.prefer("detach-keys", settings.get("detachKeys"))
    if command.words in PLATFORMS and "platform" not in options.given:
        options.prefer("platform", os.environ.get("DOCKER_DEFAULT_PLATFORM"))
