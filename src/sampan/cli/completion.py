"""``__complete``: what may stand where the cursor is, for the scripts that ``completion`` prints.

The protocol is cobra's, which Docker's client speaks too: the arguments are the words after the program's
name, the last of them unfinished and perhaps empty; the answer is a candidate a line, with a description
after a tab, and at last ``:N``, where N says what the shell does with them.

Laws: nothing is started, nothing is said on a failure, and an engine that does not answer within two seconds
has no names.
"""

from __future__ import annotations

from sampan.cli.command import Command, Options
from sampan.cli.context import Context, Where, err, out
from sampan.cli.index import GROUP_SUMMARIES, GROUPS, module_of, top
from sampan.cli.main import GLOBAL_FLAGS, load
from sampan.cli.parse import FlagError, HelpRequested, parse
from sampan.cli.values import KINDS
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sampan.cli.command import Flag

    Candidates = Iterable[tuple[str, str]]

FILES = 0
NO_SPACE = 2
NO_FILES = 4
FOLDERS = 16
KEEP_ORDER = 32

OPEN = ("=", ":", ",")
"""Ends of candidates that go on: no space follows if all of them do."""

_NAMES = {
    FILES: "ShellCompDirectiveDefault",
    NO_SPACE: "ShellCompDirectiveNoSpace",
    NO_FILES: "ShellCompDirectiveNoFileComp",
    FOLDERS: "ShellCompDirectiveFilterDirs",
    KEEP_ORDER: "ShellCompDirectiveKeepOrder",
}


class Line:
    """The words before the cursor, read as far as they can be.

    ``waiting``: the flag whose value comes next. ``ended``: no flag can follow. ``arguments``: positional
    words.
    """

    __slots__ = ("arguments", "ended", "flags", "given", "interspersed", "rest", "waiting")

    def __init__(self, flags: tuple[Flag, ...], words: list[str], *, interspersed: bool) -> None:
        self.flags = flags
        self.interspersed = interspersed
        self.waiting: Flag | None = None
        self.ended = False
        self.arguments: list[str] = []
        self.given: set[str] = set()
        self.rest: list[str] = []
        for at, word in enumerate(words):
            if self.waiting is not None:
                self.waiting = None
            elif self.ended or len(word) < 2 or word[0] != "-":
                self.arguments.append(word)
                if not interspersed:
                    self.ended = True
                    self.rest = words[at + 1 :]
                    self.arguments += self.rest
                    return
            elif word == "--":
                self.ended = True
            else:
                self._flag(word)

    def _flag(self, word: str) -> None:
        if word[1] == "-":
            name, sign, _ = word[2:].partition("=")
            flag = named(self.flags, name)
            self._give(flag, complete=bool(sign))
            return
        for at, letter in enumerate(word[1:], 1):
            flag = next((flag for flag in self.flags if flag[0] == letter), None)
            self._give(flag, complete=at < len(word) - 1)
            if flag is None or flag[2] != "bool":
                return

    def _give(self, flag: Flag | None, *, complete: bool) -> None:
        if flag is None:
            return
        self.given.add(flag[1])
        if flag[2] != "bool" and not complete:
            self.waiting = flag


def named(flags: tuple[Flag, ...], name: str) -> Flag | None:
    """The flag with that long name."""
    return next((flag for flag in flags if flag[1] == name), None)


def candidates(words: list[str]) -> tuple[Candidates, int]:
    """What may stand for the last of ``words``, however that begins, and the directive."""
    *before, current = words or [""]
    line = Line(GLOBAL_FLAGS, before, interspersed=False)
    head = before[: len(before) - len(line.rest)] if line.arguments else before
    try:
        options, _ = parse(GLOBAL_FLAGS, head, interspersed=False)
        where = Where(options)
    except (FlagError, HelpRequested, Failure):
        where = Where()
    if not line.arguments:
        if line.waiting or current[:1] == "-":
            return _flag_or_value(where, "", line, current)
        return _commands(), NO_FILES
    return _of_command(where, line.arguments[0], line.rest, current)


