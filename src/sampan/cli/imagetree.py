"""``images --tree``: each image with its platforms, laid out as Docker's client does.

The first column is as wide as its longest name, if the rest leaves room; where it would have fewer than
twelve characters, columns on the right are left out. Of several names only the last has the details beside
it.
"""

from __future__ import annotations

import os

from sampan.cli.context import out
from sampan.cli.human import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Column = tuple[str, int, bool]

_WARNING = "WARNING: This is an experimental feature. The output may change and shouldn't be depended on."
_GAP = 3
_LEAST = 12
_RESET = "\x1b[0m"
_PLAIN, _FAINT = "\x1b[39m", "\x1b[39m\x1b[2m"
_NAME = "\x1b[34m\x1b[1m"
_CHIP = "\x1b[38;5;0m\x1b[48;5;14m"
_USED = " U "
_COLUMNS: tuple[Column, ...] = (
    # (title, width, to the right)
    ("IMAGE", 0, False),
    ("ID", 12, False),
    ("DISK USAGE", 10, True),
    ("CONTENT SIZE", 12, True),
    ("EXTRA", 5, False),
)


def show(summaries: list[dict[str, Any]], *, show_all: bool) -> None:
    """Print the images of a list that was asked for with ``manifests``."""
    colored = os.isatty(1)
    width = max(_width() or 80, 20)
    images = [one for one in summaries if show_all or one.get("RepoTags") or one.get("RepoDigests")]
    columns = _fitting(images, width)
    _head(columns, width, colored=colored)
    for image in images:
        _image(image, columns, colored=colored)
        out("")


def _width() -> int:
    if not os.isatty(1):
        return 0
    from sampan.cli.terminal import size as terminal_size

    return terminal_size(1)[1]


def _fitting(images: list[dict[str, Any]], width: int) -> list[Column]:
    """The columns for which there is room, the first with its width."""
    columns = list(_COLUMNS)
    first = width
    for at, (_, wide, _right) in enumerate(columns):
        if at and first - wide - _GAP < _LEAST:
            del columns[at:]
            break
        first -= wide + _GAP if at else 0
    names = [name for image in images for name in _names(image)]
    # A branch of the tree counts as its seven bytes.
    children = [7 + len(_platform(one)) for image in images for one in _children(image)]
    widest = max([len("IMAGE"), *(len(name) for name in names), *children])
    return [("IMAGE", min(first, widest), False), *columns[1:]]


def _head(columns: list[Column], width: int, *, colored: bool) -> None:
    if colored:
        out(f"\x1b[93m{_WARNING}{_RESET}")
        info = f"\x1b[1m\x1b[106m\x1b[30mi{_RESET}{_RESET} \x1b[96mInfo → {_RESET}{_RESET} "
        out(" " * (width - 21) + f"{info}{_CHIP}{_USED}{_RESET} In Use ")
    else:
        out(_WARNING)
        out(" " * (width - 18) + f"Info -> {_USED}In Use ")
    out("")
    titles = [(title, "\x1b[39m\x1b[1m") for title, _, _ in columns]
    out(_line(columns, titles))


def _image(image: dict[str, Any], columns: list[Column], *, colored: bool) -> None:
    children = _children(image)
    names = _names(image)
    terminal = _width()
    for name in names[:-1]:
        if 0 < terminal <= len(name):
            name = name[: terminal - 1] + "…"
        out(f"{_NAME}{name}{_RESET}" if colored else name)
    content = sum(one["Size"]["Content"] for one in children if one["Available"])
    used = image.get("Containers", 0) > 0 or any(_containers(one) for one in children)
    top = (names[-1], _NAME) if names else ("<untagged>", _FAINT)
    _row(columns, top, image["Id"], (image["Size"], content), _PLAIN, used=used, colored=colored)
    for one in children:
        branch = "└─ " if one is children[-1] else "├─ "
        color = _PLAIN if one["Available"] else _FAINT
        sizes = (one["Size"]["Total"], one["Size"]["Content"])
        first = (branch + _platform(one), color)
        used = bool(_containers(one))
        _row(columns, first, one["ID"], sizes, color, used=used, colored=colored)


def _row(
    columns: list[Column],
    first: tuple[str, str],
    identity: str,
    sizes: tuple[int, int],
    color: str,
    *,
    used: bool,
    colored: bool,
) -> None:
    cells = [
        first,
        (identity.removeprefix("sha256:")[:12], color),
        *((size(number, 3), color) for number in sizes),
        (_USED, _CHIP) if used else ("", ""),
    ]
    if not colored:
        cells = [(text.strip() if text == _USED else text, "") for text, _ in cells]
    out(_line(columns, cells))


def _line(columns: list[Column], cells: list[tuple[str, str]]) -> str:
    shown = []
    for (_, wide, right), (whole, color) in zip(columns, cells, strict=False):
        text = whole if len(whole) <= wide else whole[: wide - 1] + "…"
        pad = " " * (wide - len(text))
        body = f"{color}{text}{_RESET}" if color else text
        shown.append(pad + body if right else body + pad)
    return (" " * _GAP).join(shown)


def _names(image: dict[str, Any]) -> list[str]:
    """The image's tags, the longest first."""
    return sorted(image.get("RepoTags") or [], key=lambda name: (-len(name), name))


def _children(image: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in image.get("Manifests") or [] if one["Kind"] == "image"]


def _containers(one: dict[str, Any]) -> list[str]:
    return one["ImageData"].get("Containers") or []


def _platform(one: dict[str, Any]) -> str:
    platform = one["ImageData"]["Platform"]
    parts = (platform.get("os"), platform.get("architecture"), platform.get("variant"))
    return "/".join(part for part in parts if part) or "unknown"
