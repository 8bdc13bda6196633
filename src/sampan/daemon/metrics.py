"""What Prometheus is told of the engine: states, containers' usage, queues, and what the engine itself costs.

Names that dockerd has too are dockerd's, and mean what they mean there; the others begin with ``sampan_``.
All is read when it is asked for. Loaded only when ``metrics-addr`` is set.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from sampan.api.metrics import RequestMetrics, page
from sampan.api.server import Server
from sampan.engine.model import Status
from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from sampan.daemon.wiring import Wiring
    from sampan.engine.stats import Sample
    from sampan.engine.system import SystemInfo

_PAUSED, _RUNNING, _STOPPED = "paused", "running", "stopped"


class Metrics:
    """The page, and the guard that counts the requests of ``server``."""

    def __init__(self, wiring: Wiring, server: Server) -> None:
        self._wiring = wiring
        self._server = server
        registry = CollectorRegistry()
        self.guard = RequestMetrics(registry)
        self._page = Server(None, (page(registry, self._collect),))

    async def listen(self, address: str) -> None:
        """Serve the page on ``HOST:PORT``. Raises InvalidArgument for another form."""
        host, _, port = address.rpartition(":")
        if not port.isdecimal() or int(port) > 65535:
            raise InvalidArgument(f"invalid metrics-addr: {address}; use HOST:PORT")
        await self._page.listen_tcp(host.strip("[]") or "127.0.0.1", int(port), rules=None)

    async def close(self) -> None:
        await self._page.close(grace=0)

    async def _collect(self) -> list[Metric]:
        wiring, engine = self._wiring, self._wiring.engine
        samples = await engine.statistics.everything()
        costs = await asyncio.to_thread(_costs, wiring.zygote_pid())
        info = engine.system.info()
        names = {container.id: container.name for container in engine.system.containers()}
        return [
            *_about(info),
            self._states(),
            _counter("engine_daemon_events", "Events logged", engine.events.published),
            _gauge(
                "engine_daemon_events_subscribers_total", "Current subscribers", engine.events.subscribers
            ),
            _gauge("sampan_images", "Images", info.images),
            _gauge("sampan_connections", "Open connections to the API", self._server.connections),
            _queues({**wiring.queues(), "requests": self.guard.unanswered}),
            *costs,
            *_usage((key, names.get(key, ""), sample) for key, sample in samples.items()),
        ]

    def _states(self) -> Metric:
        names = {Status.RUNNING: _RUNNING, Status.PAUSED: _PAUSED}
        count = Counter(names.get(status, _STOPPED) for status in self._wiring.engine.system.statuses())
        family = GaugeMetricFamily(
            "engine_daemon_container_states_containers",
            "The count of containers in various states",
            labels=("state",),
        )
        for state in (_PAUSED, _RUNNING, _STOPPED):
            family.add_metric((state,), count[state])
        return family


def _queues(lengths: Mapping[str, int]) -> Metric:
    """Containers being started and removed, layers being unpacked, changes of the state to be written, events
    that nobody has read yet, requests to be answered: those under way and those that wait."""
    family = GaugeMetricFamily("sampan_queue_length", "Work that waits or is under way", labels=("queue",))
    for queue, length in lengths.items():
        family.add_metric((queue,), length)
    return family


def _about(info: SystemInfo) -> Iterable[Metric]:
    described = {
        "architecture": info.architecture,
        "daemon_id": info.id,
        "graphdriver": info.driver,
        "kernel": info.kernel_version,
        "os": info.operating_system,
        "os_type": "linux",
        "os_version": info.os_version,
        "version": info.server_version,
    }
    family = GaugeMetricFamily(
        "engine_daemon_engine_info",
        "The information related to the engine and the OS it is running on",
        labels=tuple(described),
    )
    family.add_metric(tuple(described.values()), 1)
    yield family
    yield _gauge(
        "engine_daemon_engine_cpus_cpus",
        "The number of cpus that the host system of the engine has",
        info.cpu_count,
    )
    yield _gauge(
        "engine_daemon_engine_memory_bytes",
        "The number of bytes of memory that the host system of the engine has",
        info.memory_total,
    )


def _usage(samples: Iterable[tuple[str, str, Sample]]) -> list[Metric]:
    """One series a container and quantity."""
    labels = ("id", "name")
    seconds = CounterMetricFamily("sampan_container_cpu_seconds", "Processor time", labels=labels)
    memory = GaugeMetricFamily("sampan_container_memory_bytes", "Memory, page cache included", labels=labels)
    processes = GaugeMetricFamily("sampan_container_processes", "Processes and threads", labels=labels)
    received = CounterMetricFamily("sampan_container_received_bytes", "Network, in", labels=labels)
    sent = CounterMetricFamily("sampan_container_sent_bytes", "Network, out", labels=labels)
    for key, name, sample in samples:
        group, networks = sample.usage.group, sample.usage.networks.values()
        for family, value in (
            (seconds, group.cpu_total / 1e9),
            (memory, group.memory_usage),
            (processes, group.pids),
            (received, sum(traffic.rx_bytes for traffic in networks)),
            (sent, sum(traffic.tx_bytes for traffic in networks)),
        ):
            family.add_metric((key, name), value)
    return [seconds, memory, processes, received, sent]


def _costs(zygote: int) -> list[Metric]:
    """What the engine's processes take: the daemon, the zygote, and keepers with whom else it started."""
    kinds = {"daemon": [os.getpid()], "zygote": [zygote] if zygote else [], "keeper": _children(zygote)}
    memory = GaugeMetricFamily(
        "sampan_process_memory_bytes",
        "Memory of the engine's processes: private, and their share of what they have in common",
        labels=("process",),
    )
    count = GaugeMetricFamily("sampan_processes", "The engine's processes", labels=("process",))
    for kind, pids in kinds.items():
        shares = [share for pid in pids if (share := _share(pid)) is not None]
        memory.add_metric((kind,), sum(shares))
        count.add_metric((kind,), len(shares))
    descriptors = _gauge(
        "sampan_open_descriptors", "Descriptors of the daemon", len(os.listdir("/proc/self/fd"))
    )
    return [memory, count, descriptors]


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(child) for child in file.read().split()]
    except OSError:
        return []


def _share(pid: int) -> int | None:
    """Bytes of proportional set size (proc_pid_smaps(5)); None once the process is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            line = next(line for line in file if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) * 1024


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=value)


def _counter(name: str, words: str, value: float) -> Metric:
    return CounterMetricFamily(name, words, value=value)
