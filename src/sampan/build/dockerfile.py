"""The text of a Dockerfile as a list of instructions: lines joined, comments gone, words apart. No I/O.

Nothing is expanded or checked for sense here; ``instructions`` does that. Laws: an instruction knows the
lines that it stands on, so that every later error can show them; what BuildKit's parser accepts is accepted,
and comes apart into the same words.
Source: Docker's Dockerfile reference; BuildKit's parser tests as recorded results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from sampan.errors import InvalidArgument
from sampan.spec import foreign

SIZE_LIMIT = 1 << 20
"""Bytes of a Dockerfile."""
WHITESPACE = re.compile(r"[\t\v\f\r ]+")
_DIRECTIVE = re.compile(r"#[ \t]*([A-Za-z][A-Za-z0-9]*)[ \t]*=[ \t]*(.+?)[ \t]*")
_DIRECTIVES = frozenset(("syntax", "escape", "check"))
_HEREDOC = re.compile(r"(\d*)<<(-?)([^<]+)")
_HEREDOC_INSTRUCTIONS = frozenset(("add", "copy", "run"))
_SPACE = " \t\v\f\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heredoc:
    """``name`` is the word that ends it; ``expand`` is False where that was quoted; ``chomp``: tabs went."""

    name: str
    content: str
    expand: bool = True
    chomp: bool = False
    descriptor: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """``name`` in lower case; ``words`` as they stand, unexpanded; ``first`` and ``last`` count lines from 1.

    ``json``: the words were given as a JSON array. ``inner`` is what an ONBUILD holds. ENV and LABEL have
    three words for each pair: name, value, and "=" or "" for what stood between.
    """

    name: str
    words: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    json: bool = False
    inner: Instruction | None = None
    heredocs: tuple[Heredoc, ...] = ()
    original: str = ""
    first: int = 0
    last: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Dockerfile:
    """A parsed file. ``lines`` are those of the text, for showing them."""

    instructions: tuple[Instruction, ...]
    escape: str
    directives: dict[str, str]
    lines: tuple[str, ...]
    warnings: tuple[str, ...] = field(default=())


class DockerfileError(InvalidArgument):
    """An error in a Dockerfile at lines ``first`` to ``last``."""

    def __init__(self, message: str, first: int = 0, last: int = 0) -> None:
        super().__init__(message)
        self.first = first
        self.last = last or first


class UnknownInstruction(DockerfileError):
    """There is no instruction of this name."""

    def __init__(self, name: str, first: int, last: int) -> None:
        super().__init__(f"unknown instruction: {name}{_meant(name.lower())}", first, last)
        self.name = name


def parse(text: str) -> Dockerfile:
    """The instructions of a Dockerfile. DockerfileError, in BuildKit's words, for what is none."""
    if len(text) > SIZE_LIMIT:
        raise DockerfileError(f"the Dockerfile is larger than {SIZE_LIMIT} bytes")
    lines = tuple(text.removeprefix("\ufeff").split("\n"))
    directives = _directives(lines)
    escape = directives.get("escape", "\\")
    if escape not in ("\\", "`"):
        raise DockerfileError(f"invalid ESCAPE '{escape}'. Must be ` or \\", 1)
    reader = _Reader(lines, escape)
    instructions = tuple(reader.instructions())
    if not instructions:
        raise DockerfileError("file with no instructions")
    return Dockerfile(
        instructions=instructions,
        escape=escape,
        directives=directives,
        lines=lines,
        warnings=tuple(reader.warnings),
    )


def parse_instruction(line: str, escape: str = "\\") -> Instruction:
    """One instruction without heredocs, as ONBUILD has it."""
    return _instruction(line, escape, 0, 0)


