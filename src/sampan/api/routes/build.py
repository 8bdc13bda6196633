"""Building images: the classic API, as DOCKER_BUILDKIT=0, docker-py and compose speak it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from sampan import errors
from sampan.api.errors import with_prefix
from sampan.api.params import Query
from sampan.api.request import Request
from sampan.api.responses import JSON, Answer, Stream, json_response, progress
from sampan.api.routing import Route
from sampan.engine.builds import BuildOptions, Built
from sampan.engine.facade import Engine
from sampan.engine.model import HostConfig
from sampan.errors import InvalidArgument
from sampan.registry import credentials
from sampan.spec import reference as references


async def build(request: Request, engine: Engine) -> Answer:
    """POST /build?t=&dockerfile=&buildargs=&…"""
    options = _options(request)
    if request.query.text("remote"):
        raise errors.NotImplemented(
            "building from a remote context is not offered by this engine: send the files"
        )
    messages = engine.builds.build(request.body(), options)
    return Stream(progress(_messages(messages)), JSON)


async def _messages(messages: AsyncIterator[str | Built]) -> AsyncIterator[Any]:
    async for message in messages:
        if isinstance(message, Built):
            yield {"aux": {"ID": message.image_id}}
        elif message:
            yield {"stream": message}


def _options(request: Request) -> BuildOptions:
    query = request.query
    if query.text("version") == "2":
        raise errors.NotImplemented(
            "building with BuildKit is not offered by this engine: set DOCKER_BUILDKIT=0, or use sampan"
        )
    if query.flag("squash"):
        raise errors.NotImplemented(
            "squash is not offered by this engine: use a stage of its own and COPY --from"
        )
    return BuildOptions(
        dockerfile=query.text("dockerfile") or "Dockerfile",
        names=tuple(references.parse(name).tagged() for name in query.texts("t") if name),
        target=query.text("target"),
        arguments={name: value for name, value in _texts(query, "buildargs").items() if value is not None},
        labels={name: value or "" for name, value in _texts(query, "labels").items()},
        platform=query.text("platform"),
        no_cache=query.flag("nocache"),
        pull=query.flag("pull"),
        quiet=query.flag("q"),
        host=_host(query),
        credentials={
            _server(name): credentials.from_document(who)
            for name, who in _registry_config(request.header("x-registry-config")).items()
        },
    )


def _host(query: Query) -> HostConfig:
    return HostConfig(
        network_mode=query.text("networkmode") or "default",
        extra_hosts=tuple(query.texts("extrahosts")) or None,
        memory=query.integer("memory", 0) or 0,
        memory_swap=query.integer("memswap", 0) or 0,
        cpu_shares=query.integer("cpushares", 0) or 0,
        cpu_period=query.integer("cpuperiod", 0) or 0,
        cpu_quota=query.integer("cpuquota", 0) or 0,
        cpuset_cpus=query.text("cpusetcpus"),
        cpuset_mems=query.text("cpusetmems"),
        shm_size=query.integer("shmsize", 0) or 0,
        cgroup_parent=query.text("cgroupparent"),
    )


def _texts(query: Query, name: str) -> dict[str, str | None]:
    text = query.text(name)
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid {name}: {error}") from None
    valid = isinstance(found, dict) and all(isinstance(one, str | None) for one in found.values())
    if not valid:
        raise InvalidArgument(f"invalid {name}: not an object of texts")
    return dict(found)


def _registry_config(header: str) -> dict[str, Any]:
    """``X-Registry-Config``: credentials by registry."""
    return credentials.decode_object(header)


def _server(name: str) -> str:
    host = (name.partition("://")[2] or name).partition("/")[0]
    return "docker.io" if host in ("index.docker.io", "registry-1.docker.io") else host


_CACHE_WORDS = "until unused-for label label! id parent type description inuse shared private"
_CACHE_FILTERS = frozenset(_CACHE_WORDS.split())


async def prune(request: Request, engine: Engine) -> Answer:
    """POST /build/prune"""
    filters = request.query.filters()
    try:
        filters.accept(_CACHE_FILTERS)
    except InvalidArgument as error:
        raise with_prefix("failed to prune build cache: ", error) from None
    keys, freed = await engine.build_cache.forget()
    return json_response({"CachesDeleted": keys or None, "SpaceReclaimed": freed})


ROUTES = (Route("POST", "/build", build), Route("POST", "/build/prune", prune))
