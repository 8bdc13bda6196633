"""The keeper's loop: descriptors and timers."""

from __future__ import annotations

import os

from sampan.sandbox.loop import READ, Loop


def test_timers_fire_in_their_turn_and_what_is_cancelled_never() -> None:
    loop = Loop()
    told: list[str] = []

    def last() -> None:
        told.append("late")
        loop.stop()

    loop.after(0.02, last)
    loop.after(0.0, lambda: told.append("soon"))
    cancelled = loop.after(0.01, lambda: told.append("never"))
    loop.after(0.005, cancelled.cancel)
    loop.run()
    assert told == ["soon", "late"]
    cancelled.cancel()  # again, and too late: nothing happens


def test_what_is_late_fires_in_the_order_of_its_time() -> None:
    loop = Loop()
    told: list[str] = []
    loop.after(-1.0, lambda: told.append("second"))
    loop.after(-2.0, lambda: told.append("first"))
    loop.after(0.0, loop.stop)
    loop.run()
    assert told == ["first", "second"]


def test_descriptors_are_served_while_a_timer_is_far() -> None:
    loop = Loop()
    ours, theirs = os.pipe()
    loop.after(3600, lambda: os._exit(1))
    loop.watch(ours, READ, lambda _events: loop.stop())
    os.write(theirs, b"x")
    loop.run()
    os.close(ours)
    os.close(theirs)
