"""What goes on inside a container: what it uses, and its processes."""

from __future__ import annotations

from sampan.api.render.stats import stats as render
from sampan.api.request import Request
from sampan.api.responses import JSON, Answer, Rendered, Stream, json_line, json_response
from sampan.api.routing import Route
from sampan.engine.facade import Engine
from sampan.engine.stats import Reading
from sampan.errors import InvalidArgument


async def stats(request: Request, engine: Engine) -> Answer:
    """GET /containers/{id}/stats?stream=&one-shot=: a document a second, or one.

    ``one-shot`` does without a second sample to compare with; not before 1.41.
    """
    query, version = request.query, request.version
    streaming = query.flag("stream", default=True)
    one_shot = version >= (1, 41) and query.flag("one-shot")
    if streaming and one_shot:
        raise InvalidArgument("cannot have stream=true and one-shot=true")
    statistics = engine.statistics
    total = statistics.memory_total
    if not streaming:
        reading = await statistics.once(request.name, with_rates=not one_shot)
        return json_response(render(reading, version, memory_total=total))

    def line(reading: Reading) -> bytes:
        return json_line(render(reading, version, memory_total=total))

    return Stream(Rendered(statistics.watch(request.name), line), JSON)


async def top(request: Request, engine: Engine) -> Answer:
    """GET /containers/{id}/top?ps_args="""
    table = await engine.processes.top(request.name, request.query.text("ps_args"))
    return json_response({"Processes": table.rows, "Titles": table.titles})


ROUTES = (
    Route("GET", "/containers/{id}/stats", stats),
    Route("GET", "/containers/{id}/top", top),
)
