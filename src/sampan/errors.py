"""Failure kinds. Each tells the caller what to do next and carries Docker's wording.

    Failure
    ├── InvalidArgument   400  the request can never succeed as it is
    ├── Unauthenticated   401
    ├── Forbidden         403
    ├── NotFound          404
    ├── Conflict          409  the state of a resource forbids it now
    ├── NotImplemented    501  valid in Docker, not offered here
    ├── Unavailable       503  try again later
    └── Internal          500  a bug or a broken host; logged
        └── HostFailure        a device fails, or the host has no more of something
            └── DiskFull       there is no room; Docker's status for that

Foreign exceptions become one of these at one seam per dependency. "Already started" and its like are
return values, never failures.
"""

from __future__ import annotations

import errno
import os


class Failure(Exception):
    """Base of all failures; ``str()`` is the one-line message that a user reads."""


class InvalidArgument(Failure):
    """The request is malformed or asks for something impossible."""


class Unauthenticated(Failure):
    """Credentials are missing or wrong."""


class Forbidden(Failure):
    """The caller may not do this."""


class NotFound(Failure):
    """The named resource does not exist."""


class Conflict(Failure):
    """The resource exists and its state forbids the request."""


class NotImplemented(Failure):  # noqa: A001 - the field's word for status 501
    """Docker knows this; this engine does not offer it."""


class Unavailable(Failure):
    """The engine cannot serve this now; the same request may succeed later."""


class Internal(Failure):
    """The host or the engine is broken."""


class HostFailure(Internal):
    """A device of the host fails, or the host has no more of something. Nothing of ours explains it."""


class DiskFull(HostFailure):
    """There is no room on the disk for what was asked."""


class StartFailed(Failure):
    """The container's first process could not be started (``exit_code`` 125, 126, 127 or 128)."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StartCutShort(StartFailed):
    """Processes of the engine's own were killed over a start, which says nothing of the container."""


_FULL = (errno.ENOSPC, errno.EDQUOT)
_HOST = (errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EUCLEAN)
MEND = "remove what is not needed, for instance with: system prune"


def of_host(error: BaseException) -> HostFailure | None:
    """The failure for an OSError that only the host explains, with the path if it names one; else None."""
    if not isinstance(error, OSError) or error.errno not in (*_FULL, *_HOST):
        return None
    where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    why = os.strerror(error.errno).lower()
    return DiskFull(f"{where}{why}: {MEND}") if error.errno in _FULL else HostFailure(f"{where}{why}")