def _of_command(where: Where, name: str, rest: list[str], current: str) -> tuple[Candidates, int]:
    if name == "help":
        return (_commands() if not rest else _group(rest[0]) if rest[0] in GROUPS else ()), NO_FILES
    path = [name]
    if name in GROUPS:
        if not rest:
            return _group(name), NO_FILES
        path, rest = [name, rest[0]], rest[1:]
    module = module_of(path)
    if module is None:
        return _of_plugin(where, [*path, *rest, current])
    command = load(module, " ".join(path))
    line = Line(command.flags, rest, interspersed=command.interspersed)
    if not line.ended and (line.waiting or current[:1] == "-"):
        return _flag_or_value(where, command.words, line, current)
    from sampan.cli.completionvalues import of_argument

    return of_argument(where, command, line.arguments, current)


def _of_plugin(where: Where, words: list[str]) -> tuple[Candidates, int]:
    """What a plugin says, which speaks the same protocol."""
    import subprocess

    from sampan.cli.plugins import environment, find

    program = find(words[0], where.settings)
    if not program:
        return (), NO_FILES
    command = [program, "__complete", *words]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=2, env=environment(where), check=False
    )
    *lines, last = done.stdout.rstrip("\n").split("\n")
    if last[:1] != ":" or not last[1:].isdigit():
        return (), NO_FILES
    found = [(line.partition("\t")[0], line.partition("\t")[2]) for line in lines]
    return found, int(last[1:])


def _commands() -> Candidates:
    for name in sorted({*top(), *GROUPS} - {"__complete", "__completeNoDesc"}):
        yield name, GROUP_SUMMARIES[name] if name in GROUPS else load(top()[name], name).summary


def _group(group: str) -> Candidates:
    for name, module in sorted(GROUPS[group].items()):
        command = load(module, f"{group} {name}")
        spellings = [alias for alias in command.aliases if alias.startswith(f"{group} ")]
        if not spellings or spellings[0] == f"{group} {name}":
            yield name, command.summary


def _flag_or_value(where: Where, words: str, line: Line, current: str) -> tuple[Candidates, int]:
    from sampan.cli.completionvalues import of_flag

    flag = line.waiting
    if flag is None:
        name, sign, _ = current.partition("=")
        if not sign:
            return _flags(line, current), NO_FILES
        letters = {f"-{one[0]}": one for one in line.flags if one[0]}
        flag = named(line.flags, name[2:]) if name[:2] == "--" else letters.get(name)
        current = current.partition("=")[2]
        if flag is None:
            return (), NO_FILES
    return of_flag(where, words, flag, current)


def _flags(line: Line, current: str) -> Candidates:
    for short, long, kind, text, *_ in sorted(line.flags, key=lambda flag: flag[1]):
        if not text or (long in line.given and not KINDS[kind].many):
            continue
        summary = text.partition("\n")[0]
        yield f"--{long}", summary
        if short and current == "-":
            yield f"-{short}", summary
    if "help".startswith(current[2:]):
        yield "--help", "Print usage"


def answer(words: list[str], *, described: bool) -> None:
    """Print what may stand for the last of ``words``."""
    current = words[-1] if words else ""
    if current[:1] == "-" and "=" in current:
        current = current.partition("=")[2]
    try:
        found, directive = candidates(words)
        chosen = [(name, text.partition("\n")[0]) for name, text in found if name.startswith(current)]
        if any(name[-1:] not in OPEN for name, _ in chosen):
            directive &= ~NO_SPACE
        lines = [f"{name}\t{text}" if text and described else name for name, text in chosen]
    except Exception:  # a shell waits for an answer, and nobody wants to read why there is none
        lines, directive = [], NO_FILES
    out("\n".join([*lines, f":{directive}"]))
    said = ", ".join(name for bit, name in _NAMES.items() if bit and directive & bit) or _NAMES[FILES]
    err(f"Completion ended with directive: {said}")


def _complete(context: Context, _options: Options, arguments: list[str]) -> int:
    answer(arguments, described=context.spelled == "__complete")
    return 0


COMMANDS: tuple[Command, ...] = (
    Command(
        "__complete",
        "[WORD...]",
        "Say what may stand for the last word",
        _complete,
        raw=True,
        aliases=("__complete", "__completeNoDesc"),
    ),
)
