"""One line of comma-separated fields with double quotes, as Go's encoding/csv reads it (RFC 4180)."""

from __future__ import annotations


def split(text: str) -> list[str]:
    """The fields of ``text``. Raises ValueError in encoding/csv's words."""
    if not text:
        raise ValueError("EOF")
    fields: list[str] = []
    at = 0
    while True:
        if text[at : at + 1] == '"':
            field, at = _quoted(text, at + 1)
        else:
            end = text.find(",", at)
            end = len(text) if end < 0 else end
            field = text[at:end]
            if '"' in field:
                column = at + field.index('"') + 1
                raise ValueError(f'parse error on line 1, column {column}: bare " in non-quoted-field')
            at = end
        fields.append(field)
        if at >= len(text):
            return fields
        at += 1  # the comma


def _quoted(text: str, at: int) -> tuple[str, int]:
    out: list[str] = []
    while True:
        end = text.find('"', at)
        if end < 0:
            raise ValueError(
                f'parse error on line 1, column {len(text) + 1}: extraneous or missing " in quoted-field'
            )
        out.append(text[at:end])
        following = text[end + 1 : end + 2]
        if following == '"':
            out.append('"')
            at = end + 2
        elif following in (",", ""):
            return "".join(out), end + 1
        else:
            raise ValueError(
                f'parse error on line 1, column {end + 1}: extraneous or missing " in quoted-field'
            )


def pairs(text: str) -> list[tuple[str, str, str]]:
    """Fields ``key=value`` as (lower-case key, value, whole field); a bare key has the value "\\0"."""
    found = []
    for field in split(text):
        key, sign, value = field.partition("=")
        found.append((key.lower(), value if sign else "\0", field))
    return found


def assignments(text: str) -> list[tuple[str, str]]:
    """Fields ``key=value`` with keys as written; a text with one "=" is one pair whatever else is in it."""
    found = []
    for field in [text] if text.count("=") == 1 else split(text):
        key, sign, value = field.partition("=")
        if not sign:
            raise ValueError(f"{field} must be formatted as key=value")
        found.append((key, value))
    return found
