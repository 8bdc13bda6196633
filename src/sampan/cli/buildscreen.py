"""The steps of a build on a terminal: a line each with the time that it takes, drawn again as it goes on."""

from __future__ import annotations

import time

from sampan.cli.context import write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_INTERVAL = 0.1  # seconds between two drawings
_OUTPUT = 6  # lines of what runs that are shown


class Screen:
    """Draws on our output."""

    def __init__(self) -> None:
        from sampan.cli.terminal import size

        rows, columns = size(1)
        self._columns = columns or 80
        self._rows = max(4, (rows or 24) - 2)
        self._steps: dict[str, dict[str, Any]] = {}
        self._said: dict[str, list[str]] = {}
        self._began = time.monotonic()
        self._starts: dict[str, float] = {}
        self._drawn = 0
        self._next = 0.0

    def show(self, message: dict[str, Any]) -> None:
        """Take up what the engine tells."""
        now = time.monotonic()
        for vertex in message.get("vertexes", ()):
            self._starts.setdefault(vertex["digest"], now)
            self._steps[vertex["digest"]] = {**vertex, "took": now - self._starts[vertex["digest"]]}
        for log in message.get("logs", ()):
            from binascii import a2b_base64

            text = a2b_base64(log["data"]).decode("utf-8", "replace")
            lines = self._said.setdefault(log["vertex"], [])
            lines += text.splitlines()
            del lines[:-_OUTPUT]
        if now >= self._next or not self._goes_on:
            self._next = now + _INTERVAL
            self._draw(now)

    @property
    def _goes_on(self) -> bool:
        return any("completed" not in step for step in self._steps.values())

    def _draw(self, now: float) -> None:
        lines: list[str] = []
        for digest, step in self._steps.items():
            done = "completed" in step
            took = step["took"] if done else now - self._starts[digest]
            mark = "CACHED" if step.get("cached") else "ERROR" if step.get("error") else f"{took:.1f}s"
            lines.append(_fitted(f" => {step['name']}", mark, self._columns))
            if not done:
                lines += [_fitted(f" => => {line}", "", self._columns) for line in self._said.get(digest, ())]
        lines = lines[-self._rows :]
        finished = sum("completed" in step for step in self._steps.values())
        head = f"[+] Building {now - self._began:.1f}s ({finished}/{len(self._steps)})"
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        write(1, up + "".join(f"\r\x1b[2K{line}\n" for line in (head, *lines)) + "\x1b[J")
        self._drawn = len(lines) + 1


def _fitted(text: str, mark: str, columns: int) -> str:
    text = "".join(character if character.isprintable() else " " for character in text)
    room = columns - len(mark) - 2
    return f"{text[:room]:<{room}} {mark}"
