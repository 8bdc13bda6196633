"""``system df``: what the engine's objects take on disk."""

from __future__ import annotations

from sampan.cli.command import FORMAT_HELP, Command, Exit, Options
from sampan.cli.containerrows import Container
from sampan.cli.context import Context, out, write
from sampan.cli.human import ago, epoch, printed, size
from sampan.cli.listing import Fields, escaped, render
from sampan.cli.volumes import Volume

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar


class Kind(Fields):
    """A row of ``system df``: one kind of object."""

    kind = "*formatter.diskUsageImagesContext"
    columns: ClassVar[dict[str, str]] = {
        "Active": "ACTIVE",
        "Reclaimable": "RECLAIMABLE",
        "Size": "SIZE",
        "TotalCount": "TOTAL",
        "Type": "TYPE",
    }
    __slots__ = ("_active", "_count", "_free", "_name", "_share", "_size")

    def __init__(
        self, name: str, count: int, active: int, total: int, free: int, *, share: bool = True
    ) -> None:
        self._name, self._count, self._active, self._size, self._free = name, count, active, total, free
        self._share = share

    def Type(self) -> str:
        return self._name

    def TotalCount(self) -> str:
        return str(self._count)

    def Active(self) -> str:
        return str(self._active)

    def Size(self) -> str:
        return size(self._size)

    def Reclaimable(self) -> str:
        share = f" ({self._free * 100 // self._size}%)" if self._share and self._size > 0 else ""
        return size(self._free) + share


class CacheRecord(Fields):
    """A row of the build cache's table."""

    kind = "*formatter.buildCacheContext"
    columns: ClassVar[dict[str, str]] = {
        "ID": "CACHE ID",
        "Parent": "PARENT",
        "CacheType": "CACHE TYPE",
        "Description": "DESCRIPTION",
        "Size": "SIZE",
        "CreatedAt": "CREATED",
        "CreatedSince": "CREATED",
        "LastUsedAt": "LAST USED",
        "LastUsedSince": "LAST USED",
        "UsageCount": "USAGE",
        "InUse": "IN USE",
        "Shared": "SHARED",
    }
    __slots__ = ("_found", "_truncate")

    def __init__(self, found: dict[str, Any], *, truncate: bool) -> None:
        self._found = found
        self._truncate = truncate

    def ID(self) -> str:
        shown: str = self._found["ID"][:12] if self._truncate else self._found["ID"]
        return shown + "*" * bool(self._found.get("InUse"))

    def Parent(self) -> str:
        parent: str = (self._found.get("Parents") or [self._found.get("Parent") or ""])[0]
        return parent[:12] if self._truncate else parent

    def CacheType(self) -> str:
        return str(self._found.get("Type", ""))

    def Description(self) -> str:
        return str(self._found.get("Description", ""))

    def Size(self) -> str:
        return size(self._found.get("Size", 0), 3)

    def CreatedAt(self) -> str:
        return printed(self._found.get("CreatedAt") or "")

    def CreatedSince(self) -> str:
        return _since(self._found.get("CreatedAt"))

    def LastUsedAt(self) -> str:
        return printed(self._found.get("LastUsedAt") or "")

    def LastUsedSince(self) -> str:
        return _since(self._found.get("LastUsedAt"))

    def UsageCount(self) -> str:
        return str(self._found.get("UsageCount", 0))

    def InUse(self) -> str:
        return str(bool(self._found.get("InUse"))).lower()

    def Shared(self) -> str:
        return str(bool(self._found.get("Shared"))).lower()


def _since(moment: str | None) -> str:
    return ago(epoch(moment)) if moment else ""


def kinds(found: dict[str, Any]) -> list[Kind]:
    """The four rows for the API's DiskUsage."""
    images = found.get("Images") or []
    layers = found.get("LayersSize") or 0
    used = sum(
        image["Size"] - max(image.get("SharedSize", 0), 0)
        for image in images
        if image.get("Containers", 0) > 0
    )
    rows = [
        Kind(
            "Images",
            len(images),
            sum(image.get("Containers", 0) > 0 for image in images),
            layers,
            layers - used,
        )
    ]
    containers = found.get("Containers") or []
    active = [one for one in containers if one.get("State") in ("running", "paused", "restarting")]
    total = sum(one.get("SizeRw") or 0 for one in containers)
    held = sum(one.get("SizeRw") or 0 for one in active)
    rows.append(Kind("Containers", len(containers), len(active), total, total - held))
    volumes = [volume.get("UsageData") or {} for volume in found.get("Volumes") or ()]
    total = sum(max(volume.get("Size", 0), 0) for volume in volumes)
    free = sum(max(volume.get("Size", 0), 0) for volume in volumes if volume.get("RefCount", 0) == 0)
    rows.append(
        Kind(
            "Local Volumes",
            len(volumes),
            sum(volume.get("RefCount", 0) > 0 for volume in volumes),
            total,
            free,
        )
    )
    cache = found.get("BuildCache") or []
    total = sum(item.get("Size", 0) for item in cache if not item.get("Shared"))
    busy = sum(bool(item.get("InUse")) for item in cache)
    free = sum(item.get("Size", 0) for item in cache if not item.get("InUse") and not item.get("Shared"))
    rows.append(Kind("Build Cache", len(cache), busy, total, free, share=False))  # Docker shows none
    return rows


