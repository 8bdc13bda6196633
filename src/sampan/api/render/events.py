"""Events, one JSON line each."""

from __future__ import annotations

from typing import Any

from sampan.engine.model import Event, EventType


def event(value: Event, version: tuple[int, int]) -> dict[str, Any]:
    """One line of GET /events."""
    shown: dict[str, Any] = {}
    if version < (1, 52) and value.type in (EventType.CONTAINER, EventType.IMAGE):
        # What events looked like before they had types and actors; dropped in 1.52.
        shown["status"] = value.action
        shown["id"] = value.actor_id
        if value.type is EventType.CONTAINER:
            shown["from"] = value.attributes.get("image", "")
    shown["Type"] = value.type
    shown["Action"] = value.action
    shown["Actor"] = {"ID": value.actor_id, "Attributes": value.attributes}
    shown["scope"] = value.scope
    shown["time"] = value.time_ns // 1_000_000_000
    shown["timeNano"] = value.time_ns
    return shown
