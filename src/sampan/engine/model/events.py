"""Events: what happened to which object, in Docker's words."""

from __future__ import annotations

import enum

import msgspec


class EventType(enum.StrEnum):
    CONTAINER = "container"
    IMAGE = "image"
    NETWORK = "network"
    VOLUME = "volume"
    DAEMON = "daemon"
    BUILDER = "builder"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """``time_ns`` is since the epoch; ``Events.publish`` sets it when it is 0."""

    type: EventType
    action: str
    actor_id: str
    attributes: dict[str, str] = msgspec.field(default_factory=dict)
    time_ns: int = 0
    scope: str = "local"
