"""One request to an engine, without a client library in between."""

from __future__ import annotations

import http.client
import socket

SECONDS = 60


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("engine", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        self.sock.connect(self._path)


def ask(path: str, method: str, target: str, body: bytes | None = None) -> tuple[int, bytes]:
    """(status, body) of a request to the engine whose socket is at ``path``. A body goes as JSON."""
    connection = _Connection(path)
    try:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, target, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
