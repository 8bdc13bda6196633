"""What a command is, and how it ends. Values only.

A flag is a plain tuple, so that a module's table is one constant that loads without running code:

    (short, long, kind, help[, default])

``short`` is one letter or ""; ``kind`` is a key of ``values.KINDS`` and the word shown after the flag;
``default`` is the text form of the value without the flag.
"""

from __future__ import annotations

from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.cli.context import Context

    Flag = tuple[str, ...]
    Action = Callable[["Context", "Options", list[str]], int]


FORMAT_HELP = """How to print:
'table':            In columns, with headings (default)
'table TEMPLATE':   In columns, by a Go template
'json':             As JSON
'TEMPLATE':         By a Go template"""
"""What every list says of its ``--format``."""


class Command:
    """One command.

    ``words``: what the user types after the program's name, as in ``("container", "ls")``.
    ``usage``: the line after the words. ``aliases``: every spelling, as help lists them.
    ``least`` and ``most``: how many positional arguments (``most`` None: any number).
    ``interspersed``: flags may follow the first positional argument; False where the rest of the line
    belongs to the container's command. ``raw``: the action reads all that follows the words itself.
    """

    __slots__ = (
        "action",
        "aliases",
        "flags",
        "interspersed",
        "least",
        "most",
        "raw",
        "summary",
        "usage",
        "words",
    )

    def __init__(
        self,
        words: str,
        usage: str,
        summary: str,
        action: Action,
        *,
        flags: tuple[Flag, ...] = (),
        least: int = 0,
        most: int | None = None,
        aliases: tuple[str, ...] = (),
        interspersed: bool = True,
        raw: bool = False,
    ) -> None:
        self.words = words
        self.usage = usage
        self.summary = summary
        self.action = action
        self.flags = flags
        self.least = least
        self.most = most
        self.aliases = aliases
        self.interspersed = interspersed
        self.raw = raw


class Options:
    """The values of a command's flags by long name, and which of them were given."""

    __slots__ = ("_values", "given")

    def __init__(self, values: dict[str, Any], given: set[str]) -> None:
        self._values = values
        self.given = given

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The flag's value, or ``default`` where the command has no such flag."""
        return self._values.get(name, default)

    def prefer(self, name: str, value: Any) -> None:
        """Give the flag a value that nobody typed; nothing happens for an empty one."""
        if value:
            self._values[name] = value


class UsageError(Failure):
    """The command line itself is wrong. ``hint`` follows the message, ``code`` is the exit code."""

    def __init__(self, message: str, *, hint: str = "", code: int = 1) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code


class Exit(Exception):
    """End with ``code``; ``message``, if any, goes to stderr as it is."""

    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
