"""The rows of ``ps``, and how they are printed: apart from the command, which loads this while it waits."""

from __future__ import annotations

import sampan.cli.table  # noqa: F401 - loaded with the rows, before they are there
from sampan.cli.command import Exit
from sampan.cli.context import write
from sampan.cli.listing import Labelled, bound, ellipsis, identities, render

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

    from sampan.cli.command import Options

DEFAULT = "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"


class Container(Labelled):
    """A row of ``ps``, from the API's ContainerSummary."""

    kind = "*formatter.ContainerContext"
    columns: ClassVar[dict[str, str]] = {
        "Command": "COMMAND",
        "CreatedAt": "CREATED AT",
        "ID": "CONTAINER ID",
        "Image": "IMAGE",
        "Labels": "LABELS",
        "LocalVolumes": "LOCAL VOLUMES",
        "Mounts": "MOUNTS",
        "Names": "NAMES",
        "Networks": "NETWORKS",
        "Platform": "PLATFORM",
        "Ports": "PORTS",
        "RunningFor": "CREATED",
        "Size": "SIZE",
        "State": "STATE",
        "Status": "STATUS",
    }
    __slots__ = ("_all", "_summary")

    def __init__(self, summary: dict[str, Any], *, truncate: bool) -> None:
        super().__init__(summary)
        self._summary = summary
        self._all = not truncate

    def ID(self) -> str:
        identity: str = self._summary["Id"]
        return identity if self._all else identity[:12]

    def Names(self) -> str:
        names = [name.removeprefix("/") for name in self._summary.get("Names") or ()]
        if not self._all:
            names = [name for name in names if "/" not in name]
        return ",".join(names)

    def Image(self) -> str:
        image: str = self._summary.get("Image") or ""
        if not image:
            return "<no image>"
        if self._all:
            return image
        if image.startswith("sha256:") or image == self._summary.get("ImageID"):
            return image.removeprefix("sha256:")[:12]
        return image.partition("@")[0]

    def Command(self) -> str:
        from sampan.wire.quoting import quoted

        command = self._summary.get("Command") or ""
        return quoted(command if self._all else ellipsis(command, 20))

    def CreatedAt(self) -> str:
        from sampan.cli.human import local_date

        return local_date(self._summary["Created"])

    def RunningFor(self) -> str:
        from sampan.cli.human import ago

        return ago(self._summary["Created"])

    def Ports(self) -> str:
        ports = self._summary.get("Ports")
        if not ports:
            return ""
        from sampan.cli.portlist import ports_text

        return ports_text(ports)

    def State(self) -> str:
        return self._summary.get("State") or ""

    def Status(self) -> str:
        return self._summary.get("Status") or ""

    def Size(self) -> str:
        from sampan.cli.human import size

        own, total = self._summary.get("SizeRw") or 0, self._summary.get("SizeRootFs") or 0
        text = size(own, 3)
        return f"{text} (virtual {size(total, 3)})" if total > 0 else text

    def Mounts(self) -> str:
        names = [
            mount.get("Name") or mount.get("Source") or "" for mount in self._summary.get("Mounts") or ()
        ]
        return ",".join(name if self._all else ellipsis(name, 15) for name in names)

    def LocalVolumes(self) -> str:
        mounts = self._summary.get("Mounts") or ()
        return str(sum(mount.get("Driver") == "local" for mount in mounts))

    def Platform(self) -> Any:
        return (self._summary.get("ImageManifestDescriptor") or {}).get("platform")

    def Networks(self) -> str:
        settings = self._summary.get("NetworkSettings") or {}
        return ",".join(settings.get("Networks") or {})


def wants_size(template: str) -> bool:
    """Whether a template shows the size, on its own or with all fields. Exit for one that cannot be.

    Docker tries the whole text, the word "table" included, on a container without values, and says so.
    """
    from sampan.wire.template import TemplateError, execute, parse

    asked: list[str] = []

    class Asked(Container):
        __slots__ = ()

        def Size(self) -> str:
            asked.append("Size")
            return ""

    try:
        nodes = parse(template)
    except TemplateError as error:
        raise Exit(1, f"failed to parse template: {error}") from None
    try:
        execute(nodes, bound(Asked({"Id": "", "Created": 0}, truncate=True)), template)
    except TemplateError as error:
        raise Exit(1, f"failed to execute template: {error}") from None
    return bool(asked)


_RAW = ("ID", "Image", "Command", "CreatedAt", "State", "Status", "Names", "Labels", "Ports")
_RAW_NAMES = {"ID": "container_id", "CreatedAt": "created_at"}


def _raw(row: Container, *, size: bool) -> str:
    """A field a line, as Docker's old format for scripts."""
    names = (*_RAW, "Size") if size else _RAW
    lines = ((_RAW_NAMES.get(name, name.lower()), row.field(name)) for name in names)
    return "".join(f"{name}: {value}".rstrip() + "\n" for name, value in lines)


def show(summaries: list[dict[str, Any]], options: Options) -> int:
    """Print the containers as the command's flags have it; returns the exit code."""
    rows = [Container(summary, truncate=not options["no-trunc"]) for summary in summaries]
    template = options["format"]
    if options["quiet"]:
        return identities((row.ID() for row in rows), template)
    if template == "raw":
        for row in rows:
            write(1, _raw(row, size=options["size"]) + "\n")
        return 0
    if template in ("", "table"):
        template = DEFAULT + ("\t{{.Size}}" if options["size"] else "")
    render(rows, Container, template)
    return 0
