"""Words that are no command here: a plugin of Docker's client, something with another way to it, or a
mistake.
"""

from __future__ import annotations

from sampan.cli.command import UsageError
from sampan.cli.context import PROGRAM, Where, out
from sampan.cli.index import INSTEAD

FLAG_ERROR = 125


def answer(where: Where, path: list[str], rest: list[str]) -> int:
    """Run the plugin that ``path`` names, or raise UsageError with what to use instead or Docker's words."""
    name = path[0]
    if len(path) == 1:
        from sampan.cli.plugins import find

        program = find(name, where.settings)
        if program:
            from sampan.cli.plugins import run

            run(where, program, [name, *rest])
        if name in INSTEAD:
            said = f"{PROGRAM} {name}: {INSTEAD[name].format(program=PROGRAM)}"
            if rest[:1] == ["--help"]:
                out(said)
                return 0
            raise UsageError(said)
    raise _unknown(path)


def _unknown(path: list[str]) -> UsageError:
    group = path[0] if len(path) > 1 else ""
    spelled = " ".join(path)
    if group and path[1][:1] == "-":
        letter = path[1][1:2]
        what = (
            f"unknown flag: {path[1]}"
            if letter == "-"
            else f"unknown shorthand flag: '{letter}' in {path[1]}"
        )
        hint = f"Usage:  {PROGRAM} {group}\n\nRun '{PROGRAM} {group} --help' for more information"
        return UsageError(what, hint=hint, code=FLAG_ERROR)
    usage = f"Usage:  {PROGRAM} {group}\n\n" if group else ""
    where = f"{PROGRAM} {group}" if group else PROGRAM
    hint = f"{usage}Run '{where} --help' for more information"
    return UsageError(f"{PROGRAM}: unknown command: {PROGRAM} {spelled}", hint=hint)
