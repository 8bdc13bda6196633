"""A scene: calls that follow one another on an engine that has one image, and what was answered to each.

The calls of a scene are the lines of a text, as a user types them:

- a line of shell, with ``docker`` aimed at the engine, ``$T`` a directory of the scene, ``$START`` the time
  when the scene began, and nothing on standard input; ``ready NAME`` waits for a container to say "ready";
- ``GET /path``, ``POST /path BODY`` and the like: a request to the API, BODY as it is sent;
- ``# words`` says something to the reader.

A line that begins with ``-`` prepares: it must succeed and its output is not compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

METHODS = ("GET ", "POST ", "PUT ", "DELETE ", "HEAD ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """``code`` is an exit code or an HTTP status, ``err`` is empty for a request."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Differs:
    """Why this engine's answer is not the recorded one, and what it is: what is None is as recorded."""

    reason: str
    code: int | None = None
    out: str | None = None
    err: str | None = None

    def over(self, recorded: Answer) -> Answer:
        return Answer(
            code=recorded.code if self.code is None else self.code,
            out=recorded.out if self.out is None else self.out,
            err=recorded.err if self.err is None else self.err,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """``differs`` is by the line of the call."""

    name: str
    text: str
    differs: Mapping[str, Differs] = field(default_factory=dict)

    def __post_init__(self) -> None:
        calls = self.calls()
        twice = {call for call in calls if calls.count(call) > 1}
        if twice:
            raise ValueError(f"{self.name}: tell these apart by a shell comment: {twice}")
        unknown = set(self.differs) - set(calls)
        if unknown:
            raise ValueError(f"{self.name}: no such calls: {unknown}")

    def lines(self) -> list[str]:
        """Every line to play."""
        lines = [line.strip() for line in self.text.splitlines()]
        return [line for line in lines if line and not line.startswith("#")]

    def calls(self) -> list[str]:
        """The lines whose answers are compared."""
        return [line for line in self.lines() if not line.startswith("-")]

    def only_requests(self) -> bool:
        """Whether what is compared are requests alone, and so the same with every client."""
        return all(call.startswith(METHODS) for call in self.calls())
