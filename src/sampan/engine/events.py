"""Events as they happen, and the recent ones again.

The last 1024 are remembered, in memory: a daemon that starts remembers nothing (Docker keeps 256, no longer).

Laws: an event is published after the fact it tells; subscribers see events in the order of publishing, each
once; ``publish`` never blocks. A subscriber that falls ``_BACKLOG`` events behind loses the oldest.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

import msgspec

from sampan.engine.model import Container, Event, EventType, Filters

_REMEMBERED = 1024
_BACKLOG = 16384


class Subscription:
    """An asynchronous iterator of events. Registered from the moment it exists; ``close`` ends it."""

    def __init__(self, events: Events, replay: list[Event], *, until: int, filters: Filters) -> None:
        self._events = events
        self._queue: deque[Event] = deque(replay, maxlen=_BACKLOG)
        self._until = until
        self._filters = filters
        self._wake: asyncio.Future[None] | None = None
        self._open = True

    def offer(self, event: Event) -> None:
        if (self._until and event.time_ns > self._until) or not matches(event, self._filters):
            return
        self._queue.append(event)
        self._rouse()

    @property
    def unread(self) -> int:
        return len(self._queue)

    def close(self) -> None:
        """End the iteration once the events already here are read. Idempotent."""
        self._open = False
        self._events.unsubscribe(self)
        self._rouse()

    async def aclose(self) -> None:
        self._queue.clear()
        self.close()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        while not self._queue:
            left = (self._until - self._events.now()) / 1e9 if self._until else None
            if not self._open or (left is not None and left <= 0):
                self.close()
                raise StopAsyncIteration
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await asyncio.wait_for(self._wake, left)
            except TimeoutError:
                continue
            finally:
                self._wake = None
        return self._queue.popleft()

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class Events:
    """The one place where events are published."""

    def __init__(self, now: Callable[[], int] = time.time_ns) -> None:
        self.now = now
        self._recent: deque[Event] = deque(maxlen=_REMEMBERED)
        self._subscriptions: list[Subscription] = []
        self.published = 0
        """How many events there have been since the daemon started."""

    @property
    def subscribers(self) -> int:
        return len(self._subscriptions)

    @property
    def unread(self) -> int:
        """How many events subscribers have not read yet, all subscribers taken together."""
        return sum(subscription.unread for subscription in self._subscriptions)

    def publish(self, event: Event) -> None:
        """Tell every subscriber, now. Times never go backwards, so that replays keep the order."""
        stamp = event.time_ns or self.now()
        if self._recent and stamp <= self._recent[-1].time_ns:
            stamp = self._recent[-1].time_ns + 1
        event = msgspec.structs.replace(event, time_ns=stamp)
        self._recent.append(event)
        self.published += 1
        for subscription in list(self._subscriptions):
            subscription.offer(event)

    def about(self, container: Container, event: Event) -> None:
        """Publish what befell a container, or something for its sake. Of a build's steps nothing is told."""
        if not container.temporary:
            self.publish(event)

    def container(self, container: Container, action: str, /, **attributes: str) -> None:
        """Publish an event of a container: its labels, image and name, then ``attributes``."""
        self.about(
            container,
            Event(
                type=EventType.CONTAINER,
                action=action,
                actor_id=container.id,
                attributes={
                    **(container.config.labels or {}),
                    "image": container.config.image,
                    "name": container.name,
                    **attributes,
                },
            ),
        )

    def subscribe(self, since: int = 0, until: int = 0, filters: Filters | None = None) -> Subscription:
        """Events from ``since`` to ``until`` (nanoseconds since the epoch; 0: open).

        With neither, only what happens from now on; with ``until`` alone, all that is remembered before it.
        Registered when this returns. A filter that nobody knows keeps nothing back, as in Docker.
        """
        wanted = filters or Filters()
        replay = [
            event
            for event in self._recent
            if (since or until)
            and event.time_ns >= since
            and (not until or event.time_ns <= until)
            and matches(event, wanted)
        ]
        subscription = Subscription(self, replay, until=until, filters=wanted)
        if not until or until > self.now():
            self._subscriptions.append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def close(self) -> None:
        """End every subscription; the daemon is going down."""
        for subscription in list(self._subscriptions):
            subscription.close()


_EVERY_TYPE = ("container", "daemon", "network", "plugin", "volume", "node", "service", "secret", "config")
_WITH_DETAILS = frozenset(("exec_create", "exec_start", "health_status"))
"""Actions that carry more after a colon."""


def matches(event: Event, filters: Filters) -> bool:
    """Whether an event passes: an OR within each key, an AND between keys, labels all of them.

    As in dockerd, a name or id of a filter is the beginning of one, and what it names may be of any type:
    ``container=x`` also finds a volume called xy. Labels are looked for among all attributes.
    """
    if not filters:
        return True
    return (
        _accepts(filters, "type", event.type)
        and _accepts(filters, "scope", event.scope)
        and _accepts_action(filters, event.action)
        and filters.matches_labels(event.attributes)
        and all(_about(filters.get(key), event) for key in _EVERY_TYPE if key in filters)
        and _about_image(filters, event)
    )


def _accepts(filters: Filters, key: str, value: str) -> bool:
    return key not in filters or value in filters.get(key)


def _accepts_action(filters: Filters, action: str) -> bool:
    wanted = filters.get("event")
    if not wanted or action in wanted:
        return True
    # "exec_start: sh -c true" is found by its first word; then every word is the beginning of one.
    return not _WITH_DETAILS.isdisjoint(wanted) and action.startswith(wanted)


def _about(wanted: tuple[str, ...], event: Event) -> bool:
    return event.actor_id.startswith(wanted) or event.attributes.get("name", "").startswith(wanted)


def _about_image(filters: Filters, event: Event) -> bool:
    if "image" not in filters:
        return True
    key = "name" if event.type is EventType.IMAGE else "image"
    names = {event.actor_id, event.attributes.get(key, "")}
    names |= {_without_tag(name) for name in names}
    return not names.isdisjoint(filters.get("image"))


def _without_tag(name: str) -> str:
    """Docker's idea of a reference without its tag: what is none stays as it is."""
    head, slash, tail = name.rpartition("/")
    return head + slash + tail.partition("@")[0].partition(":")[0]
