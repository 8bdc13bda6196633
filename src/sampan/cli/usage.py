"""Help and hints, in Docker's layout, from the commands' tables. Loaded only when somebody needs telling."""

from __future__ import annotations

import os

from sampan.cli.command import UsageError
from sampan.cli.context import PROGRAM
from sampan.cli.index import COMMON, GROUP_SUMMARIES, GROUPS, OWN, module_of, top
from sampan.cli.values import KINDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.command import Command, Flag

_NARROWEST = 24  # columns below which a flag's text moves to lines of its own
_SLOP = 5  # how far a line may go over, rather than leave a word alone on the next


def width() -> int:
    """Columns of the terminal on stdin, or 80."""
    try:
        return os.get_terminal_size(0).columns or 80
    except OSError:
        return 80


def help_of(command: Command, spelled: str) -> str:
    """What ``--help`` prints for ``command`` as the user spelled it."""
    parts = [f"Usage:  {PROGRAM} {spelled}{' ' + command.usage if command.usage else ''}", command.summary]
    if command.aliases:
        parts.append("Aliases:\n  " + ", ".join(f"{PROGRAM} {alias}" for alias in command.aliases))
    if command.flags:
        flags = command.flags
        if any(flag[0] == "h" for flag in flags):  # the letter is taken, so the word needs saying
            flags = (*flags, ("", "help", "bool", "Print usage"))
        parts.append("Options:\n" + flag_lines(flags, width() - 1))
    return "\n\n".join(parts)


def hint(command: Command, spelled: str) -> str:
    """The lines after an error about flags or arguments."""
    usage = f" {command.usage}" if command.usage else ""
    return f"Usage:  {PROGRAM} {spelled}{usage}\n\nRun '{PROGRAM} {spelled} --help' for more information"


def argument_error(command: Command, spelled: str) -> str:
    """How many arguments the command takes."""
    least, most = command.least, command.most

    def counted(number: int) -> str:
        return f"{number} argument{'' if number == 1 else 's'}"

    if most == 0:
        what = "accepts no arguments"
    elif most is None:
        what = f"requires at least {counted(least)}"
    elif least == most:
        what = f"requires {counted(least)}"
    elif least == 0:
        what = f"requires at most {counted(most)}"
    else:
        what = f"requires at least {least} and at most {counted(most)}"
    verb = "See" if most is None else "Run"
    usage = f" {command.usage}" if command.usage else ""
    return (
        f"{PROGRAM}: '{PROGRAM} {spelled}' {what}\n\nUsage:  {PROGRAM} {spelled}{usage}\n\n"
        f"{verb} '{PROGRAM} {spelled} --help' for more information"
    )


def flag_lines(flags: tuple[Flag, ...], columns: int) -> str:
    """The table of ``flags``, sorted, wrapped to ``columns``."""
    rows = []
    for flag in sorted(flags, key=lambda flag: flag[1]):
        short, long, kind, text = flag[:4]
        if not text:
            continue  # an older spelling, which works and is not shown
        shown = KINDS[kind].shown
        left = f"  -{short}, --{long}" if short else f"      --{long}"
        rows.append((f"{left} {shown}" if shown else left, text + _default(flag)))
    indent = max(len(left) for left, _ in rows) + 3
    return "\n".join(f"{left:<{indent}}{wrap(text, indent, columns)}" for left, text in rows)


_EMPTY = {
    **dict.fromkeys(("map", "sysctl"), "map[]"),
    **dict.fromkeys(("throttle-bps", "throttle-iops", "ulimit", "weight-device"), "[]"),
}
"""Kinds whose emptiness Docker's help shows."""


def _default(flag: Flag) -> str:
    if flag[2] in _EMPTY:
        return f" (default {_EMPTY[flag[2]]})"
    if len(flag) < 5 or flag[4] in ("", "false"):
        return ""
    kind = KINDS[flag[2]]
    value = flag[4]
    return f' (default "{value}")' if kind.shown in ("string", "key", "pull") else f" (default {value})"


def wrap(text: str, indent: int, columns: int) -> str:
    """``text`` in lines of at most ``columns``, all but the first indented."""
    room = columns - indent
    lead = ""
    if room < _NARROWEST:
        indent, room = 16, columns - 16
        lead = "\n" + " " * indent
    pad = "\n" + " " * indent
    if room < _NARROWEST:
        return text.replace("\n", pad)
    lines = []
    while text:
        line, text = _line(text, room - _SLOP)
        lines.append(line.replace("\n", pad))
    return lead + pad.join(lines)