def _directives(lines: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _DIRECTIVE.fullmatch(line.strip(_SPACE))
        name = match[1].lower() if match else ""
        if match is None or name not in _DIRECTIVES:
            break
        if name in found:
            raise DockerfileError(f"only one {name} parser directive can be used", number)
        found[name] = match[2]
    return found


class _Reader:
    """Joins lines into instructions."""

    def __init__(self, lines: tuple[str, ...], escape: str) -> None:
        self._lines = lines
        self._escape = escape
        mark = re.escape(escape)
        self._continued = re.compile(rf"(?:(?<=[^{mark}])|^){mark}[ \t]*$")
        self._at = 0
        self.warnings: list[str] = []

    def instructions(self) -> Iterator[Instruction]:
        while self._at < len(self._lines):
            line = self._next().lstrip(_SPACE)
            first = self._at
            if line.startswith("#"):
                continue
            joined, more = self._without_mark(line)
            if not more and not joined.strip(_SPACE):
                continue
            joined = self._join(joined, more)
            if not joined.strip(_SPACE):
                continue
            yield self._finish(_instruction(joined.strip(_SPACE), self._escape, first, self._at))

    def _join(self, joined: str, more: bool) -> str:
        parts = [joined]
        empty = False
        while more and self._at < len(self._lines):
            line = self._next()
            if line.lstrip(_SPACE).startswith("#"):
                continue
            if not line.strip(_SPACE):
                # The end of the text is no empty line.
                empty = empty or self._at < len(self._lines)
                continue
            part, more = self._without_mark(line)
            parts.append(part)
        if empty:
            self.warnings.append(f"Empty continuation line found in: {''.join(parts).strip()}")
        return "".join(parts)

    def _next(self) -> str:
        line = self._lines[self._at]
        self._at += 1
        return line.removesuffix("\r")

    def _without_mark(self, line: str) -> tuple[str, bool]:
        match = self._continued.search(line)
        return (line[: match.start()], True) if match else (line, False)

    def _finish(self, found: Instruction) -> Instruction:
        """The instruction with the heredocs that follow it."""
        holder = found.inner if found.name == "onbuild" and found.inner else found
        if holder.name not in _HEREDOC_INSTRUCTIONS or holder.json:
            return found
        heredocs = tuple(
            self._heredoc(mark, found.first) for mark in heredoc_marks(found.original, self._escape)
        )
        if not heredocs:
            return found
        if found.name == "onbuild":
            raise DockerfileError("heredocs are not supported in ONBUILD", found.first, self._at)
        return replace(found, heredocs=heredocs, last=self._at)

    def _heredoc(self, mark: Heredoc, first: int) -> Heredoc:
        content: list[str] = []
        while self._at < len(self._lines):
            line = self._lines[self._at]
            self._at += 1
            bare = line.lstrip("\t") if mark.chomp else line
            if bare.removesuffix("\r") == mark.name:
                return replace(mark, content="".join(f"{text}\n" for text in content))
            content.append(bare)
        raise DockerfileError("unterminated heredoc", first, self._at)


def heredoc_marks(line: str, escape: str) -> list[Heredoc]:
    """The heredocs that a line announces, in order."""
    found = []
    for word in shell_words(line, escape):
        match = _HEREDOC.fullmatch(word)
        if match is None:
            continue
        name = match[3]
        bare = unquoted(name, escape)
        if not bare or (bare != name and len(bare) < len(name) - 2 and escape not in name):
            continue
        found.append(
            Heredoc(
                name=bare,
                content="",
                expand=bare == name,
                chomp=match[2] == "-",
                descriptor=int(match[1] or 0),
            )
        )
    return found


def shell_words(text: str, escape: str) -> list[str]:
    """Words as a shell separates them, quotes and escapes kept; single quotes protect from escapes too."""
    words: list[str] = []
    while text := text.lstrip(_SPACE):
        word, text = _first_word(text, escape, literal="'")
        words.append(word)
    return words


def unquoted(word: str, escape: str) -> str:
    """The word without its quotes and escapes."""
    found: list[str] = []
    quote = ""
    at = 0
    while at < len(word):
        character = word[at]
        if character == escape and quote != "'" and at + 1 < len(word):
            found.append(word[at + 1])
            at += 2
            continue
        if quote and character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote = character
        else:
            found.append(character)
        at += 1
    return "".join(found)


def _instruction(line: str, escape: str, first: int, last: int) -> Instruction:
    parts = WHITESPACE.split(line, maxsplit=1)
    name = parts[0].lower()
    rest = parts[1].strip(_SPACE) if len(parts) == 2 else ""
    read = _READERS.get(name)
    if read is None:
        raise UnknownInstruction(parts[0], first, last)
    try:
        rest, flags = _flags(rest, escape)
        found = read(rest, escape)
    except DockerfileError as error:
        raise DockerfileError(str(error), first, last) from None
    return replace(found, name=name, flags=flags, original=line, first=first, last=last)


def _meant(name: str) -> str:
    close = [known for known in _READERS if _distance(known, name) <= 2]
    return f" (did you mean {close[0]}?)" if close else ""


def _distance(one: str, other: str) -> int:
    """How many letters differ, at most: Levenshtein's distance of two short words."""
    if abs(len(one) - len(other)) > 2:
        return 3
    before = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        now = [row]
        for column, against in enumerate(other, 1):
            now.append(min(before[column] + 1, now[-1] + 1, before[column - 1] + (letter != against)))
        before = now
    return before[-1]


def _flags(rest: str, escape: str) -> tuple[str, tuple[str, ...]]:
    """The text after the leading ``--flag`` words, and those."""
    flags: list[str] = []
    while rest.startswith("--"):
        word, after = _first_word(rest, escape)
        if word == "--":
            return after.lstrip(_SPACE), tuple(flags)
        flags.append(unquoted(word, escape))
        rest = after.lstrip(_SPACE)
    return rest, tuple(flags)


def _first_word(text: str, escape: str, *, literal: str = "") -> tuple[str, str]:
    """The first word and the rest. An escape protects what follows it, but between ``literal`` quotes."""
    quote = ""
    at = 0
    while at < len(text):
        character = text[at]
        if character == escape and at + 1 < len(text) and not (quote and quote == literal):
            at += 2
            continue
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in _SPACE:
            break
        at += 1
    return text[:at], text[at:]


def _list(rest: str, _escape: str) -> Instruction:
    return Instruction(name="", words=tuple(WHITESPACE.split(rest)) if rest else ())


def _text(rest: str, _escape: str) -> Instruction:
    return Instruction(name="", words=(rest,) if rest else ())


def _json(rest: str) -> tuple[str, ...] | None:
    """The strings of a JSON array; None for what is no JSON array."""
    if not rest.startswith("["):
        return None
    try:
        found = foreign.decode(rest)
    except ValueError:
        return None
    if not isinstance(found, list):
        return None
    if not all(isinstance(word, str) for word in found):
        raise DockerfileError("when using JSON array syntax, arrays must be comprised of strings only")
    return tuple(found)


def _json_or_text(rest: str, escape: str) -> Instruction:
    words = _json(rest)
    return Instruction(name="", words=words, json=True) if words is not None else _text(rest, escape)


def _json_or_list(rest: str, escape: str) -> Instruction:
    words = _json(rest)
    return Instruction(name="", words=words, json=True) if words is not None else _list(rest, escape)


def _pairs(kind: str) -> Callable[[str, str], Instruction]:
    def read(rest: str, escape: str) -> Instruction:
        words = _quoted_words(rest, escape)
        if not words:
            return Instruction(name="")
        if "=" not in words[0]:
            parts = WHITESPACE.split(rest, maxsplit=1)
            if len(parts) < 2:
                raise DockerfileError(f"{kind} must have two arguments")
            return Instruction(name="", words=(parts[0], parts[1], ""))
        found: list[str] = []
        for word in words:
            name, equals, value = word.partition("=")
            if not equals:
                raise DockerfileError(
                    f"Syntax error - can't find = in {json.dumps(word)}. Must be of the form: name=value"
                )
            found += (name, value, "=")
        return Instruction(name="", words=tuple(found))

    return read


def _quoted_words(rest: str, escape: str) -> list[str]:
    """Words with their quotes and escapes; an escape protects what follows it, in any quotes."""
    words: list[str] = []
    while rest := rest.lstrip(_SPACE):
        word, rest = _first_word(rest, escape)
        words.append(word.removesuffix(escape) if not rest and _dangling(word, escape) else word)
    return words


def _dangling(word: str, escape: str) -> bool:
    """Whether the last character is an escape that protects nothing."""
    return word.endswith(escape) and (len(word) - len(word.rstrip(escape))) % 2 == 1


def _arguments(rest: str, escape: str) -> Instruction:
    return Instruction(name="", words=tuple(_quoted_words(rest, escape)))


def _health(rest: str, escape: str) -> Instruction:
    kind, _, command = rest.partition(" ") if "\t" not in rest else _split_once(rest)
    if not kind:
        return Instruction(name="")
    found = _json_or_text(command.strip(_SPACE), escape)
    return replace(found, words=(kind, *found.words))


def _split_once(text: str) -> tuple[str, str, str]:
    parts = WHITESPACE.split(text, maxsplit=1)
    return parts[0], " ", parts[1] if len(parts) == 2 else ""


def _onbuild(rest: str, escape: str) -> Instruction:
    if not rest:
        return Instruction(name="")
    return Instruction(name="", inner=_instruction(rest, escape, 0, 0), words=(rest,))


_READERS: dict[str, Callable[[str, str], Instruction]] = {
    "add": _json_or_list,
    "arg": _arguments,
    "cmd": _json_or_text,
    "copy": _json_or_list,
    "entrypoint": _json_or_text,
    "env": _pairs("ENV"),
    "expose": _list,
    "from": _list,
    "healthcheck": _health,
    "label": _pairs("LABEL"),
    "maintainer": _text,
    "onbuild": _onbuild,
    "run": _json_or_text,
    "shell": _json_or_text,
    "stopsignal": _text,
    "user": _text,
    "volume": _json_or_list,
    "workdir": _text,
}
