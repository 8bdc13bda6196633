"""Publishing, replaying and filtering events."""

from __future__ import annotations

import asyncio

import pytest

from sampan.engine.events import Events, matches
from sampan.engine.model import Event, EventType, Filters


class Clock:
    def __init__(self) -> None:
        self.time = 1000

    def __call__(self) -> int:
        return self.time


def event(action: str, **attributes: str) -> Event:
    return Event(type=EventType.CONTAINER, action=action, actor_id="ab" * 32, attributes=attributes)


async def actions(subscription: object) -> list[str]:
    return [found.action async for found in subscription]  # type: ignore[attr-defined]


async def test_subscribers_see_everything_in_order_once() -> None:
    events = Events(Clock())
    first, second = events.subscribe(), events.subscribe()
    reading = asyncio.create_task(actions(first))
    for action in ("create", "start", "die"):
        events.publish(event(action))
        await asyncio.sleep(0)
    assert events.unread >= 3
    events.close()
    assert await reading == ["create", "start", "die"]
    assert await actions(second) == ["create", "start", "die"]
    assert events.subscribers == 0


async def test_times_are_unique_and_grow_even_when_the_clock_does_not() -> None:
    events = Events(Clock())
    subscription = events.subscribe()
    for _ in range(3):
        events.publish(event("x"))
    events.close()
    assert [found.time_ns async for found in subscription] == [1000, 1001, 1002]


async def test_replay_from_since_to_until() -> None:
    clock = Clock()
    events = Events(clock)
    for number in range(10):
        clock.time = 1000 + 10 * number
        events.publish(event(str(number)))
    assert await actions(events.subscribe(since=1020, until=1050)) == ["2", "3", "4", "5"]
    assert events.subscribers == 0
    live = events.subscribe(since=1080)
    events.publish(event("new"))
    events.close()
    assert await actions(live) == ["8", "9", "new"]


async def test_without_since_only_what_comes_is_seen() -> None:
    events = Events(Clock())
    events.publish(event("old"))
    subscription = events.subscribe()
    events.publish(event("new"))
    events.close()
    assert await actions(subscription) == ["new"]


async def test_until_alone_replays_what_is_remembered() -> None:
    events = Events(Clock())
    events.publish(event("old"))
    told = events.subscribe(until=events.now())
    assert await actions(told) == ["old"]


async def test_until_in_the_future_ends_by_itself() -> None:
    clock = Clock()
    events = Events(clock)
    subscription = events.subscribe(until=clock.time + 1_000_000)
    reading = asyncio.create_task(actions(subscription))
    await asyncio.sleep(0)
    events.publish(event("in time"))
    clock.time += 2_000_000
    events.publish(event("late"))
    assert await reading == ["in time"]


async def test_a_closed_subscription_is_forgotten() -> None:
    events = Events(Clock())
    subscription = events.subscribe()
    reading = asyncio.create_task(actions(subscription))
    await asyncio.sleep(0)
    await subscription.aclose()
    assert await reading == []
    assert events.subscribers == 0


START = event("start", image="nginx:1.25", name="web", tier="front")
EXEC = event("exec_start: sh -c true", image="nginx:1.25", name="web", execID="1")
CONNECT = Event(
    type=EventType.NETWORK,
    action="connect",
    actor_id="cd" * 32,
    attributes={"container": "ab" * 32, "name": "bridge", "type": "bridge"},
)
PULL = Event(type=EventType.IMAGE, action="pull", actor_id="nginx:1.25", attributes={"name": "nginx"})


@pytest.mark.parametrize(
    ("filters", "seen"),
    [
        ({}, [START, EXEC, CONNECT, PULL]),
        ({"type": ("container",)}, [START, EXEC]),
        ({"type": ("network", "image")}, [CONNECT, PULL]),
        ({"event": ("start",)}, [START]),
        ({"event": ("exec_start",)}, [EXEC]),
        ({"event": ("exec_start: sh -c true",)}, [EXEC]),
        ({"container": ("web",)}, [START, EXEC]),
        ({"event": ("exec_",)}, []),
        ({"event": ("exec_start", "star")}, [START, EXEC]),
        ({"container": ("abab",)}, [START, EXEC]),
        ({"container": ("w",)}, [START, EXEC]),
        ({"container": ("bri",)}, [CONNECT]),
        ({"container": ("other",)}, []),
        ({"container": ("other", "web")}, [START, EXEC]),
        ({"container": ("web",), "type": ("network",)}, []),
        ({"network": ("bridge",)}, [CONNECT]),
        ({"volume": ("cd",)}, [CONNECT]),
        ({"node": ("nginx",)}, [PULL]),
        ({"image": ("nginx",)}, [START, EXEC, PULL]),
        ({"image": ("nginx:1.25",)}, [START, EXEC, PULL]),
        ({"image": ("nginx:1.26",)}, []),
        ({"image": ("ngin",)}, []),
        ({"label": ("tier",)}, [START]),
        ({"label": ("type=bridge",)}, [CONNECT]),
        ({"label": ("tier=front",)}, [START]),
        ({"label": ("tier=back",)}, []),
        ({"scope": ("local",)}, [START, EXEC, CONNECT, PULL]),
        ({"scope": ("swarm",)}, []),
        ({"service": ("x",)}, []),
    ],
)
def test_filters(filters: dict[str, tuple[str, ...]], seen: list[Event]) -> None:
    wanted = Filters(filters)
    assert [one for one in (START, EXEC, CONNECT, PULL) if matches(one, wanted)] == seen


async def test_an_unknown_filter_keeps_nothing_back() -> None:
    events = Events()
    events.publish(Event(type=EventType.VOLUME, action="create", actor_id="v"))
    told = events.subscribe(since=1, until=events.now(), filters=Filters({"odd": ("1",)}))
    assert [event.actor_id async for event in told] == ["v"]
