"""Networks."""

from __future__ import annotations

from typing import Any

import msgspec

from sampan.api.render.times import rfc3339
from sampan.api.request import Request
from sampan.api.responses import EMPTY, EMPTY_OK, Answer, json_response
from sampan.api.routing import Route
from sampan.engine.facade import Engine
from sampan.engine.model import EndpointSettings
from sampan.engine.networks import Member, Network, NetworkRequest


class JoinNetwork(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """Docker's NetworkConnectRequest, and its NetworkDisconnectRequest."""

    container: str = ""
    endpoint_config: EndpointSettings | None = None
    force: bool = False


def render(network: Network, version: tuple[int, int]) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "Name": network.name,
        "Id": network.id,
        "Created": rfc3339(network.created_ns),
        "Scope": "local",
        "Driver": network.driver,
    }
    if version >= (1, 47):
        shown["EnableIPv4"] = network.ipv4
    shown.update(
        {
            "EnableIPv6": network.ipv6,
            "IPAM": {
                "Driver": "default",
                "Options": network.ipam_options if network.custom else None,
                "Config": [msgspec.to_builtins(pool) for pool in network.pools],
            },
            "Internal": network.internal,
            "Attachable": network.attachable,
            "Ingress": False,
            "ConfigFrom": {"Network": network.config_from},
            "ConfigOnly": network.config_only,
            "Containers": {member.container_id: _member(member) for member in network.members},
            "Options": network.options,
            "Labels": network.labels,
        }
    )
    return shown


def _member(member: Member) -> dict[str, str]:
    return {
        "Name": member.name,
        "EndpointID": member.endpoint_id,
        "MacAddress": member.mac_address,
        "IPv4Address": member.ipv4_address,
        "IPv6Address": member.ipv6_address,
    }


def list_networks(request: Request, engine: Engine) -> Answer:
    """GET /networks"""
    found = engine.networks.list(request.query.filters())
    return json_response([render(network, request.version) for network in found])


def inspect(request: Request, engine: Engine) -> Answer:
    """GET /networks/{id}"""
    return json_response(render(engine.networks.get(request.name), request.version))


async def create(request: Request, engine: Engine) -> Answer:
    """POST /networks/create"""
    network = await engine.networks.create(await request.json(NetworkRequest))
    return json_response({"Id": network.id, "Warning": ""}, status=201)


async def remove(request: Request, engine: Engine) -> Answer:
    """DELETE /networks/{id}"""
    await engine.networks.remove(request.name)
    return EMPTY


async def connect(request: Request, engine: Engine) -> Answer:
    """POST /networks/{id}/connect"""
    asked = await request.json(JoinNetwork)
    await engine.connections.connect(
        request.name, asked.container, asked.endpoint_config or EndpointSettings()
    )
    return EMPTY_OK


async def disconnect(request: Request, engine: Engine) -> Answer:
    """POST /networks/{id}/disconnect"""
    asked = await request.json(JoinNetwork)
    await engine.connections.disconnect(request.name, asked.container, force=asked.force)
    return EMPTY_OK


async def prune(request: Request, engine: Engine) -> Answer:
    """POST /networks/prune"""
    removed = await engine.networks.prune(request.query.filters())
    return json_response({"NetworksDeleted": removed or None})


async def ports(_request: Request, engine: Engine) -> Answer:
    """GET /system/ports: who can reach which port, which Docker does not tell."""
    found = await engine.reach.ports()
    return json_response(
        [
            {
                "ContainerID": one.container_id,
                "Container": one.container,
                "Network": one.network,
                "Port": one.port,
                "Host": one.host,
                "ReachedBy": one.reached_by,
                "Why": one.why,
            }
            for one in found
        ]
    )


ROUTES = (
    Route("GET", "/system/ports", ports),
    Route("GET", "/networks", list_networks),
    Route("POST", "/networks/create", create),
    Route("POST", "/networks/prune", prune),
    Route("GET", "/networks/{name}", inspect),
    Route("DELETE", "/networks/{name}", remove),
    Route("POST", "/networks/{name}/connect", connect),
    Route("POST", "/networks/{name}/disconnect", disconnect),
)
