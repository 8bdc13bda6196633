"""``attach``: be the terminal of a container that runs."""

from __future__ import annotations

import os

from sampan.cli.command import Command, Exit, Options
from sampan.cli.context import Context
from sampan.client.api import segment

_REFUSED = (
    ("Paused", "You cannot attach to a paused container, unpause it first"),
    ("Restarting", "You cannot attach to a restarting container, wait until it is running"),
)


def _attach(context: Context, options: Options, arguments: list[str]) -> int:
    from sampan.cli.attached import Attachment

    details = context.client.call("GET", f"/containers/{segment(arguments[0])}/json")
    state, config = details["State"], details["Config"]
    if not state.get("Running"):
        raise Exit(1, "You cannot attach to a stopped container, start it first")
    for key, message in _REFUSED:
        if state.get(key):
            raise Exit(1, message)
    tty = bool(config.get("Tty"))
    stdin = bool(config.get("OpenStdin")) and not options["no-stdin"]
    if stdin and tty and not os.isatty(0):
        raise Exit(1, "the input device is not a TTY")
    attachment = Attachment(
        context,
        details["Id"],
        (stdin, True, True),
        tty=tty,
        keys=options["detach-keys"],
        proxy=options["sig-proxy"],
        condition="",
        detached="read escape sequence",
    )
    return attachment.run(start=False)


COMMANDS: tuple[Command, ...] = (
    Command(
        "attach",
        "[OPTIONS] CONTAINER",
        "Attach local standard input, output, and error streams to a running container",
        _attach,
        flags=(
            ("", "detach-keys", "string", "Key sequence that detaches from the container"),
            ("", "no-stdin", "bool", "Do not attach STDIN"),
            ("", "sig-proxy", "bool", "Pass signals on to the container's process", "true"),
        ),
        least=1,
        most=1,
        aliases=("container attach", "attach"),
    ),
)
