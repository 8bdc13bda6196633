"""``start``: start containers, or be the terminal of one."""

from __future__ import annotations

from sampan.cli.command import Command, Exit, Options
from sampan.cli.context import Context, each
from sampan.client.api import segment
from sampan.errors import Failure


def _start(context: Context, options: Options, arguments: list[str]) -> int:
    if options["attach"] or options["interactive"]:
        if len(arguments) > 1:
            raise Exit(1, "you cannot start and attach multiple containers at once")
        return _attached(context, options, arguments[0])
    query = {}
    for flag in ("checkpoint", "checkpoint-dir"):
        if options[flag]:
            query[flag] = options[flag]
    failed: list[str] = []

    def start(name: str) -> None:
        try:
            context.client.raw("POST", f"/containers/{segment(name)}/start", query)
        except Failure:
            failed.append(name)
            raise

    code = each(arguments, start)
    if failed:
        raise Exit(1, f"Error: failed to start containers: {', '.join(failed)}")
    return code


def _attached(context: Context, options: Options, name: str) -> int:
    from sampan.cli.attached import Attachment

    details = context.client.call("GET", f"/containers/{segment(name)}/json")
    config = details["Config"]
    tty = bool(config.get("Tty"))
    stdin = options["interactive"] and bool(config.get("OpenStdin"))
    attachment = Attachment(
        context,
        details["Id"],
        (stdin, True, True),
        tty=tty,
        keys=options["detach-keys"],
        proxy=True,
        condition="removed" if details["HostConfig"].get("AutoRemove") else "next-exit",
    )
    return attachment.run()


COMMANDS: tuple[Command, ...] = (
    Command(
        "start",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Start one or more stopped containers",
        _start,
        flags=(
            ("a", "attach", "bool", "Attach STDOUT and STDERR and pass signals on"),
            ("", "checkpoint", "string", "Restore from this checkpoint"),
            ("", "checkpoint-dir", "string", "Folder of the checkpoints"),
            ("", "detach-keys", "string", "Key sequence that detaches from the container"),
            ("i", "interactive", "bool", "Attach STDIN"),
        ),
        least=1,
        aliases=("container start", "start"),
    ),
)
