"""``system check``: whether the store of images tells the truth; this engine's own command."""

from __future__ import annotations

from sampan.cli.command import Command, Options
from sampan.cli.context import Context, out
from sampan.cli.human import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _check(context: Context, options: Options, _arguments: list[str]) -> int:
    query = {"repair": "1"} if options["repair"] else {}
    found = context.client.call("POST", "/system/check", query)
    problems = found["Problems"]
    for problem in problems:
        out(_line(problem))
    left = sum(not problem["Repaired"] for problem in problems)
    looked = (
        f"{found['Images']} images, {found['Layers']} layers, {found['Blobs']} blobs ({size(found['Size'])})"
    )
    out(f"Checked {looked}: {_count(len(problems), left)}")
    return 1 if left else 0


def _line(problem: dict[str, Any]) -> str:
    remedy = f" ({problem['Remedy']})" if problem["Remedy"] else ""
    return f"{problem['Kind']} {problem['Name']}: {problem['Problem']}{remedy}"


def _count(found: int, left: int) -> str:
    if not found:
        return "no problems"
    return f"{found} problem{'s'[: found > 1]}, {found - left} repaired"


COMMANDS: tuple[Command, ...] = (
    Command(
        "system check",
        "[OPTIONS]",
        "Verify every image, layer and blob",
        _check,
        flags=(("", "repair", "bool", "Mend what can be, remove what nothing needs"),),
        most=0,
    ),
)
