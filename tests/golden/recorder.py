"""A daemon that answers from a table and writes down what it is asked: for recording a client's requests."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from io import BufferedRWPair
from pathlib import Path
from typing import Any


class Recorder:
    """Listens on ``path``. ``answers`` maps "GET /containers/x/json" (no version, no query) to a JSON value,
    a status of failure or, as text, a header; anything else is refused with status 400 and "recorded".
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
        # A client may go away before it has the answer to all that it asked.
        with suppress(ConnectionError), client, client.makefile("rwb") as stream:
            while line := stream.readline():
                length, chunked = 0, False
                while (header := stream.readline().strip()) != b"":
                    name, _, value = header.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                    chunked |= name.lower() == b"transfer-encoding"
                body = _chunks(stream) if chunked else stream.read(length)
                method, target, _ = line.decode().split(" ")
                stream.write(self._answer(method, target, body))
                stream.flush()

    def _answer(self, method: str, target: str, body: bytes) -> bytes:
        if target.endswith("/_ping"):
            return _response(200, b"", "Builder-Version: 1\r\nOstype: linux\r\n")
        path = "/" + target.split("/", 2)[2] if target.startswith("/v1.") else target
        self.requests.append((f"{method} {path}", _document(body)))
        answer = self.answers.get(f"{method} {path.partition('?')[0]}")
        if isinstance(answer, str):
            return _response(200, b"", f"{answer}\r\n")
        if isinstance(answer, int):
            return _response(answer, b'{"message":"recorded"}')
        if answer is None:
            return _response(400, b'{"message":"recorded"}')
        return _response(200, json.dumps(answer).encode())


def _chunks(stream: BufferedRWPair) -> bytes:
    """A chunked body."""
    found = []
    while size := int(stream.readline(), 16):
        found.append(stream.read(size))
        stream.readline()
    stream.readline()
    return b"".join(found)


def _document(body: bytes) -> Any:
    """A body's JSON value; of another body its length."""
    if not body:
        return None
    try:
        return json.loads(body)
    except ValueError:
        return f"{len(body)} bytes"


def _response(status: int, body: bytes, extra: str = "") -> bytes:
    head = (
        f"HTTP/1.1 {status} Status\r\nApi-Version: 1.50\r\nContent-Type: application/json\r\n{extra}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