def _line(text: str, room: int) -> tuple[str, str]:
    if room + _SLOP > len(text):
        return text, ""
    head = text[:room]
    at = max(head.rfind(" "), head.rfind("\t"), head.rfind("\n"))
    if at <= 0:
        return text, ""
    line_end = head.rfind("\n")
    if 0 < line_end < at:
        at = line_end
    return text[:at], text[at + 1 :]


def _rows(entries: dict[str, str]) -> str:
    wide = max(11, *(len(name) for name in entries))
    return "\n".join(f"  {name:<{wide}} {entries[name]}" for name in entries)


def group_help(group: str) -> str:
    """What a management command without a command prints."""
    return (
        f"Usage:  {PROGRAM} {group} COMMAND\n\n{GROUP_SUMMARIES[group]}\n\nCommands:\n"
        f"{_rows(_summaries(GROUPS[group], prefix=group + ' '))}\n\n"
        f"Run '{PROGRAM} {group} COMMAND --help' for more information on a command."
    )


def program_help(flags: tuple[Flag, ...]) -> str:
    """What ``sampan --help`` prints."""
    commands = _summaries(top(), prefix="")
    common = {name: commands[name] for name in COMMON if name in commands}
    own = {name: commands[name] for name in OWN if name in commands}
    rest = {name: text for name, text in commands.items() if name not in common and name not in own}
    groups = {**GROUP_SUMMARIES, **_plugins()}
    parts = [
        f"Usage:  {PROGRAM} [OPTIONS] COMMAND",
        "Containers on one machine, in one Python package",
        f"Common Commands:\n{_rows(common)}",
        f"Management Commands:\n{_rows(dict(sorted(groups.items())))}",
        f"Commands:\n{_rows(rest)}",
        f"Engine:\n{_rows(own)}",
        f"Global Options:\n{flag_lines(_placed(flags), width() - 1)}",
        f"Run '{PROGRAM} COMMAND --help' for more information on a command.",
    ]
    if os.environ.get("DOCKER_HIDE_LEGACY_COMMANDS"):
        parts = [part for part in parts if not part.startswith("Commands:")]
    return "\n\n".join(parts)


def _plugins() -> dict[str, str]:
    from sampan.cli.context import read_settings
    from sampan.cli.plugins import listed

    return {f"{name}*": text for name, text in listed(read_settings())}


def _placed(flags: tuple[Flag, ...]) -> tuple[Flag, ...]:
    """Global flags with the defaults that depend on the user's folder."""
    from sampan.cli.context import folder

    place = folder()
    files = {"config": place, "tlscacert": f"{place}/ca.pem", "tlscert": f"{place}/cert.pem"}
    files["tlskey"] = f"{place}/key.pem"
    return tuple((*flag[:4], files[flag[1]]) if flag[1] in files else flag for flag in flags)


def help_topic(words: list[str]) -> str:
    """What ``sampan help WORDS`` prints. Raises UsageError for words that are no command."""
    from sampan.cli.main import GLOBAL_FLAGS, load

    if not words:
        return program_help(GLOBAL_FLAGS)
    if words[0] in GROUPS and len(words) == 1:
        return group_help(words[0])
    module = module_of(words)
    if module is None:
        known = 1 if words[0] in GROUPS or words[0] in top() else 0
        if words[0] in GROUPS and module_of(words[:2]):
            known = 2
        raise UsageError(f"unknown help topic: {' '.join(words[known:])}")
    return help_of(load(module, " ".join(words)), " ".join(words))


def _summaries(index: dict[str, str], *, prefix: str) -> dict[str, str]:
    from sampan.cli.main import load

    found: dict[str, str] = {}
    for name in sorted(index):
        if name.startswith("__"):
            continue  # for programs, not for people
        command = load(index[name], prefix + name)
        canonical = [alias for alias in command.aliases if prefix and alias.startswith(prefix)]
        if canonical and canonical[0] != prefix + name:
            continue  # a second spelling of a listed command
        found[name] = command.summary.partition("\n")[0]
    return found
