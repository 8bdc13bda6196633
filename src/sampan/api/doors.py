"""Doors: where requests come in, who comes in there, and what guards ask before a request is answered.

Theory: a listening socket is a door with guards of its own, in their order: one that lets only readers in,
one that writes down who did what, one that asks a plugin. A door without guards costs its requests nothing.

Laws: a guard that refuses raises; the handler has not begun then. Guards are told of every answer, refusals
included, in reverse order; what one answers instead is what the client gets. A client that goes away before
its body is complete gets no answer, but guards are told one: something may have been done by then.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sampan.api.errors import BodyAborted, error_response, message_response
from sampan.api.responses import Answer, Hijacked, Response, Stream
from sampan.errors import Forbidden

if TYPE_CHECKING:
    from sampan.api.request import Request
    from sampan.api.routing import Handler

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid; unix(7), SO_PEERCRED


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who is on the other side, as far as the kernel or TLS vouch for it.

    ``uid``, ``gid`` and ``pid`` are those of the process that connected to a Unix socket, -1 for TCP;
    ``address`` is ``HOST:PORT`` of a TCP client, ``name`` the common name in its certificate; else "".
    """

    uid: int = -1
    gid: int = -1
    pid: int = -1
    address: str = ""
    name: str = ""


class Guard(Protocol):
    """What a door asks of its requests."""

    async def before(self, request: Request) -> None:
        """Raise (`Forbidden`, mostly) to refuse the request."""

    async def after(self, request: Request, answer: Answer) -> Answer:
        """The answer that the client gets, ``answer`` as a rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """One listening address, as the daemon was given it, and its guards."""

    name: str = ""
    guards: Sequence[Guard] = ()


OPEN = Door()


def caller(sock: Any) -> Caller:
    """The peer of a connected socket."""
    if sock.family == socket.AF_UNIX:
        pid, uid, gid = _CREDENTIALS.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        return Caller(uid=uid, gid=gid, pid=pid)
    try:
        return Caller(address=address(sock.getpeername()))
    except OSError:
        return Caller()  # gone already


def address(peer: Any) -> str:
    """``HOST:PORT`` of what getpeername gives."""
    host, port = peer[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def route(request: Request) -> str:
    """The pattern of the request's path: ``/containers/{name}/start``."""
    if not request.name:
        return request.path
    first, _, rest = request.path.lstrip("/").partition("/")
    # A name may have as many segments as it likes; its decoded form has no fewer.
    ending = rest.split("/")[request.name.count("/") + 1 :]
    return "/".join(("", first, "{name}", *ending))


async def guarded(handler: Handler, request: Request, engine: Any, guards: Sequence[Guard]) -> Answer:
    """Answer the request if no guard refuses it."""
    answer: Answer | Awaitable[Answer]
    aborted: BodyAborted | None = None
    try:
        for guard in guards:
            await guard.before(request)
        answer = handler(request, engine)
        if not isinstance(answer, (Response, Stream, Hijacked)):
            answer = await answer
    except BodyAborted as error:
        aborted = error
        answer = message_response(400, str(error))
    except Exception as error:
        answer = error_response(error, request.number)
    for guard in reversed(guards):
        try:
            answer = await guard.after(request, answer)
        except Exception as error:
            answer = error_response(error, request.number)
    if aborted is not None:
        raise aborted
    return answer


def changes(request: Request) -> bool:
    """Whether it may change something. Attaching by WebSocket is a GET, and writes to a container; so is
    exporting a volume, for which the containers that use it stand still."""
    if request.method not in ("GET", "HEAD") or request.path.endswith("/attach/ws"):
        return True
    return request.path.startswith("/sampan-volumes/") and request.query.flag("pause", default=True)


class ReadersOnly:
    """Lets in what changes nothing."""

    async def before(self, request: Request) -> None:
        if changes(request):
            raise Forbidden(
                f"{request.method} {request.path} is not allowed on this socket: it is for reading only; "
                "use another one"
            )

    async def after(self, _request: Request, answer: Answer) -> Answer:
        return answer
