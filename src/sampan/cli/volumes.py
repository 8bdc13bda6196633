"""``volume`` create, ls, rm, update."""

from __future__ import annotations

from sampan.cli.command import FORMAT_HELP, Command, Options
from sampan.cli.context import Context, each, out
from sampan.cli.listing import Labelled, filtered, filters, identities, natural, render
from sampan.client.api import segment
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

_UNKNOWN = "N/A"


class Volume(Labelled):
    """A row of ``volume ls``."""

    kind = "*formatter.volumeContext"
    columns: ClassVar[dict[str, str]] = {
        "Availability": "AVAILABILITY",
        "Driver": "DRIVER",
        "Group": "GROUP",
        "Labels": "LABELS",
        "Links": "LINKS",
        "Mountpoint": "MOUNTPOINT",
        "Name": "VOLUME NAME",
        "Scope": "SCOPE",
        "Size": "SIZE",
        "Status": "STATUS",
    }
    __slots__ = ("_volume",)

    def __init__(self, volume: dict[str, Any]) -> None:
        super().__init__(volume)
        self._volume = volume

    def Name(self) -> str:
        return str(self._volume["Name"])

    def Driver(self) -> str:
        return str(self._volume["Driver"])

    def Scope(self) -> str:
        return str(self._volume["Scope"])

    def Mountpoint(self) -> str:
        return str(self._volume["Mountpoint"])

    def Links(self) -> str:
        usage = self._volume.get("UsageData")
        return str(usage["RefCount"]) if usage else _UNKNOWN

    def Size(self) -> str:
        from sampan.cli.human import size

        usage = self._volume.get("UsageData")
        return size(usage["Size"]) if usage else _UNKNOWN

    def Availability(self) -> str:
        return _UNKNOWN

    Group = Status = Availability


def _ls(context: Context, options: Options, _arguments: list[str]) -> int:
    query = filtered(filters(options))
    if options["cluster"]:
        raise Failure("cluster volumes are not offered")
    answer = context.client.call("GET", "/volumes", query)
    volumes = sorted(answer.get("Volumes") or (), key=lambda volume: natural(volume["Name"]))
    rows = [Volume(volume) for volume in volumes]
    template = options["format"]
    if options["quiet"]:
        return identities((row.Name() for row in rows), template)
    render(rows, Volume, "table {{.Driver}}\t{{.Name}}" if template in ("", "table") else template)
    return 0


_CLUSTER = (
    ("", "availability", "string", 'Availability of a cluster volume ("active", "pause", "drain")', "active"),
    ("", "group", "string", "Group of a cluster volume"),
    ("", "limit-bytes", "bytes", "Least size of a cluster volume, in bytes"),
    ("", "required-bytes", "bytes", "Greatest size of a cluster volume, in bytes"),
    ("", "scope", "string", 'Access scope of a cluster volume ("single", "multi")', "single"),
    ("", "secret", "map", "Secrets of a cluster volume"),
    ("", "sharing", "string", 'Sharing of a cluster volume ("none", "readonly", "onewriter", "all")', "none"),
    ("", "topology-preferred", "list", "A topology that a cluster volume had better be in"),
    ("", "topology-required", "list", "A topology that a cluster volume must be accessible from"),
    ("", "type", "string", 'Access type of a cluster volume ("mount", "block")', "block"),
)
"""Flags of Swarm's cluster volumes."""


def _create(context: Context, options: Options, arguments: list[str]) -> int:
    name = options["name"]
    if arguments:
        if "name" in options.given:
            raise Failure(
                "conflicting options: "
                "cannot specify a volume-name through both --name and as a positional arg"
            )
        name = arguments[0]
    if any(flag[1] in options.given for flag in _CLUSTER):
        raise Failure("cluster volumes are not offered: they need Swarm mode")
    from sampan.cli.labels import labels

    body = {
        "Name": name,
        "Driver": options["driver"],
        "DriverOpts": dict(options["opt"]),
        "Labels": labels([], options["label"]),
    }
    out(context.client.call("POST", "/volumes/create", None, body)["Name"])
    return 0


def _rm(context: Context, options: Options, arguments: list[str]) -> int:
    query = {"force": "1"} if options["force"] else None

    def remove(name: str) -> None:
        context.client.raw("DELETE", f"/volumes/{segment(name)}", query)

    return each(arguments, remove)


def _update(context: Context, _options: Options, arguments: list[str]) -> int:
    context.client.call("GET", f"/volumes/{segment(arguments[0])}")
    raise Failure("Can only update cluster volumes")


COMMANDS: tuple[Command, ...] = (
    Command(
        "volume ls",
        "[OPTIONS]",
        "List volumes",
        _ls,
        flags=(
            ("", "cluster", "bool", "Show cluster volumes"),
            ("f", "filter", "filter", "Show only what meets the conditions"),
            ("", "format", "string", FORMAT_HELP),
            ("q", "quiet", "bool", "Show only names"),
        ),
        most=0,
        aliases=("volume ls", "volume list"),
    ),
    Command(
        "volume create",
        "[OPTIONS] [VOLUME]",
        "Create a volume",
        _create,
        flags=(
            ("d", "driver", "string", "Driver of the volume", "local"),
            ("", "label", "label", "Set a label"),
            ("", "name", "string", ""),
            ("o", "opt", "map", "Set an option of the driver"),
            *_CLUSTER,
        ),
        most=1,
    ),
    Command(
        "volume rm",
        "[OPTIONS] VOLUME [VOLUME...]",
        "Remove one or more volumes",
        _rm,
        flags=(("f", "force", "bool", "Succeed if a volume does not exist"),),
        least=1,
        aliases=("volume rm", "volume remove"),
    ),
    Command(
        "volume update",
        "[OPTIONS] [VOLUME]",
        "Update a volume (cluster volumes only)",
        _update,
        flags=_CLUSTER[:1],
        least=1,
        most=1,
    ),
)
