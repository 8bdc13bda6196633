"""Networks."""

from __future__ import annotations

from typing import Any

import msgspec

from sampan.api.render.times import rfc3339
from sampan.api.request import Request
from sampan.api.responses import EMPTY, Answer, json_response
from sampan.api.routing import Route
from sampan.engine.facade import Engine
from sampan.engine.networks import Member, Network


class CreateNetwork(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """The part of Docker's NetworkCreateRequest that is looked at so far."""

    name: str = ""


class JoinNetwork(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """The part of Docker's NetworkConnectRequest that is looked at so far."""

    container: str = ""


def render(network: Network, version: tuple[int, int]) -> dict[str, Any]:
    config = [{"Subnet": network.subnet, "Gateway": network.gateway}] if network.subnet else []
    shown: dict[str, Any] = {
        "Name": network.name,
        "Id": network.id,
        "Created": rfc3339(network.created_ns),
        "Scope": "local",
        "Driver": network.driver,
    }
    if version >= (1, 47):
        shown["EnableIPv4"] = True
    shown.update(
        {
            "EnableIPv6": False,
            "IPAM": {"Driver": "default", "Options": None, "Config": config},
            "Internal": False,
            "Attachable": False,
            "Ingress": False,
            "ConfigFrom": {"Network": ""},
            "ConfigOnly": False,
            "Containers": {member.container_id: _member(member) for member in network.members},
            "Options": network.options,
            "Labels": {},
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
    asked = await request.json(CreateNetwork)
    network = await engine.networks.create(asked.name)
    return json_response({"Id": network.id, "Warning": ""}, status=201)


async def remove(request: Request, engine: Engine) -> Answer:
    """DELETE /networks/{id}"""
    await engine.networks.remove(request.name)
    return EMPTY


async def connect(request: Request, engine: Engine) -> Answer:
    """POST /networks/{id}/connect"""
    await request.json(JoinNetwork)
    await engine.networks.connect(request.name)
    return EMPTY


async def disconnect(request: Request, engine: Engine) -> Answer:
    """POST /networks/{id}/disconnect"""
    await request.json(JoinNetwork)
    await engine.networks.disconnect(request.name)
    return EMPTY


async def prune(request: Request, engine: Engine) -> Answer:
    """POST /networks/prune"""
    removed = await engine.networks.prune(request.query.filters())
    return json_response({"NetworksDeleted": removed or None})


ROUTES = (
    Route("GET", "/networks", list_networks),
    Route("POST", "/networks/create", create),
    Route("POST", "/networks/prune", prune),
    Route("GET", "/networks/{name}", inspect),
    Route("DELETE", "/networks/{name}", remove),
    Route("POST", "/networks/{name}/connect", connect),
    Route("POST", "/networks/{name}/disconnect", disconnect),
)
