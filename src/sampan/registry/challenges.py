"""What a registry wants to see before it answers: the ``WWW-Authenticate`` header (RFC 9110, section 11)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = re.compile(rf"\s*({_TOKEN})(?:\s+|$)")
_PAIR = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))\s*(?:,|$)')
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """``scheme`` in lower case, parameters by their lower-case names."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)


def parse(header: str) -> list[Challenge]:
    """Every challenge of the header; what cannot be understood ends the list."""
    found: list[Challenge] = []
    position = 0
    while position < len(header):
        pair = _PAIR.match(header, position) if found else None
        if pair is not None:
            quoted = pair[2]
            value = _ESCAPE.sub(r"\1", quoted) if quoted is not None else pair[3]
            found[-1].parameters[pair[1].lower()] = value
            position = pair.end()
            continue
        scheme = _SCHEME.match(header, position)
        if scheme is None:
            break
        found.append(Challenge(scheme=scheme[1].lower()))
        position = scheme.end()
    return found
