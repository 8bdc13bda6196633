"""How the steps of a build go on, as the documents that BuildKit's clients know: vertexes and logs.

They come when things happen, whatever the order of the file; only a client that asked for them gets them.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sampan.images.model import format_time


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """One document."""

    document: dict[str, Any]


Tell = Callable[[News], None]


class Vertex:
    """A step. Without ``tell`` nothing is told."""

    def __init__(self, tell: Tell | None, name: str) -> None:
        self._tell = tell
        self._name = name
        self._digest = f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"
        self._started = _now()
        self._ended = False
        self.cached = False
        self._show({})

    def said(self, text: str) -> None:
        """Its program wrote this."""
        if self._tell is not None:
            data = base64.b64encode(text.encode()).decode()
            entry = {"vertex": self._digest, "stream": 1, "data": data, "timestamp": _now()}
            self._tell(News(document={"logs": [entry]}))

    def end(self, error: str = "") -> None:
        """It is over. Told once."""
        if not self._ended:
            self._ended = True
            more: dict[str, Any] = {"completed": _now()}
            if self.cached:
                more["cached"] = True
            if error:
                more["error"] = error
            self._show(more)

    def _show(self, more: dict[str, Any]) -> None:
        if self._tell is not None:
            vertex = {"digest": self._digest, "name": self._name, "started": self._started, **more}
            self._tell(News(document={"vertexes": [vertex]}))


def _now() -> str:
    return format_time(time.time_ns())
