"""``system ports``: who can reach which port, and why; this engine's own command."""

from __future__ import annotations

from sampan.cli.command import FORMAT_HELP, Command, Options
from sampan.cli.context import Context
from sampan.cli.listing import Fields, render

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar


class Port(Fields):
    """A row: a port, and one way to it."""

    kind = "*ports.portContext"
    columns: ClassVar[dict[str, str]] = {
        "Container": "CONTAINER",
        "Host": "PUBLISHED AT",
        "ID": "CONTAINER ID",
        "Network": "NETWORK",
        "Port": "PORT",
        "ReachedBy": "REACHED BY",
        "Why": "WHY NO MORE",
    }
    __slots__ = ("_port",)

    def __init__(self, port: dict[str, Any]) -> None:
        self._port = port

    def Container(self) -> str:
        return str(self._port["Container"])

    def ID(self) -> str:
        return str(self._port["ContainerID"])[:12]

    def Network(self) -> str:
        return str(self._port["Network"])

    def Port(self) -> str:
        return str(self._port["Port"])

    def Host(self) -> str:
        return self._port["Host"] or "-"

    def ReachedBy(self) -> str:
        return ", ".join(self._port["ReachedBy"]) or "nobody"

    def Why(self) -> str:
        return str(self._port["Why"])


def _ports(context: Context, options: Options, _arguments: list[str]) -> int:
    rows = [Port(port) for port in context.client.call("GET", "/system/ports")]
    default = "table {{.Container}}\t{{.Port}}\t{{.Network}}\t{{.Host}}\t{{.ReachedBy}}\t{{.Why}}"
    template = options["format"]
    render(rows, Port, default if template in ("", "table") else template)
    return 0


COMMANDS: tuple[Command, ...] = (
    Command(
        "system ports",
        "[OPTIONS]",
        "Tell who can reach which port of the running containers, and why",
        _ports,
        flags=(("", "format", "string", FORMAT_HELP),),
        most=0,
    ),
)
