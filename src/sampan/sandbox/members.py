"""Names of an archive's members: where they lead, and how a failure at one is told.

Law: a name is a path from the layer's root, whatever it begins with; ``..`` leads no further up than that, or
the member is refused.
"""

from __future__ import annotations

import os

from sampan.errors import Failure, Internal, InvalidArgument, of_host


class Refused(InvalidArgument):
    """A member cannot be part of a layer."""

    def __init__(self, name: bytes, why: str) -> None:
        super().__init__(f"archive member {quoted(name)}: {why}")


def quoted(name: bytes) -> str:
    """A member's name for a message: one line, at most 200 characters."""
    text = name.decode("utf-8", "backslashreplace")
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return f'"{text if len(text) <= 200 else text[:197] + "..."}"'


def clean(head: bytes, name: bytes) -> bytes:
    """``head`` without empty, ``.`` and ``..`` components; Refused if it leads out of the layer."""
    if not head:
        return head
    parts: list[bytes] = []
    for part in head.split(b"/"):
        if part == b"..":
            if not parts:
                raise Refused(name, "leads out of the layer")
            parts.pop()
        elif part and part != b".":
            parts.append(part)
    return b"/".join(parts)


def split(name: bytes) -> tuple[bytes, bytes]:
    """The clean parent and the last component of a name that may end in ``/``, ``.`` or ``..``."""
    head, _, base = clean(name, name).rpartition(b"/")
    return head, base


def translated(error: OSError, name: bytes) -> Failure:
    """A system call's failure: the member's fault, or the host's."""
    where = f"archive member {quoted(name)}: " if name else "unpack: "
    if (host := of_host(OSError(error.errno, ""))) is not None:
        return type(host)(where + str(host))
    why = os.strerror(error.errno or 0).lower()
    return InvalidArgument(where + why) if name else Internal(where + why)
