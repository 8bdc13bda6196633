"""What was acknowledged when: the promises that an engine has to keep, whatever it loses.

Theory: a *thing* is one of a kind by its name, and has a value while it is there. A change has a first
moment, at which it was asked for, and a last, at which it was acknowledged; moments are positions of the log.
Law: at any moment a thing has the value of the last change that was acknowledged, or that of one under way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

Thing = tuple[str, str]
"""(kind, name)"""
Value = str | bytes | None
"""None: there is no such thing."""
ANY = "any"
"""A value that nothing is promised of."""
_INHERENT = frozenset(("policy",))
"""Kinds that are there, with some value, before they are first changed."""


@dataclass(slots=True)
class Change:
    begin: int
    end: int | None = None
    values: dict[Thing, Value] = field(default_factory=dict)
    what: str = ""


class Ledger:
    """One client's account. ``now`` tells the moment."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._changes: list[Change] = []

    @contextlib.contextmanager
    def change(self, what: str, *things: Thing) -> Iterator[Change]:
        """One that is acknowledged when the context ends, with the values that were put into it.

        Until then ``things`` may be as they were, or gone, or what they are told to be.
        """
        change = Change(begin=self._now(), what=what, values=dict.fromkeys(things))
        self._changes.append(change)
        yield change
        change.end = self._now()

    def moments(self) -> list[int]:
        """Those at which something had just been acknowledged."""
        return [change.end for change in self._changes if change.end is not None]

    def at(self, moment: int) -> tuple[dict[Thing, set[Value]], str]:
        """Which values every thing that ever was may have after a loss at ``moment``; what happened last."""
        values: dict[Thing, set[Value]] = {
            thing: {ANY if thing[0] in _INHERENT else None} for one in self._changes for thing in one.values
        }
        last = ""
        for change in self._changes:
            if change.begin > moment:
                continue
            done = change.end is not None and change.end <= moment
            last = f"{'after' if done else 'during'} {change.what}"
            for thing, value in change.values.items():
                values[thing] = {value} if done else {*values[thing], value}
        return values, last

    def present(self, kind: str) -> Mapping[str, Value]:
        """The things of a kind that are there now, by name."""
        found: dict[str, Value] = {}
        for change in self._changes:
            for (of, name), value in change.values.items():
                if of == kind:
                    found[name] = value
        return {name: value for name, value in found.items() if value is not None}
