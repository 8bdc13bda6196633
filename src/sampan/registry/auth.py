"""Proving who asks: basic authentication, and bearer tokens from the server that the registry names.

Source: distribution's token specification (scope, service, refresh tokens); RFC 6750. Law: a secret is shown
only to the registry it is for and to the token server which that registry named over TLS, or over the same
unprotected connection that the operator allowed.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from sampan.errors import Unauthenticated
from sampan.registry import challenges, refusals
from sampan.registry.credentials import Credentials, is_text
from sampan.spec import foreign

if TYPE_CHECKING:
    from sampan.registry.transport import Response

    Fetch = Callable[[str, str, Mapping[str, str], bytes | None], Response]

_CLIENT = "sampan"
_DEFAULT_LIFE = 60  # seconds that a token lives whose server does not say
_LONGEST_LIFE = 86400
_MARGIN = 10  # seconds before its end from which a token is not used any more


class Authorizer:
    """The credentials of one user with one registry, and the tokens that they were exchanged for."""

    def __init__(
        self,
        credentials: Credentials,
        clock: Callable[[], float] = time.monotonic,
        *,
        lasting: bool = False,
    ) -> None:
        """``lasting`` asks the token server for a token that stands for the password, too."""
        self._credentials = credentials
        self._clock = clock
        self._lasting = lasting
        self._basic = False
        self._tokens: dict[tuple[str, ...], tuple[str, float]] = {}
        self._lock = threading.Lock()
        self.identity_token = ""
        """A token that stands for name and password from now on, if the server gave one."""

    def header(self, scopes: tuple[str, ...]) -> str | None:
        """The Authorization header for a request that needs ``scopes``, as far as it is known by now."""
        if self._credentials.registry_token:
            return f"Bearer {self._credentials.registry_token}"
        if self._basic:
            return self._basic_header()
        token, end = self._tokens.get(scopes, ("", 0.0))
        return f"Bearer {token}" if token and self._clock() < end else None

    def challenged(
        self, header: str, scopes: tuple[str, ...], fetch: Fetch, *, secure: bool, shown: str | None = None
    ) -> bool:
        """Do what the registry's ``WWW-Authenticate`` asks for; False when that cannot change its mind.

        ``shown`` is the Authorization header that it was not content with. Raises Unauthenticated when the
        token server refuses.
        """
        asked = {challenge.scheme: challenge for challenge in challenges.parse(header)}
        bearer = asked.get("bearer")
        if bearer is not None and bearer.parameters.get("realm"):
            with self._lock:
                # Of several that were challenged at once the first asks for all.
                if self.header(scopes) in (None, shown):
                    self._tokens[scopes] = self._exchange(bearer.parameters, scopes, fetch, secure=secure)
            return True
        if "basic" in asked and self._credentials.username and not self._basic:
            self._basic = True
            return True
        return False

    def _exchange(
        self, asked: Mapping[str, str], scopes: tuple[str, ...], fetch: Fetch, *, secure: bool
    ) -> tuple[str, float]:
        realm = asked["realm"]
        try:
            parts = urlsplit(realm)
        except ValueError:
            raise Unauthenticated(
                f"the registry names a token server that is none: {realm[:200]!r}"
            ) from None
        if parts.scheme != "https" and (secure or parts.scheme != "http"):
            raise Unauthenticated(f"the registry names a token server that is not protected: {realm[:200]}")
        wanted = scopes or tuple(scope for scope in (asked.get("scope", ""),) if scope)
        query = [("service", asked["service"])] if asked.get("service") else []
        query += [("scope", scope) for scope in wanted]
        headers: dict[str, str] = {}
        given = self._credentials
        if given.identity_token:
            form = [("grant_type", "refresh_token"), ("refresh_token", given.identity_token)]
            body = urlencode([*form, ("client_id", _CLIENT), *_joined(query)]).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            answer = fetch("POST", realm, headers, body)
        else:
            if given.username:
                headers["Authorization"] = self._basic_header()
                query.append(("account", given.username))
            if self._lasting:
                query += [("client_id", _CLIENT), ("offline_token", "true")]
            mark = "&" if parts.query else "?"
            answer = fetch("GET", f"{realm}{mark}{urlencode(query)}", headers, None)
        with answer:
            body = answer.document()
            if answer.status != 200:
                raise Unauthenticated(_refused(answer.status, body))
        return self._read(body)

    def _read(self, body: bytes) -> tuple[str, float]:
        try:
            document = foreign.decode(body)
            token = document.get("token") or document.get("access_token")
            life = min(int(document.get("expires_in") or _DEFAULT_LIFE), _LONGEST_LIFE)
            refresh = document.get("refresh_token")
        except (ValueError, TypeError, AttributeError, OverflowError):
            token, life, refresh = None, 0, None
        if not isinstance(token, str) or not token or not is_text(token):
            raise Unauthenticated("authorization server did not include a token in the response")
        if isinstance(refresh, str) and is_text(refresh):
            self.identity_token = refresh
        return token, self._clock() + max(life - _MARGIN, _MARGIN)

    def _basic_header(self) -> str:
        pair = f"{self._credentials.username}:{self._credentials.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


def _joined(query: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """A form has one scope, of several separated by spaces."""
    scopes = " ".join(value for name, value in query if name == "scope")
    rest = [(name, value) for name, value in query if name != "scope"]
    return [*rest, ("scope", scopes)] if scopes else rest


def _refused(status: int, body: bytes) -> str:
    if status == 401 and not refusals.codes(body):
        return "unauthorized: incorrect username or password"
    return str(refusals.refusal(status, body))
