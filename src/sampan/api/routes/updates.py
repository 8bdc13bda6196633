"""Changing a container's limits and restart policy while it lives."""

from __future__ import annotations

import msgspec

from sampan.api.request import Request
from sampan.api.responses import Answer, json_response
from sampan.api.routing import Route
from sampan.engine.facade import Engine
from sampan.engine.model import HostConfig


async def update(request: Request, engine: Engine) -> Answer:
    """POST /containers/{id}/update: limits, as in a HostConfig, and a RestartPolicy beside them."""
    asked = await request.json(HostConfig)
    changes: dict[str, object] = {}
    if request.version >= (1, 42):
        changes["kernel_memory"] = 0
    if request.version < (1, 40):
        changes["pids_limit"] = None
    elif asked.pids_limit is not None and asked.pids_limit <= 0:
        changes["pids_limit"] = 0  # every number that is none means no limit
    warnings = await engine.containers.update(request.name, msgspec.structs.replace(asked, **changes))
    return json_response({"Warnings": [*warnings]})


ROUTES = (Route("POST", "/containers/{id}/update", update),)
