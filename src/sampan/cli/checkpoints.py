"""``checkpoint``: as with Docker, for an engine that says that it is experimental; ours has no CRIU."""

from __future__ import annotations

from sampan.cli.command import Command, Options
from sampan.cli.context import PROGRAM, Context, out
from sampan.client.api import segment
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

    from sampan.client.api import Client


def _client(context: Context) -> Client:
    if context.client.ping().get("docker-experimental") != "true":
        raise Failure(
            f"{PROGRAM} {context.spelled} is only supported on a Docker daemon with experimental "
            "features enabled"
        )
    return context.client


def _query(options: Options) -> dict[str, str]:
    return {"dir": options["checkpoint-dir"]} if options["checkpoint-dir"] else {}


def _create(context: Context, options: Options, arguments: list[str]) -> int:
    container, name = arguments
    body = {
        "CheckpointID": name,
        "CheckpointDir": options["checkpoint-dir"],
        "Exit": not options["leave-running"],
    }
    _client(context).raw("POST", f"/containers/{segment(container)}/checkpoints", None, body)
    out(name)
    return 0


def _ls(context: Context, options: Options, arguments: list[str]) -> int:
    from sampan.cli.listing import Fields, render

    class Checkpoint(Fields):
        columns: ClassVar[dict[str, str]] = {"Name": "CHECKPOINT NAME"}

        def __init__(self, found: dict[str, str]) -> None:
            self._name = found["Name"]

        def Name(self) -> str:
            return self._name

    path = f"/containers/{segment(arguments[0])}/checkpoints"
    found = _client(context).call("GET", path, _query(options)) or []
    render([Checkpoint(one) for one in found], Checkpoint, "table {{.Name}}")
    return 0


def _rm(context: Context, options: Options, arguments: list[str]) -> int:
    container, name = arguments
    path = f"/containers/{segment(container)}/checkpoints/{segment(name)}"
    _client(context).raw("DELETE", path, _query(options))
    return 0


_FOLDER = ("", "checkpoint-dir", "string", "Use a custom checkpoint storage directory")

COMMANDS: tuple[Command, ...] = (
    Command(
        "checkpoint create",
        "[OPTIONS] CONTAINER CHECKPOINT",
        "Create a checkpoint from a running container",
        _create,
        flags=(_FOLDER, ("", "leave-running", "bool", "Leave the container running after checkpoint")),
        least=2,
        most=2,
    ),
    Command(
        "checkpoint ls",
        "[OPTIONS] CONTAINER",
        "List checkpoints for a container",
        _ls,
        flags=(_FOLDER,),
        least=1,
        most=1,
        aliases=("checkpoint ls", "checkpoint list"),
    ),
    Command(
        "checkpoint rm",
        "[OPTIONS] CONTAINER CHECKPOINT",
        "Remove a checkpoint",
        _rm,
        flags=(_FOLDER,),
        least=2,
        most=2,
        aliases=("checkpoint rm", "checkpoint remove"),
    ),
)
