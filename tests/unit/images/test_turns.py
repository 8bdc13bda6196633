from __future__ import annotations

import asyncio

from sampan.images.turns import Turns


async def _one(turns: Turns, name: str, inside: list[str], most: list[int]) -> None:
    async with turns.of(name):
        inside.append(name)
        most.append(inside.count(name))
        await asyncio.sleep(0)
        inside.remove(name)


def test_one_at_a_time_also_when_a_lock_changes_hands() -> None:
    async def work() -> None:
        turns, inside, most = Turns(), list[str](), list[int]()
        first = [asyncio.create_task(_one(turns, "a", inside, most)) for _ in range(3)]
        while any(not task.done() for task in first):
            # Newcomers at every turn of the loop, those included in which the lock is handed on.
            first.append(asyncio.create_task(_one(turns, "a", inside, most)))
            await asyncio.sleep(0)
            if len(first) > 50:
                await asyncio.gather(*first)
        assert set(most) == {1}
        assert len(turns) == 0

    asyncio.run(work())


def test_others_are_not_waited_for() -> None:
    async def work() -> None:
        turns = Turns()
        async with turns.of("a"), turns.of("b"):
            assert len(turns) == 2
        assert len(turns) == 0

    asyncio.run(work())


def test_who_gives_up_waiting_leaves_nothing() -> None:
    async def work() -> None:
        turns = Turns()
        async with turns.of("a"):
            waiting = asyncio.create_task(_one(turns, "a", [], []))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert len(turns) == 1
        assert len(turns) == 0

    asyncio.run(work())
