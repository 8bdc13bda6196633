"""``exec``: run one more command in a container that runs."""

from __future__ import annotations

import os

from sampan.cli.command import Command, Exit, Options
from sampan.cli.context import Context
from sampan.client.api import segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _exec(context: Context, options: Options, arguments: list[str]) -> int:
    detach, tty, stdin = options["detach"], options["tty"], options["interactive"]
    config: dict[str, Any] = {
        "User": options["user"],
        "Privileged": options["privileged"],
        "Tty": tty,
        "AttachStdin": stdin and not detach,
        "AttachStderr": not detach,
        "AttachStdout": not detach,
        "DetachKeys": options["detach-keys"],
        "Env": None,
        "WorkingDir": options["workdir"],
        "Cmd": arguments[1:],
    }
    if options["env"] or options["env-file"]:
        from sampan.cli.labels import environment

        config["Env"] = environment(options["env-file"], options["env"])
    if tty and not detach:
        from sampan.cli.terminal import size

        rows, columns = size(1)
        if rows or columns:
            config["ConsoleSize"] = [rows, columns]
        if stdin and not os.isatty(0):
            raise Exit(1, "the input device is not a TTY")
    client = context.client
    if not detach:
        client.meanwhile = _load_session
    identity = client.call("POST", f"/containers/{segment(arguments[0])}/exec", None, config)["Id"]
    start = {"Detach": detach, "Tty": tty}
    if "ConsoleSize" in config:
        start["ConsoleSize"] = config["ConsoleSize"]
    if detach:
        client.raw("POST", f"/exec/{identity}/start", None, start)
        return 0
    return _interactive(context, options, identity, start)


def _load_session() -> None:
    """Load what is needed next while the engine looks at the command."""
    import sampan.cli.execsession  # noqa: F401 - for its presence


def _interactive(context: Context, options: Options, identity: str, start: dict[str, Any]) -> int:
    from sampan.cli.execsession import ExecSession

    session = ExecSession(
        context, identity, tty=options["tty"], stdin=options["interactive"], keys=options["detach-keys"]
    )
    return session.run(start)


COMMANDS: tuple[Command, ...] = (
    Command(
        "exec",
        "[OPTIONS] CONTAINER COMMAND [ARG...]",
        "Execute a command in a running container",
        _exec,
        flags=(
            ("d", "detach", "bool", "Run the command in the background"),
            ("", "detach-keys", "string", "Key sequence that detaches from the command"),
            ("e", "env", "env", "Set an environment variable"),
            ("", "env-file", "list", "Read environment variables from a file"),
            ("i", "interactive", "bool", "Keep STDIN open"),
            ("", "privileged", "bool", "Give the command the host's privileges"),
            ("t", "tty", "bool", "Give the command a terminal"),
            ("u", "user", "string", 'User name or UID (format: "<name|uid>[:<group|gid>]")'),
            ("w", "workdir", "string", "Working directory in the container"),
        ),
        least=2,
        aliases=("container exec", "exec"),
        interspersed=False,
    ),
)
