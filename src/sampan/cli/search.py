"""``search``: what Docker Hub finds for a term."""

from __future__ import annotations

from sampan.cli.command import FORMAT_HELP, Command, Options
from sampan.cli.context import Context
from sampan.cli.listing import Fields, ellipsis, filtered, filters, render

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar


class Found(Fields):
    """A row of ``search``."""

    kind = "*formatter.searchContext"
    columns: ClassVar[dict[str, str]] = {
        "Description": "DESCRIPTION",
        "IsAutomated": "AUTOMATED",
        "IsOfficial": "OFFICIAL",
        "Name": "NAME",
        "StarCount": "STARS",
    }
    __slots__ = ("_all", "_found")

    def __init__(self, found: dict[str, Any], *, truncate: bool) -> None:
        self._found = found
        self._all = not truncate

    def Name(self) -> str:
        return str(self._found["name"])

    def Description(self) -> str:
        text = str(self._found.get("description") or "").replace("\n", " ").replace("\r", " ")
        return text if self._all else ellipsis(text, 45)

    def StarCount(self) -> str:
        return str(self._found.get("star_count") or 0)

    def IsOfficial(self) -> str:
        return "[OK]" if self._found.get("is_official") else ""

    def IsAutomated(self) -> str:
        return "[OK]" if self._found.get("is_automated") else ""


def _search(context: Context, options: Options, arguments: list[str]) -> int:
    query = {"term": arguments[0], **filtered(filters(options))}
    if options["limit"] > 0:
        query["limit"] = str(options["limit"])
    headers = None
    if context.settings:
        from sampan.cli.credentials import header

        headers = header(context.settings, arguments[0])
    found = context.client.call("GET", "/images/search", query, headers=headers) or []
    found.sort(key=lambda one: -(one.get("star_count") or 0))
    rows = [Found(one, truncate=not options["no-trunc"]) for one in found]
    template = options["format"]
    default = "table {{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}"
    render(rows, Found, default if template in ("", "table") else template)
    return 0


COMMANDS: tuple[Command, ...] = (
    Command(
        "search",
        "[OPTIONS] TERM",
        "Search Docker Hub for images",
        _search,
        flags=(
            ("f", "filter", "filter", "Show only what meets the conditions"),
            ("", "format", "string", FORMAT_HELP),
            ("", "limit", "int", "How many results to show at most"),
            ("", "no-trunc", "bool", "Do not shorten the output"),
        ),
        least=1,
        most=1,
    ),
)
