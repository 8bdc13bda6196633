"""What a registry answers when it will not, as failures in the words that users of Docker know.

Source: OCI distribution-spec, "Error Codes"; Docker's own words for what they mean to a pull.
"""

from __future__ import annotations

from typing import Protocol

from sampan.errors import (
    Failure,
    Forbidden,
    InvalidArgument,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from sampan.registry import challenges
from sampan.spec import foreign

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
_NOBODY = "no basic auth credentials"
_UNKNOWN = "unauthorized: authentication required"
_DENIED = "denied: requested access to the resource is denied"
_OF_TOKENS: dict[str, tuple[type[Failure], str]] = {
    "insufficient_scope": (Forbidden, _DENIED),
    "invalid_token": (Unauthenticated, _UNKNOWN),
}
_SHOWN = 300  # characters of what a registry says


class Answer(Protocol):
    """What is looked at of an answer."""

    status: int
    shown: bool
    """Whether the request carried anything to prove who asks."""

    @property
    def challenge(self) -> str:
        """Its ``WWW-Authenticate``."""


def codes(body: bytes) -> list[tuple[str, str]]:
    """(code, message) of each error in an answer's body; none when it is no such document."""
    try:
        document = foreign.decode(body)
        entries = document["errors"]
        return [(str(entry.get("code", "UNKNOWN")), _line(entry.get("message"))) for entry in entries]
    except (ValueError, TypeError, KeyError, AttributeError):
        return []


def refusal(status: int, body: bytes) -> Failure:
    """The failure for an answer that is none of those that were hoped for."""
    kind = _KINDS.get(status, Unavailable)
    found = codes(body)
    if found and status < 500:  # what it says of its own troubles is for its operator
        words = ", ".join(f"{code.lower().replace('_', ' ')}: {message}" for code, message in found)
        return kind(words)
    phrase = _PHRASES.get(status, "")
    return kind(f"received unexpected HTTP status: {status} {phrase}".rstrip())


def of_proof(answer: Answer) -> Failure | None:
    """Why an answer 401 or 403 is one, as far as its challenge tells; None if it does not.

    The challenge of a token server's registry says what the token was not good for (RFC 6750, section 3.1).
    """
    if answer.status != 401:
        return None
    asked = {challenge.scheme: challenge.parameters for challenge in challenges.parse(answer.challenge)}
    if "basic" in asked:
        return Unauthenticated(_UNKNOWN if answer.shown else _NOBODY)
    kind, words = _OF_TOKENS.get(asked.get("bearer", {}).get("error", ""), (None, ""))
    return kind(words) if kind else None


def of_head(answer: Answer) -> Failure:
    """The failure for a 401 or 403 without a body."""
    if found := of_proof(answer):
        return found
    return Forbidden(_DENIED) if answer.status == 403 else Unauthenticated(_UNKNOWN)


def of_pull(name: str, shown: str, answer: Answer, body: bytes) -> Failure:
    """The failure for the manifest ``shown`` of the repository ``name``, both as people type them."""
    found = {code for code, _ in codes(body)}
    proof = of_proof(answer)
    if isinstance(proof, Unauthenticated):
        return proof
    failure = proof or refusal(answer.status, body)
    if answer.status in (401, 403) or found & {"DENIED", "UNAUTHORIZED"}:
        return NotFound(
            f"pull access denied for {name}, repository does not exist or may require 'docker login': "
            f"{failure}"
        )
    if "NAME_UNKNOWN" in found:
        return NotFound(f"repository {name} not found: {failure}")
    if answer.status == 404:
        return NotFound(f"manifest for {shown} not found: {failure}")
    return failure


def _line(message: object) -> str:
    """One line of bounded length: what a stranger says reaches a user's terminal."""
    text = message if isinstance(message, str) else ""
    return "".join(character if character.isprintable() else " " for character in text)[:_SHOWN]
