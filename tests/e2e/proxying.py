"""A small HTTP proxy for tests: plain requests by whole URLs, TLS by CONNECT; it wants to know who asks."""

from __future__ import annotations

import base64
import contextlib
import http.client
import select
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

SECONDS = 30
_BLOCK = 1 << 16
_OWN = ("proxy-authorization", "connection", "host")


@dataclass(slots=True, kw_only=True)
class Proxy:
    """``hosts`` says where names lead; ``asked`` keeps (method, host) of requests from who is known."""

    hosts: Mapping[str, str]
    address: str = ""
    user: str = "proxied:p@ss"
    asked: list[tuple[str, str]] = field(default_factory=list)
    refused: int = 0

    @property
    def url(self) -> str:
        return f"http://{self.user.replace('@', '%40')}@{self.address}"

    def knows(self, shown: str) -> bool:
        return shown == f"Basic {base64.b64encode(self.user.encode()).decode()}"

    def target(self, host: str) -> tuple[str, int]:
        name, _, port = self.hosts[host].rpartition(":")
        return name, int(port)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def _host(self, host: str) -> bool:
        """Whether the request may go on to ``host``; otherwise it is answered."""
        if not self.proxy.knows(self.headers.get("Proxy-Authorization", "")):
            self.proxy.refused += 1
            self.send_response(407)
        elif host not in self.proxy.hosts:
            self.send_response(502)
        else:
            self.proxy.asked.append((self.command, host))
            return True
        self.send_header("Content-Length", "0")
        self.end_headers()
        return False

    def do_CONNECT(self) -> None:
        self.close_connection = True
        if not self._host(self.path):
            return
        with socket.create_connection(self.proxy.target(self.path)) as other:
            self.send_response(200)
            self.end_headers()
            both = {other: self.connection, self.connection: other}
            while ready := select.select(list(both), [], [], SECONDS)[0]:
                data = ready[0].recv(_BLOCK)
                if not data:
                    return
                both[ready[0]].sendall(data)

    def _forward(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self._host(parts.netloc):
            return
        name, port = self.proxy.target(parts.netloc)
        headers = {key: value for key, value in self.headers.items() if key.lower() not in _OWN}
        with contextlib.closing(http.client.HTTPConnection(name, port, timeout=SECONDS)) as other:
            place = parts._replace(scheme="", netloc="").geturl()
            other.request(self.command, place, body or None, {**headers, "Host": parts.netloc})
            answer = other.getresponse()
            data = answer.read()
            self.send_response(answer.status)
            for key, value in answer.getheaders():
                if key.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(key, value)
            length = answer.headers.get("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _forward  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


@contextmanager
def serve(hosts: Mapping[str, str]) -> Iterator[Proxy]:
    proxy = Proxy(hosts=hosts)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    server.daemon_threads = True
    proxy.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
