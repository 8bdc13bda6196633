"""Which handler answers which request.

How to add a module of routes (``api/routes/things.py``):

    async def inspect(request: Request, engine: Engine) -> Answer:
        return json_response(render(engine.things.get(request.name)))

    ROUTES = (
        Route("GET", "/things", list_things),
        Route("GET", "/things/{name}/json", inspect),
    )

and name its ``ROUTES`` in ``api/routes/__init__.py``. A handler

- takes the `Request` and the engine's facade, returns one of the answers of `api/responses.py`;
- may be a plain function when it awaits nothing: it is then answered in the same turn of the loop;
- raises the kinds of `sampan/errors.py`, which `api/errors.py` turns into status and ``{"message": …}``;
- reads parameters with ``request.query`` (`Query.flag`, `.text`, `.integer`, `.filters`), a JSON body with
  ``await request.json(Struct)``, a stream with ``async for piece in request.body()``;
- is not cancelled when its client goes away (what was begun is finished); a `Stream`'s source is closed.

Patterns are literal but for at most one ``{name}``, whose value (``request.name``, percent-decoded) may
contain slashes as image names do: ``/images/{name}/json``. Literal paths win over patterns, longer endings
over shorter ones. The version prefix ``/v1.41`` is taken off before. As in Docker, a known path with another
method is "page not found" like an unknown one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from sampan.api.request import Request
from sampan.api.responses import Answer
from sampan.errors import InvalidArgument, NotFound

MINIMUM_VERSION = (1, 24)
DEFAULT_VERSION = (1, 56)

Handler: TypeAlias = Callable[[Request, Any], Answer | Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path."""

    method: str
    pattern: str
    handler: Handler


class PageNotFound(NotFound):
    """No such path, or not with this method."""

    def __init__(self) -> None:
        super().__init__("page not found")


class Router:
    """Finds the handler of a request; built once from all routes."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._literal: dict[str, dict[str, Handler]] = {}
        self._endings: dict[str, dict[str, dict[str, Handler]]] = {}
        for route in routes:
            head, brace, tail = route.pattern.partition("{")
            if brace:
                ending = tail.partition("}")[2]
                if ending.count("/") > 2 or head.count("/") != 2:
                    raise ValueError(f"unsupported pattern: {route.pattern}")
                methods = self._endings.setdefault(head, {}).setdefault(ending, {})
            else:
                methods = self._literal.setdefault(route.pattern, {})
            if route.method in methods:
                raise ValueError(f"two routes for {route.method} {route.pattern}")
            methods[route.method] = route.handler

    def find(self, method: str, path: str) -> tuple[Handler, str]:
        """The handler and the value of {name} ("" for a literal path). Raises PageNotFound."""
        handler = self._literal.get(path, _NONE).get(method)
        if handler is not None:
            return handler, ""
        slash = path.find("/", 1) + 1
        endings = self._endings.get(path[:slash]) if slash else None
        if endings:
            rest = path[slash:]
            for cut in _cuts(rest):
                handler = endings.get(rest[cut:], _NONE).get(method)
                if handler is not None and cut:
                    return handler, rest[:cut]
        raise PageNotFound


_NONE: Mapping[str, Handler] = {}


def _cuts(rest: str) -> tuple[int, ...]:
    """Where ``rest`` may be cut into a name and an ending of two, one or no segments."""
    last = rest.rfind("/")
    if last < 0:
        return (len(rest),)
    before = rest.rfind("/", 0, last)
    return (before, last, len(rest)) if before > 0 else (last, len(rest))


_VERSIONS: dict[str, tuple[int, int]] = {}


def split_version(path: str) -> tuple[tuple[int, int], str]:
    """Take the version prefix off a path; without one the newest version is meant.

    Raises InvalidArgument in Docker's words for a version that is too old or too new.
    """
    if path[1:2] != "v" or not path[2:3].isdigit():
        return DEFAULT_VERSION, path
    end = path.find("/", 1)
    if end < 0:
        return DEFAULT_VERSION, path
    given = path[2:end]
    version = _VERSIONS.get(given)
    if version is None:
        version = _check_version(given)
        if len(_VERSIONS) < 100:
            _VERSIONS[given] = version
    return version, path[end:]


def _check_version(given: str) -> tuple[int, int]:
    major, _, minor = given.partition(".")
    if not (major.isdecimal() and minor.isdecimal() and given.isascii() and len(given) < 12):
        raise PageNotFound
    version = (int(major), int(minor))
    if version < MINIMUM_VERSION:
        raise InvalidArgument(
            f"client version {given} is too old. Minimum supported API version is {show(MINIMUM_VERSION)}, "
            "please upgrade your client to a newer version"
        )
    if version > DEFAULT_VERSION:
        raise InvalidArgument(
            f"client version {given} is too new. Maximum supported API version is {show(DEFAULT_VERSION)}"
        )
    return version


def show(version: tuple[int, int]) -> str:
    """``1.41``."""
    return f"{version[0]}.{version[1]}"
