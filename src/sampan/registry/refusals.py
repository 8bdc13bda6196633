"""What a registry answers when it will not, as failures in the words that users of Docker know.

Source: OCI distribution-spec, "Error Codes"; Docker's own words for what they mean to a pull.
"""

from __future__ import annotations

import json

from sampan.errors import (
    Failure,
    Forbidden,
    Internal,
    InvalidArgument,
    NotFound,
    Unauthenticated,
    Unavailable,
)

_KINDS: dict[int, type[Failure]] = {
    400: InvalidArgument,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    405: InvalidArgument,
    413: InvalidArgument,
    416: InvalidArgument,
    429: Unavailable,
}
_PHRASES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
_SHOWN = 300  # characters of what a registry says


def codes(body: bytes) -> list[tuple[str, str]]:
    """(code, message) of each error in an answer's body; none when it is no such document."""
    try:
        document = json.loads(body)
        entries = document["errors"]
        return [(str(entry.get("code", "UNKNOWN")), _line(entry.get("message"))) for entry in entries]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []


def refusal(status: int, body: bytes) -> Failure:
    """The failure for an answer that is none of those that were hoped for."""
    kind = _KINDS.get(status, Unavailable if status in (502, 503, 504) else Internal)
    found = codes(body)
    if found:
        words = ", ".join(f"{code.lower().replace('_', ' ')}: {message}" for code, message in found)
        return kind(words)
    phrase = _PHRASES.get(status, "")
    return kind(f"received unexpected HTTP status: {status} {phrase}".rstrip())


def of_head(status: int, challenge: str) -> Failure:
    """The same for an answer without a body, to a request that proved what it could."""
    if status == 403:
        return Forbidden("denied: requested access to the resource is denied")
    if challenge.lower().startswith("basic"):
        return Unauthenticated("no basic auth credentials")
    return Unauthenticated("unauthorized: authentication required")


def of_pull(name: str, shown: str, status: int, body: bytes) -> Failure:
    """The same for the manifest ``shown`` of the repository ``name``, both as people type them."""
    failure = refusal(status, body)
    found = {code for code, _ in codes(body)}
    if status in (401, 403) or found & {"DENIED", "UNAUTHORIZED"}:
        return NotFound(
            f"pull access denied for {name}, repository does not exist or may require 'docker login': "
            f"{failure}"
        )
    if "NAME_UNKNOWN" in found:
        return NotFound(f"repository {name} not found: {failure}")
    if status == 404:
        return NotFound(f"manifest for {shown} not found: {failure}")
    return failure


def _line(message: object) -> str:
    """One line of bounded length: what a stranger says reaches a user's terminal."""
    text = message if isinstance(message, str) else ""
    return "".join(character if character.isprintable() else " " for character in text)[:_SHOWN]
