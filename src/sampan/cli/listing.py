"""A list of things as a table, as IDs, as JSON lines or by a template: what every ``ls`` shares, from its
filters to what it prints.

A list is a subclass of ``Fields`` with ``columns``: field name to table heading, for every field that may be
shown. The value of a field is the method of that name.
"""

from __future__ import annotations

from sampan.cli.command import Exit
from sampan.cli.context import err, out, write
from sampan.wire import document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, ClassVar

    from sampan.cli.command import Options


class Fields:
    """One row. Subclasses have a method for each column."""

    kind = "*formatter.Context"
    columns: ClassVar[dict[str, str]] = {}
    extra: tuple[str, ...] = ()
    """Fields that a template may use and JSON does not show."""

    def field(self, name: str) -> Any:
        """The value of a column, or a function for a field with an argument. Raises LookupError."""
        if name in self.columns:
            return getattr(self, name)()
        if name in self.extra:
            return getattr(self, name)
        raise LookupError(name)

    def as_json(self) -> str:
        """All columns, keys sorted, with Go's escapes of what HTML would mistake."""
        return escaped(document.encode({name: self.field(name) for name in sorted(self.columns)}))


def escaped(text: str) -> str:
    """JSON with Go's escapes of what HTML would mistake."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class Labelled(Fields):
    """A row of something with labels: all of them as a column, one for a template."""

    extra = ("Label",)

    def __init__(self, labelled: dict[str, Any]) -> None:
        self._labels: dict[str, str] = labelled.get("Labels") or {}

    def Labels(self) -> str:
        return ",".join(f"{key}={self._labels[key]}" for key in sorted(self._labels))

    def Label(self, name: str) -> str:
        return str(self._labels.get(name, ""))


def filters(options: Options) -> dict[str, list[str]]:
    """``--filter`` values as the API's filters."""
    found: dict[str, list[str]] = {}
    for key, value in options["filter"]:
        if key:
            found.setdefault(key, []).append(value)
    return found


def encoded(found: dict[str, list[str]]) -> str:
    """Filters as the API takes them: key to set of values."""
    return document.encode({key: dict.fromkeys(values, True) for key, values in found.items()})


def filtered(found: dict[str, list[str]]) -> dict[str, str]:
    """The query that asks for what meets the filters; empty when there are none."""
    return {"filters": encoded(found)} if found else {}


def natural(text: str) -> list[tuple[int, str]]:
    """A key that sorts runs of digits by their number."""
    parts: list[tuple[int, str]] = []
    run = ""
    for character in text:
        if run and character.isdigit() != run[-1].isdigit():
            parts.append(_part(run))
            run = ""
        run += character
    return [*parts, _part(run)]


def _part(run: str) -> tuple[int, str]:
    return (int(run), "") if run.isdecimal() else (-1, run)


def ellipsis(text: str, length: int) -> str:
    """``text`` cut to ``length`` characters, the last of which says so."""
    return text if len(text) <= length else text[: length - 1] + "…"


def identities(rows: Iterable[str], template: str) -> int:
    """What ``--quiet`` prints in place of a table, one a line; warns of a ``--format`` that it overrides."""
    if template and template != "table":
        err("WARNING: Ignoring custom format, because both --format and --quiet are set.")
    for row in rows:
        out(row)
    return 0


def render(
    rows: Sequence[Any],
    row_type: Any,
    template: str,
    *,
    header: bool | None = None,
    line_end: str = "",
) -> None:
    """Print ``rows`` by ``template``: "table …", "json", or a template of its own.

    An escaped ``\\t`` or ``\\n`` in the template is the character, as Docker has it. ``line_end`` goes before
    each newline, for a screen that is drawn anew.
    """
    text = rendered(rows, row_type, template, header=header)
    write(1, text.replace("\n", f"{line_end}\n") if line_end else text)


def rendered(rows: Sequence[Any], row_type: Any, template: str, *, header: bool | None = None) -> str:
    """What ``render`` prints."""
    if template == "json":
        return "".join(row.as_json() + "\n" for row in rows)
    table = template.startswith("table")
    if table:
        template = template[len("table") :].strip()
    source = template.replace("\\t", "\t").replace("\\n", "\n").strip()
    simple = _simple(source) if table else None
    if simple is not None and all(name in row_type.columns for name in simple):
        cells = [[row_type.columns[name] for name in simple]] if header is not False else []
        for row in rows:
            cells.append([_cell(row.field(name)) for name in simple])
        return _table(cells)
    return _by_template(rows, row_type, source, table=table and header is not False, aligned=table)


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


def _table(cells: list[list[str]]) -> str:
    from sampan.cli.table import columns

    return "\n".join(columns(cells)) + "\n" if cells else ""


def _simple(source: str) -> list[str] | None:
    """The fields of a template that is only fields and tabs: the usual tables need no template engine."""
    names = []
    for cell in source.split("\t"):
        if not (cell.startswith("{{.") and cell.endswith("}}")) or not cell[3:-2].isalnum():
            return None
        names.append(cell[3:-2])
    return names


def bound(row: Any) -> Any:
    """``row`` as a value of templates."""
    from sampan.wire.template.evaluate import Row

    class Bound(Row):
        kind = row.kind

        def as_json(self) -> str:
            return str(row.as_json())

        def field(self, name: str) -> Any:
            return row.field(name)

    return Bound()


def _by_template(rows: Sequence[Any], row_type: Any, source: str, *, table: bool, aligned: bool) -> str:
    from sampan.wire.template import TemplateError, execute, parse
    from sampan.wire.template.evaluate import Row

    class Heading(Row):
        kind = row_type.kind

        def field(self, name: str) -> Any:
            if name in row_type.extra:
                return lambda argument: argument.rpartition(".")[2]
            return row_type.columns[name]

    try:
        nodes = parse(source)
    except TemplateError as error:
        raise Exit(1, f"template parsing error: {error}") from None
    lines: list[str] = []
    try:
        for row in rows:
            lines.append(execute(nodes, bound(row), source))
        if table:
            lines.insert(0, execute(nodes, Heading(), source))
    except TemplateError as error:
        raise Exit(1, f"template parsing error: {error}") from None
    if not lines:
        return ""
    text = "\n".join(lines)
    if aligned:
        from sampan.cli.table import tabbed

        text = tabbed(text)
    return text + "\n"
