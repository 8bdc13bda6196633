"""Who asks: what a client sends along as ``X-Registry-Auth`` (Engine API, "Authentication")."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from sampan.errors import InvalidArgument
from sampan.spec import foreign
from sampan.spec.reference import DEFAULT_DOMAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A name and password, or a token that stands for them; all empty for nobody in particular.

    ``identity_token`` is exchanged for access tokens, ``registry_token`` is one.
    """

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    server: str = ""

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, …)"  # secrets stay out of logs

    def __bool__(self) -> bool:
        return bool(self.username or self.identity_token or self.registry_token)


NOBODY = Credentials()
_HUB = frozenset(("docker.io", "index.docker.io", "registry-1.docker.io"))


def domain_of(server: str) -> str:
    """The domain of the registry whose credentials are kept under ``server``: a host, or a URL as of old."""
    host = (server.partition("://")[2] or server).partition("/")[0]
    return DEFAULT_DOMAIN if host in _HUB else host


_NAMES = {
    "username": "username",
    "password": "password",
    "identity_token": "identitytoken",
    "registry_token": "registrytoken",
    "server": "serveraddress",
}


def decode(header: str) -> Credentials:
    """The header's value; base64 of either alphabet. InvalidArgument for anything else."""
    return from_document(decode_object(header)) if header else NOBODY


def decode_object(header: str) -> dict[str, Any]:
    """The JSON object in a header as base64; empty for none. InvalidArgument for anything else."""
    if not header:
        return {}
    text = header.replace("+", "-").replace("/", "_").rstrip("=")
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        document = foreign.decode(raw or b"{}")
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise InvalidArgument("invalid credentials in the header: it is no base64 of a JSON object")
    return document


def from_document(document: object) -> Credentials:
    """Docker's AuthConfig. InvalidArgument for what is none."""
    if document is None:
        return NOBODY
    if not isinstance(document, dict):
        raise InvalidArgument("invalid credentials: not a JSON object")
    values = {ours: document.get(theirs) or "" for ours, theirs in _NAMES.items()}
    if not all(isinstance(value, str) for value in values.values()):
        raise InvalidArgument("invalid credentials: a member is not a text")
    auth = document.get("auth")
    if not values["username"] and isinstance(auth, str) and auth:
        try:
            name, _, password = base64.b64decode(auth).decode().partition(":")
        except ValueError:
            raise InvalidArgument("invalid credentials: auth is no base64 of NAME:PASSWORD") from None
        values |= {"username": name, "password": password}
    try:
        "".join(values.values()).encode()
    except UnicodeEncodeError:
        raise InvalidArgument("invalid credentials: a member is not a text") from None
    if not is_text(values["registry_token"]):
        raise InvalidArgument("invalid credentials: the registry token cannot be sent in a header")
    return Credentials(**values)


def is_text(token: str) -> bool:
    """Whether a header can carry it (RFC 9110, "Field Values")."""
    return token.isascii() and token.isprintable()
