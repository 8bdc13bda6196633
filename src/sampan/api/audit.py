"""Who did what: one line of JSON for every request that may change something, appended to a file.

Laws: a line is written when the request is answered, before the client sees the answer; lines are whole (one
write each to a file opened for appending), so that the file may be rotated by renaming it: the next line
makes it anew. What cannot be written is said in the daemon's log, and the request goes on. Bodies, whose
environment variables may be secrets, are not written; nor are the headers, which carry passwords, and the
parameters that hold such variables or the password of an address.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from sampan.api.doors import changes
from sampan.api.responses import Answer, Hijacked, Response

if TYPE_CHECKING:
    from sampan.api.params import Query
    from sampan.api.request import Request

log = logging.getLogger("sampan.api")

# Parameters in which secrets are handed over.
_HIDDEN = frozenset(("buildargs", "changes"))
_PASSWORD = re.compile(r"(?<=//)[^/@]*@")


class Audit:
    """A guard that lets everybody in and writes down who it was. ``door`` is the listening address."""

    def __init__(self, path: str, door: str) -> None:
        self._path = path
        self._door = door

    async def before(self, request: Request) -> None:
        """Nothing is known yet but who asks."""

    async def after(self, request: Request, answer: Answer) -> Answer:
        if changes(request):
            self._write(request, answer)
        return answer

    def _write(self, request: Request, answer: Answer) -> None:
        caller = request.caller
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request": request.number,
            "socket": self._door,
            **({"uid": caller.uid, "gid": caller.gid, "pid": caller.pid} if caller.uid >= 0 else {}),
            **({"address": caller.address} if caller.address else {}),
            **({"name": caller.name} if caller.name else {}),
            "method": request.method,
            "path": request.path,
            "query": _shown(request.query),
            "status": 101 if isinstance(answer, Hijacked) else answer.status,
        }
        if isinstance(answer, Response) and answer.status >= 400:
            line["error"] = answer.body.decode("utf-8", "replace")[:1000]
        data = (json.dumps(line) + "\n").encode()
        try:
            # Synchronously: an answer that overtakes its line could be acted on and never be known of.
            fd = os.open(
                self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
            try:
                os.write(fd, data)
            finally:
                os.close(fd)
        except OSError as error:
            log.error("the audit log %s was not written: %s", self._path, error.strerror)


def _shown(query: Query) -> str:
    """The parameters that count, without their secrets."""
    pairs = {
        name: "..." if name in _HIDDEN else _PASSWORD.sub("", value) for name, value in query.first().items()
    }
    return urlencode(pairs)
