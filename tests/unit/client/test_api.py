from __future__ import annotations

import socket
import threading
from pathlib import Path

from sampan.client.api import Client
from sampan.client.connection import Address


def test_the_time_until_an_answer_is_used_once(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    used = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            for _ in range(2):
                connection.recv(65536)
                # Answers only once the client has done what it had to do meanwhile.
                answer = b"null" if used.wait(10) else b"1"
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))

    server = threading.Thread(target=serve)
    server.start()
    client = Client(Address(f"unix://{tmp_path}/s"))
    client.meanwhile = used.set
    assert client.call("GET", "/one") is None
    assert client.meanwhile is None
    assert client.call("GET", "/two") is None
    server.join()
    listener.close()
