"""What is counted about requests, and the page that Prometheus reads.

Theory: requests are counted as they are answered, by a guard that doors have only where metrics are asked
for; everything else is read from the engine when the page is asked for, so that it costs nothing between.

Law: the labels of a series are drawn from a bounded set: a route's pattern, never a path; a container's id
and name, while it is there.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from sampan.api.doors import route
from sampan.api.responses import Answer, Hijacked, Response
from sampan.api.routing import Route

if TYPE_CHECKING:
    from sampan.api.request import Request

# The daemon's own names for what its histograms tell apart (dockerd's metrics).
_ACTIONS = {
    ("POST", "/containers/create"): ("container", "create"),
    ("POST", "/containers/{name}/start"): ("container", "start"),
    ("DELETE", "/containers/{name}"): ("container", "delete"),
    ("GET", "/containers/{name}/changes"): ("container", "changes"),
    ("POST", "/commit"): ("container", "commit"),
    ("POST", "/networks/create"): ("network", "create"),
    ("DELETE", "/networks/{name}"): ("network", "delete"),
    ("POST", "/networks/{name}/connect"): ("network", "connect"),
    ("POST", "/networks/{name}/disconnect"): ("network", "disconnect"),
    ("DELETE", "/images/{name}"): ("image", "delete"),
    ("POST", "/images/{name}/push"): ("image", "push"),
}


class RequestMetrics:
    """A guard that counts. Streams count when their head is sent."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._began: dict[int, tuple[float, str]] = {}
        self._requests = Counter(
            "sampan_requests", "Requests answered", ("method", "route", "status"), registry=registry
        )
        self._seconds = Histogram(
            "sampan_request_seconds", "Time until the answer", ("method", "route"), registry=registry
        )
        self._actions = {
            what: Histogram(
                f"engine_daemon_{what}_actions_seconds",
                f"The number of seconds it takes to process each {what} action",
                ("action",),
                registry=registry,
            )
            for what in ("container", "network", "image")
        }

    @property
    def unanswered(self) -> int:
        """How many requests wait for their answer."""
        return len(self._began)

    async def before(self, request: Request) -> None:
        # The route now: a guard may have the handler find another name.
        self._began[request.number] = time.perf_counter(), route(request)

    async def after(self, request: Request, answer: Answer) -> Answer:
        began, pattern = self._began.pop(request.number)
        seconds = time.perf_counter() - began
        status = 101 if isinstance(answer, Hijacked) else answer.status
        self._requests.labels(request.method, pattern, str(status)).inc()
        self._seconds.labels(request.method, pattern).observe(seconds)
        action = _ACTIONS.get((request.method, pattern))
        if action is not None and status < 300:
            self._actions[action[0]].labels(action[1]).observe(seconds)
        return answer


Collect = Callable[[], Awaitable[list[Metric]]]


def page(registry: CollectorRegistry, collect: Collect) -> Route:
    """GET /metrics: what was counted, and what ``collect`` finds."""

    async def metrics(_request: Request, _engine: object) -> Answer:
        found = _Found(await collect())
        registry.register(found)
        try:
            body = generate_latest(registry)
        finally:
            registry.unregister(found)
        return Response(200, body, CONTENT_TYPE_LATEST)

    return Route("GET", "/metrics", metrics)


class _Found:
    """A collector of what is there already."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics

    def describe(self) -> list[Metric]:
        return []
