"""A daemon that answers from a table and writes down what it is asked: for recording a client's requests."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any


class Recorder:
    """Listens on ``path``. ``answers`` maps "GET /containers/x/json" (no version, no query) to a JSON value;
    anything else is refused with status 400 and the message "recorded".
    """

    def __init__(self, path: Path, answers: dict[str, Any] | None = None) -> None:
        self.requests: list[tuple[str, Any]] = []
        self.answers = answers or {}
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        finally:
            self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, client.makefile("rwb") as stream:
            while line := stream.readline():
                length = 0
                while (header := stream.readline().strip()) != b"":
                    name, _, value = header.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                body = stream.read(length)
                method, target, _ = line.decode().split(" ")
                stream.write(self._answer(method, target, body))
                stream.flush()

    def _answer(self, method: str, target: str, body: bytes) -> bytes:
        if target.endswith("/_ping"):
            return _response(200, b"", "Builder-Version: 1\r\nOstype: linux\r\n")
        path = "/" + target.split("/", 2)[2] if target.startswith("/v1.") else target
        self.requests.append((f"{method} {path}", json.loads(body) if body else None))
        answer = self.answers.get(f"{method} {path.partition('?')[0]}")
        if answer is None:
            return _response(400, b'{"message":"recorded"}')
        return _response(200, json.dumps(answer).encode())


def _response(status: int, body: bytes, extra: str = "") -> bytes:
    head = (
        f"HTTP/1.1 {status} Status\r\nApi-Version: 1.50\r\nContent-Type: application/json\r\n{extra}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
