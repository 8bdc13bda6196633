"""``commit``: an image from what a container has changed."""

from __future__ import annotations

from sampan.cli.command import Command, Options
from sampan.cli.context import Context, out
from sampan.client.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _commit(context: Context, options: Options, arguments: list[str]) -> int:
    query = {"container": arguments[0]}
    if len(arguments) > 1 and arguments[1]:
        from sampan.cli.references import check, split

        check(arguments[1])
        name, tag, _ = split(arguments[1])
        query |= {"repo": name, "tag": tag or "latest"}
    if options["author"]:
        query["author"] = options["author"]
    if options["message"]:
        query["comment"] = options["message"]
    if not options["pause"]:
        query["pause"] = "0"
    path = "/commit"
    if options["change"]:
        path += "?" + "&".join(f"changes={quote(change)}" for change in options["change"])
    made: dict[str, Any] = context.client.call("POST", path, query)
    out(made["Id"])
    return 0


COMMANDS: tuple[Command, ...] = (
    Command(
        "commit",
        "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
        "Create a new image from a container's changes",
        _commit,
        flags=(
            ("a", "author", "string", "Who made it, as in: Jane Doe <jane@example.org>"),
            ("c", "change", "list", "Apply a Dockerfile instruction to the image"),
            ("m", "message", "string", "What was changed"),
            ("p", "pause", "bool", "Pause the container meanwhile", "true"),
        ),
        least=1,
        most=2,
        aliases=("container commit", "commit"),
    ),
)
