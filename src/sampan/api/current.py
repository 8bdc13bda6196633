"""Which request is being answered: its number, in this task and in those that it began; 0 outside of any."""

from __future__ import annotations

from contextvars import ContextVar

REQUEST: ContextVar[int] = ContextVar("request", default=0)
