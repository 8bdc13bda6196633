"""A command line of flags and arguments, read by the rules of pflag (Docker's flag library).

``-it`` is ``-i -t``; ``-e A``, ``-eA``, ``-e=A``, ``--env A`` and ``--env=A`` are one; a boolean takes its
value only by ``=``; ``--`` ends the flags, and so does the first argument of a command that is not
interspersed.
"""

from __future__ import annotations

from sampan.cli.command import Options
from sampan.cli.values import KINDS, quoted, starting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.command import Flag


class FlagError(Exception):
    """A flag that the command does not take, or takes otherwise. ``str()`` is pflag's message."""


class HelpRequested(Exception):
    """``--help`` was given, or ``-h`` where that is no flag of the command (``deprecated``)."""

    def __init__(self, *, deprecated: bool) -> None:
        super().__init__()
        self.deprecated = deprecated


class _Reader:
    __slots__ = ("flags", "given", "shorts", "values")

    def __init__(self, flags: tuple[Flag, ...]) -> None:
        self.flags = {flag[1]: flag for flag in flags}
        self.shorts = {flag[0]: flag for flag in flags if flag[0]}
        self.values: dict[str, Any] = {}
        self.given: set[str] = set()

    def set(self, flag: Flag, text: str) -> None:
        kind = KINDS[flag[2]]
        try:
            value = kind.read(text)
        except ValueError as error:
            shown = f"-{flag[0]}, --{flag[1]}" if flag[0] else f"--{flag[1]}"
            raise FlagError(f'invalid argument {quoted(text)} for "{shown}" flag: {error}') from None
        if kind.many:
            self.values.setdefault(flag[1], []).append(value)
        else:
            self.values[flag[1]] = value
        self.given.add(flag[1])

    def long(self, word: str, rest: list[str]) -> list[str]:
        name, sign, text = word[2:].partition("=")
        if not name or name[0] == "-":
            raise FlagError(f"bad flag syntax: {word}")
        flag = self.flags.get(name)
        if flag is None:
            if name == "help":
                raise HelpRequested(deprecated=False)
            raise FlagError(f"unknown flag: --{name}")
        if sign:
            self.set(flag, text)
        elif flag[2] == "bool":
            self.set(flag, "true")
        elif rest:
            self.set(flag, rest[0])
            return rest[1:]
        else:
            raise FlagError(f"flag needs an argument: --{name}")
        return rest

    def short(self, word: str, rest: list[str]) -> list[str]:
        letters = word[1:]
        while letters:
            letter, after = letters[0], letters[1:]
            flag = self.shorts.get(letter)
            if flag is None:
                if letter == "h":
                    raise HelpRequested(deprecated=True)
                raise FlagError(f"unknown shorthand flag: {_rune(letter)} in -{letters}")
            if len(letters) > 2 and letters[1] == "=":
                self.set(flag, letters[2:])
                return rest
            if flag[2] == "bool":
                self.set(flag, "true")
                letters = after
                continue
            if after:
                self.set(flag, after)
                return rest
            if rest:
                self.set(flag, rest[0])
                return rest[1:]
            raise FlagError(f"flag needs an argument: {_rune(letter)} in -{letters}")
        return rest

    def options(self) -> Options:
        for name, flag in self.flags.items():
            if name not in self.values:
                self.values[name] = starting(flag[2], flag[4] if len(flag) > 4 else "")
        return Options(self.values, self.given)


def _rune(letter: str) -> str:
    return f"'{letter}'"


def parse(
    flags: tuple[Flag, ...], words: list[str], *, interspersed: bool = True
) -> tuple[Options, list[str]]:
    """The options and the positional arguments of ``words``. Raises FlagError or HelpRequested."""
    reader = _Reader(flags)
    arguments: list[str] = []
    rest = words
    while rest:
        word, rest = rest[0], rest[1:]
        if len(word) < 2 or word[0] != "-":
            arguments.append(word)
            if not interspersed:
                break
        elif word == "--":
            break
        elif word[1] == "-":
            rest = reader.long(word, rest)
        else:
            rest = reader.short(word, rest)
    return reader.options(), arguments + rest
