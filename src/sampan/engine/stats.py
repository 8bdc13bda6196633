"""What containers use, now and every second, for whoever asks.

Theory: one task samples every watched container in one go, in a thread, while anybody watches and not else.
So a hundred watchers cost one wake-up a second. A reading is a sample with the one before it, because rates
are differences. Laws: a container that does not run has readings too, with nothing in them, as in Docker;
a watch ends when its container is removed; a slow reader gets the latest reading and misses those between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.runtime.usage import Target, Usage

if TYPE_CHECKING:
    from sampan.engine.settings import Settings
    from sampan.engine.store import ContainerStore, Instance

INTERVAL = 1.0  # seconds between two samples, as in Docker

_WITHOUT_INTERFACES = frozenset(("host", "none"))

Measure = Callable[[Mapping[str, Target]], Mapping[str, Usage]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """``at`` is nanoseconds since the epoch."""

    at: int
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """``now`` is None while the container does not run; ``before`` also when this is the first sample."""

    container_id: str
    name: str
    now: Sample | None = None
    before: Sample | None = None


class Watch:
    """An asynchronous iterator of the readings of one container. ``aclose`` it."""

    def __init__(self, statistics: Statistics, instance: Instance) -> None:
        self._statistics = statistics
        self.instance = instance
        self.last: Sample | None = None
        self._latest: Reading | None = None
        self._open = True
        self._wake = asyncio.Event()

    def offer(self, sample: Sample | None) -> None:
        """The next sample is here, or the container does not run."""
        self._latest = _reading(self.instance, sample, self.last)
        self.last = sample
        self._wake.set()

    def end(self) -> None:
        self._open = False
        self._wake.set()

    async def aclose(self) -> None:
        self.end()
        self._statistics.forget(self)

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Reading:
        while self._latest is None:
            if not self._open:
                self._statistics.forget(self)
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        reading, self._latest = self._latest, None
        return reading


class Statistics:
    """``measure`` blocks and is called in a thread; ``pause`` waits for the next sample's time."""

    def __init__(
        self,
        *,
        store: ContainerStore,
        measure: Measure,
        settings: Settings,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._measure = measure
        self._settings = settings
        self._pause = pause
        self._watches: list[Watch] = []
        self._sampler: asyncio.Task[None] | None = None

    @property
    def memory_total(self) -> int:
        """Bytes of the host's memory, which no container's limit exceeds."""
        return self._settings.facts.memory_total

    async def once(self, ref: str, *, with_rates: bool) -> Reading:
        """One reading; ``with_rates`` takes a second sample, an interval later, to compare with the first."""
        instance = self._store.find(ref)
        before = None
        if with_rates and instance.task is not None:
            before = await self._sample_one(instance)
            await self._pause(INTERVAL)
        return _reading(instance, await self._sample_one(instance), before)

    async def everything(self) -> dict[str, Sample]:
        """A sample of each container that runs, by its id."""
        return await self._samples({instance.id: instance for instance in self._store})

    def watch(self, ref: str) -> Watch:
        """Readings from now on, one every interval, the first at once if nobody else is watching."""
        watch = Watch(self, self._store.find(ref))
        self._watches.append(watch)
        if self._sampler is None:
            self._sampler = asyncio.get_running_loop().create_task(self._run())
        return watch

    def forget(self, watch: Watch) -> None:
        """A watch is over. Idempotent."""
        if watch in self._watches:
            self._watches.remove(watch)
        if not self._watches and self._sampler is not None:
            self._sampler.cancel()
            self._sampler = None

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + INTERVAL
            await self._serve()
            await self._pause(max(0.0, due - loop.time()))

    async def _serve(self) -> None:
        """Sample once for all watches."""
        for watch in [watch for watch in self._watches if watch.instance.removed]:
            self._watches.remove(watch)
            watch.end()
        samples = await self._samples({watch.instance.id: watch.instance for watch in self._watches})
        for watch in self._watches:
            watch.offer(samples.get(watch.instance.id))

    async def _sample_one(self, instance: Instance) -> Sample | None:
        return (await self._samples({instance.id: instance})).get(instance.id)

    async def _samples(self, instances: Mapping[str, Instance]) -> dict[str, Sample]:
        tasks = {key: held.task for key, held in instances.items() if held.task is not None}
        if not tasks:
            return {}
        targets = {
            key: Target(
                cgroup=task.cgroup,
                pid=task.pid,
                own_network=instances[key].container.host.network_mode not in _WITHOUT_INTERFACES,
            )
            for key, task in tasks.items()
        }
        found = await asyncio.to_thread(self._measure, targets)
        now = self._settings.now()
        # One that ended while it was measured has no usage; another run of it has another task.
        return {
            key: Sample(at=now, usage=usage)
            for key, usage in found.items()
            if instances[key].task is tasks[key]
        }


def _reading(instance: Instance, now: Sample | None, before: Sample | None) -> Reading:
    return Reading(
        container_id=instance.id,
        name=instance.container.name,
        now=now,
        before=before if now is not None else None,
    )
