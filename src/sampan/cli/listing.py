"""A list of things as a table, as IDs, as JSON lines or by a template: what every ``ls`` shares.

A list is a subclass of ``Fields`` with ``columns``: field name to table heading, for every field that may be
shown. The value of a field is the method of that name.
"""

from __future__ import annotations

from sampan.cli.command import Exit
from sampan.cli.context import err, out, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, ClassVar


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
        from sampan.client import document

        text = document.encode({name: self.field(name) for name in sorted(self.columns)})
        return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class Labelled(Fields):
    """A row of something with labels: all of them as a column, one for a template."""

    extra = ("Label",)

    def __init__(self, document: dict[str, Any]) -> None:
        self._labels: dict[str, str] = document.get("Labels") or {}

    def Labels(self) -> str:
        return ",".join(f"{key}={self._labels[key]}" for key in sorted(self._labels))

    def Label(self, name: str) -> str:
        return str(self._labels.get(name, ""))


def identities(rows: Iterable[str], template: str) -> int:
    """What ``--quiet`` prints in place of a table, one a line; warns of a ``--format`` that it overrides."""
    if template and template != "table":
        err("WARNING: Ignoring custom format, because both --format and --quiet are set.")
    for row in rows:
        out(row)
    return 0


def render(rows: Sequence[Any], row_type: Any, template: str, *, header: bool | None = None) -> None:
    """Print ``rows`` by ``template``: "table …", "json", or a template of its own.

    An escaped ``\\t`` or ``\\n`` in the template is the character, as Docker has it.
    """
    if template == "json":
        for row in rows:
            write(1, row.as_json() + "\n")
        return
    table = template.startswith("table")
    if table:
        template = template[len("table") :].strip()
    source = template.replace("\\t", "\t").replace("\\n", "\n").strip()
    simple = _simple(source) if table else None
    if simple is not None and all(name in row_type.columns for name in simple):
        cells = [[row_type.columns[name] for name in simple]] if header is not False else []
        for row in rows:
            cells.append([_cell(row.field(name)) for name in simple])
        _print_table(cells)
        return
    _by_template(rows, row_type, source, table=table and header is not False, aligned=table)


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


def _print_table(cells: list[list[str]]) -> None:
    from sampan.cli.table import columns

    if cells:
        write(1, "\n".join(columns(cells)) + "\n")


def _simple(source: str) -> list[str] | None:
    """The fields of a template that is only fields and tabs: the usual tables need no template engine."""
    names = []
    for cell in source.split("\t"):
        if not (cell.startswith("{{.") and cell.endswith("}}")) or not cell[3:-2].isalnum():
            return None
        names.append(cell[3:-2])
    return names


def _by_template(rows: Sequence[Any], row_type: Any, source: str, *, table: bool, aligned: bool) -> None:
    from sampan.cli.template import TemplateError, execute, parse
    from sampan.cli.template.evaluate import Row

    class Bound(Row):
        kind = row_type.kind

        def __init__(self, row: Any) -> None:
            self.row = row

        def as_json(self) -> str:
            return str(self.row.as_json())

        def field(self, name: str) -> Any:
            return self.row.field(name)

    class Heading(Row):
        kind = row_type.kind

        def field(self, name: str) -> Any:
            if name in row_type.extra:
                return lambda argument: argument.rpartition(".")[2]
            return row_type.columns[name]

    try:
        nodes = parse(source)
    except TemplateError as error:
        raise Exit(1, f"failed to parse template: {error}") from None
    lines: list[str] = []
    try:
        for row in rows:
            lines.append(execute(nodes, Bound(row), source))
        if table:
            lines.insert(0, execute(nodes, Heading(), source))
    except TemplateError as error:
        raise Exit(1, f"failed to execute template: {error}") from None
    if not lines:
        return
    text = "\n".join(lines)
    if aligned:
        from sampan.cli.table import tabbed

        text = tabbed(text)
    write(1, text + "\n")
