"""``logs``: what a container has written."""

from __future__ import annotations

from sampan.cli.command import Command, Exit, Options
from sampan.cli.context import Context, write
from sampan.cli.session import Output
from sampan.client.api import segment


def _logs(context: Context, options: Options, arguments: list[str]) -> int:
    query = {"stdout": "1", "stderr": "1", "tail": options["tail"]}
    for flag in ("since", "until"):
        if options[flag]:
            from sampan.cli.moments import timestamp

            try:
                query[flag] = timestamp(options[flag], flag)
            except ValueError as error:
                raise Exit(1, str(error)) from None
    for flag in ("timestamps", "follow", "details"):
        if options[flag]:
            query[flag] = "1"
    client = context.client
    details = client.call("GET", f"/containers/{segment(arguments[0])}/json")
    answer = client.open("GET", f"/containers/{segment(details['Id'])}/logs", query)
    if details["Config"].get("Tty"):
        for piece in answer.pieces():
            write(1, piece)
    else:
        output = Output(multiplexed=True)
        for piece in answer.pieces():
            output.feed(piece)
    return 0


COMMANDS: tuple[Command, ...] = (
    Command(
        "logs",
        "[OPTIONS] CONTAINER",
        "Fetch the logs of a container",
        _logs,
        flags=(
            ("", "details", "bool", "Show extra details of the entries"),
            ("f", "follow", "bool", "Go on as new output comes"),
            (
                "",
                "since",
                "string",
                "Show logs since a time (e.g. 2013-01-02T13:23:37Z) or a span ago (e.g. 42m)",
            ),
            ("n", "tail", "string", "Number of lines to show from the end", "all"),
            ("t", "timestamps", "bool", "Show the time of each line"),
            (
                "",
                "until",
                "string",
                "Show logs before a time (e.g. 2013-01-02T13:23:37Z) or a span ago (e.g. 42m)",
            ),
        ),
        least=1,
        most=1,
        aliases=("container logs", "logs"),
    ),
)
