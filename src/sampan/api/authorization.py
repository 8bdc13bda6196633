"""Plugins that are asked whether a request may be answered, and then whether its answer may be sent.

Docker's protocol (`docs.docker.com/engine/extend/plugins_authorization`): POST to /AuthZPlugin.AuthZReq and
/AuthZPlugin.AuthZRes; ``Allow`` decides.

Laws: every plugin has to allow, in the order of the settings; one that cannot be asked allows nothing.
What a plugin is to judge it sees whole: a JSON body that is too long to be shown to it is refused, not let
through unseen, and so is one that a plugin could read otherwise than the engine does. Other bodies (archives)
and streams it judges by their request alone.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sampan.api.decode import decode_once
from sampan.api.responses import JSON, Answer, Hijacked, Response
from sampan.errors import Failure, Forbidden, Internal, InvalidArgument
from sampan.plugins.calling import Plugin, Timing, said
from sampan.plugins.discovery import Places

if TYPE_CHECKING:
    from sampan.api.request import Request

MAX_BODY = 1 << 20
"""Longest body that plugins are shown, in bytes; Docker's."""

_IMPLEMENTS = "authz"
_TIMING = Timing(patience=0.0, short=10.0, long=10.0)

# They carry passwords for registries.
_HIDDEN = frozenset(("x-registry-auth", "x-registry-config"))


class Authorization:
    """A guard that asks the plugins ``names``, one after the other."""

    def __init__(self, names: Sequence[str], places: Places) -> None:
        self._judges = [_Judge(name, places) for name in names]
        self._asked: dict[int, dict[str, Any]] = {}  # what was asked about requests under way, by number

    async def ready(self) -> None:
        """Find the plugins. InvalidArgument for one that is not there or does not judge requests."""
        for judge in self._judges:
            await judge.ready()

    async def before(self, request: Request) -> None:
        caller = request.caller
        question: dict[str, Any] = {
            "User": caller.name,
            "UserAuthNMethod": "TLS" if caller.name else "",
            "RequestMethod": request.method,
            "RequestUri": _uri(request),
            "RequestHeaders": _headers(request),
        }
        body = await _body(request)
        if body:
            question["RequestBody"] = base64.b64encode(body).decode("ascii")
        for judge in self._judges:
            await judge.ask("AuthZReq", question)
        self._asked[request.number] = question

    async def after(self, request: Request, answer: Answer) -> Answer:
        question = self._asked.pop(request.number, None)
        if question is None or isinstance(answer, Hijacked):
            return answer  # it was refused; or is on its way
        question["ResponseStatusCode"] = answer.status
        if isinstance(answer, Response) and answer.body and (answer.content_type or "").startswith(JSON):
            question["ResponseBody"] = base64.b64encode(answer.body).decode("ascii")
        for judge in self._judges:
            await judge.ask("AuthZRes", question)
        return answer


class _Judge:
    """One plugin."""

    def __init__(self, name: str, places: Places) -> None:
        self._name = name
        self._places = places
        self._plugin: Plugin | None = None

    async def ready(self) -> Plugin:
        """The plugin, found if it was not before."""
        if self._plugin is not None:
            return self._plugin
        address = self._places.find(self._name)
        if address is None:
            raise InvalidArgument(f'authorization-plugins: plugin "{self._name}" not found; start it first')
        plugin = Plugin(self._name, address, _TIMING)
        if _IMPLEMENTS not in await plugin.activate():
            raise InvalidArgument(f'authorization-plugins: plugin "{self._name}" does not implement authz')
        self._plugin = plugin
        return plugin

    async def ask(self, what: str, question: dict[str, Any]) -> None:
        """Return if the plugin allows it. Forbidden or Internal, in Docker's words, if not."""
        try:
            verdict = await (await self.ready()).ask(f"AuthZPlugin.{what}", question, _TIMING.short)
        except Failure as error:
            self._plugin = None  # it is looked for anew
            raise Internal(f"plugin {self._name} failed with error: {error}") from None
        if refusal := said(verdict, "Err"):
            raise Internal(f"plugin {self._name} failed with error: {refusal}")
        if verdict.get("Allow") is not True:
            raise Forbidden(f"authorization denied by plugin {self._name}: {said(verdict, 'Msg')}")


def _uri(request: Request) -> str:
    major, minor = request.version
    query = f"?{request.raw_query}" if request.raw_query else ""
    return f"/v{major}.{minor}{quote(request.path)}{query}"


def _headers(request: Request) -> dict[str, str]:
    found = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.items()}
    return {name.title(): value for name, value in found.items() if name not in _HIDDEN}


async def _body(request: Request) -> bytes:
    """The body, if it is JSON; whoever answers reads it again."""
    kind = request.header("content-type").partition(";")[0].strip().lower()
    if request.body_length == 0 or kind != JSON:
        return b""
    body = await request.read(MAX_BODY)
    if body.strip():
        decode_once(body)
    request.replay(body)
    return body