_IMAGES = (
    "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t"
    "{{.UniqueSize}}\t{{.Containers}}"
)
_CACHE = (
    "table {{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t"
    "{{.UsageCount}}\t{{.Shared}}"
)
_CONTAINERS = (
    "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t"
    "{{.Status}}\t{{.Names}}"
)


def _rows(found: dict[str, Any], *, truncate: bool) -> dict[str, Any]:
    """The rows of the tables of ``-v``, by kind."""
    from sampan.cli.images import rows_of

    containers = [{**one, "SizeRootFs": 0} for one in found.get("Containers") or ()]
    return {
        "Images": list(rows_of(found.get("Images") or [], truncate=truncate, digests=False)),
        "Containers": [Container(one, truncate=truncate) for one in containers],
        "Volumes": [Volume(volume) for volume in found.get("Volumes") or ()],
        "BuildCache": [CacheRecord(one, truncate=truncate) for one in _by_use(found.get("BuildCache") or [])],
    }


def _by_use(cache: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that were not used for longest first, as Docker's client has them."""
    return sorted(cache, key=lambda one: (one.get("LastUsedAt") or "", one.get("CreatedAt", "")))


def _verbose(found: dict[str, Any]) -> None:
    from sampan.cli.images import Image

    rows = _rows(found, truncate=True)
    out("Images space usage:\n")
    render(rows["Images"], Image, _IMAGES)
    out("\nContainers space usage:\n")
    render(rows["Containers"], Container, _CONTAINERS)
    out("\nLocal Volumes space usage:\n")
    render(rows["Volumes"], Volume, "table {{.Name}}\t{{.Links}}\t{{.Size}}")
    cache = found.get("BuildCache") or []
    total = sum(item.get("Size", 0) for item in cache if not item.get("Shared"))
    out(f"\nBuild cache usage: {size(total)}\n")
    render(rows["BuildCache"], CacheRecord, _CACHE)


def _whole(found: dict[str, Any], template: str) -> str:
    """All tables as one document, in JSON or by a template."""
    from sampan.wire import document
    from sampan.wire.template import TemplateError, execute, parse
    from sampan.wire.template.values import Struct

    kinds_of_rows = _rows(found, truncate=False).items()
    value = Struct(
        (kind, [Struct((name, row.field(name)) for name in sorted(row.columns)) for row in rows])
        for kind, rows in kinds_of_rows
    )
    for image in value["Images"]:
        image["Digest"] = ""  # looked for by nobody here, and so empty in Docker
    if template == "json":
        return escaped(document.encode(value))
    try:
        nodes = parse(template)
    except TemplateError as error:
        raise Exit(1, f"template parsing error: {error}") from None
    try:
        return execute(nodes, value, template)
    except TemplateError as error:
        head, mark, name = str(error).partition('map has no entry for key "')
        what = (
            f"can't evaluate field {name.rstrip(chr(34))} in type *formatter.diskUsageContext" if mark else ""
        )
        raise Exit(1, head + what) from None


def _df(context: Context, options: Options, _arguments: list[str]) -> int:
    found = context.client.call("GET", "/system/df")
    template = options["format"]
    if options["verbose"]:
        if template in ("", "table"):
            _verbose(found)
        else:
            write(1, _whole(found, template.removeprefix("table ")))
        return 0
    default = "table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}"
    render(kinds(found), Kind, default if template in ("", "table") else template)
    return 0


COMMANDS: tuple[Command, ...] = (
    Command(
        "system df",
        "[OPTIONS]",
        "Show disk usage",
        _df,
        flags=(
            ("", "format", "string", FORMAT_HELP),
            ("v", "verbose", "bool", "Show every object"),
        ),
        most=0,
    ),
)
