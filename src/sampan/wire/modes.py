"""Modes of files as chmod understands them: octal, or symbolic like ``u=rwX,go-w``.

Source: POSIX, chmod. Whoever names nobody in a clause means all, less what the usual mask (022) withholds.
"""

from __future__ import annotations

import re

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)")
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_SHIFTS = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}
_MASK = 0o022
_SET_ID = {"u": 0o4000, "g": 0o2000}
_STICKY = 0o1000
_LIMIT = 0o7777

Change = tuple[tuple[str, str, str], ...]
"""(who, operator, rights) of each action, in order."""


def parse(text: str) -> int | Change:
    """What a text says. ValueError for one that is no mode."""
    if text and set(text) <= set("01234567"):
        mode = int(text, 8)
        if mode > _LIMIT:
            raise ValueError(text)
        return mode
    found: list[tuple[str, str, str]] = []
    for clause in text.split(","):
        match = _CLAUSE.fullmatch(clause)
        if match is None:
            raise ValueError(text)
        who = "".join(dict.fromkeys(match[1].replace("a", "ugo")))
        found += [(who, action[1], action[2]) for action in _ACTION.finditer(match[2])]
    return tuple(found)


def apply(change: int | Change, mode: int, *, directory: bool) -> int:
    """The mode that a file of ``mode`` gets."""
    if isinstance(change, int):
        return change
    for who, operator, rights in change:
        mode = _act(who, operator, rights, mode, directory=directory)
    return mode


def _act(who: str, operator: str, rights: str, mode: int, *, directory: bool) -> int:
    given = _rights(rights, mode, directory=directory)
    bits = touched = 0
    for one in who or "ugo":
        bits |= given << _SHIFTS[one]
        touched |= 7 << _SHIFTS[one]
        if one in _SET_ID:
            # Directories keep these where they are not named, as chmod has it.
            touched |= 0 if directory else _SET_ID[one]
            bits |= _SET_ID[one] if "s" in rights else 0
    if "t" in rights and (not who or "o" in who):
        bits |= _STICKY
    if not who:
        bits &= ~_MASK
    if operator == "+":
        return mode | bits
    if operator == "-":
        return mode & ~bits
    return mode & ~touched | bits


def _rights(rights: str, mode: int, *, directory: bool) -> int:
    if rights in _SHIFTS:
        return mode >> _SHIFTS[rights] & 7
    found = 0
    for right in rights:
        found |= _BITS.get(right, 0)
        if right == "X" and (directory or mode & 0o111):
            found |= 1
    return found
