"""Text in columns, as Go's tabwriter lays it out: each column as wide as its widest cell and a gap."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def _wide(text: str) -> int:
    """Cells that ``text`` takes; Go counts code points."""
    return len(text)


def columns(rows: Sequence[Sequence[str]], *, least: int = 10, gap: int = 3) -> list[str]:
    """Lines for ``rows``; the last cell of a row is not padded. A row may be shorter than others.

    A column is a run of neighbouring rows that have that cell and one after it, as in tabwriter.
    """
    lines = [""] * len(rows)
    widths: list[dict[int, int]] = [{} for _ in rows]
    _measure(rows, widths, 0, len(rows), 0, least, gap)
    for at, row in enumerate(rows):
        cells = [cell.ljust(widths[at][column]) for column, cell in enumerate(row[:-1])]
        lines[at] = "".join(cells) + (row[-1] if row else "")
    return lines


def _measure(
    rows: Sequence[Sequence[str]],
    widths: list[dict[int, int]],
    start: int,
    end: int,
    column: int,
    least: int,
    gap: int,
) -> None:
    at = start
    while at < end:
        if column >= len(rows[at]) - 1:
            at += 1
            continue
        stop = at
        width = least
        while stop < end and column < len(rows[stop]) - 1:
            width = max(width, _wide(rows[stop][column]) + gap)
            stop += 1
        for row in range(at, stop):
            widths[row][column] = width
        _measure(rows, widths, at, stop, column + 1, least, gap)
        at = stop


def tabbed(text: str, *, least: int = 10, gap: int = 3) -> str:
    """Lay out ``text``, whose cells are separated by tabs."""
    lines = text.split("\n")
    return "\n".join(columns([line.split("\t") for line in lines], least=least, gap=gap))
