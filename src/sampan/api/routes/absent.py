"""What Docker's API has and this engine does not offer: said in one line, with the status Docker has for it.

Swarm's objects answer as on a node that is in no swarm, which is what clients (`docker info`, compose) ask
for; the rest is 501. A row leaves this table when its feature arrives.
"""

from __future__ import annotations

from sampan import errors
from sampan.api.request import Request
from sampan.api.responses import Answer, json_response
from sampan.api.routing import Handler, Route
from sampan.errors import NotFound, Unavailable


def _absent(feature: str) -> Handler:
    def handler(_request: Request, _engine: object) -> Answer:
        raise errors.NotImplemented(f"{feature} is not offered by this engine")

    return handler


def _no_swarm(_request: Request, _engine: object) -> Answer:
    raise Unavailable(
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this '
        "node to swarm and try again."
    )


def _not_in_swarm(_request: Request, _engine: object) -> Answer:
    raise Unavailable("This node is not part of a swarm")


def _no_plugins(_request: Request, _engine: object) -> Answer:
    return json_response([])


def _no_plugin(request: Request, _engine: object) -> Answer:
    raise NotFound(f'plugin "{request.name}" not found')


SWARM = (
    "GET /swarm",
    "POST /swarm/update",
    "GET /swarm/unlockkey",
    "POST /swarm/unlock",
    "GET /nodes",
    "GET /nodes/{id}",
    "DELETE /nodes/{id}",
    "POST /nodes/{id}/update",
    "GET /services",
    "POST /services/create",
    "GET /services/{id}",
    "DELETE /services/{id}",
    "POST /services/{id}/update",
    "GET /services/{id}/logs",
    "GET /tasks",
    "GET /tasks/{id}",
    "GET /tasks/{id}/logs",
    "GET /secrets",
    "POST /secrets/create",
    "GET /secrets/{id}",
    "DELETE /secrets/{id}",
    "POST /secrets/{id}/update",
    "GET /configs",
    "POST /configs/create",
    "GET /configs/{id}",
    "DELETE /configs/{id}",
    "POST /configs/{id}/update",
    "PUT /volumes/{name}",
)

PLUGIN = (
    "GET /plugins/{name}/json",
    "DELETE /plugins/{name}",
    "POST /plugins/{name}/enable",
    "POST /plugins/{name}/disable",
    "POST /plugins/{name}/upgrade",
    "POST /plugins/{name}/push",
    "POST /plugins/{name}/set",
)

ABSENT = {
    "POST /swarm/init": "swarm mode",
    "POST /swarm/join": "swarm mode",
    "GET /plugins/privileges": "installing plugins",
    "POST /plugins/pull": "installing plugins",
    "POST /plugins/create": "creating plugins",
    "GET /images/{name}/attestations": "reading attestations",
    "POST /build/cancel": "building images",
    "POST /session": "building with BuildKit",
    "POST /grpc": "building with BuildKit",
    "GET /containers/{id}/checkpoints": "checkpointing",
    "POST /containers/{id}/checkpoints": "checkpointing",
}


def _route(line: str, handler: Handler) -> Route:
    method, _, pattern = line.partition(" ")
    return Route(method, pattern, handler)


ROUTES = (
    *(_route(line, _no_swarm) for line in SWARM),
    _route("POST /swarm/leave", _not_in_swarm),
    _route("GET /plugins", _no_plugins),
    *(_route(line, _no_plugin) for line in PLUGIN),
    *(_route(line, _absent(feature)) for line, feature in ABSENT.items()),
)
