"""A registry that answers what a test tells it to, over real connections."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sampan.registry.auth import Authorizer
from sampan.registry.credentials import NOBODY, Credentials
from sampan.registry.hosts import Endpoint
from sampan.registry.repository import Repository
from sampan.registry.transport import Transport


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """``cut`` bytes of the body are sent, then the connection is closed; None sends it whole.

    ``HANG_UP`` closes it without any answer.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None


HANG_UP = Reply(status=0)


class Registry:
    """``answer`` is called for each request; ``asked`` keeps them."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answer: Callable[[Asked], Reply] = lambda _: Reply(status=404)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                asked = Asked(
                    method=self.command,
                    path=self.path,
                    headers=dict(self.headers.items()),
                    body=self.rfile.read(length),
                )
                outer.asked.append(asked)
                reply = outer.answer(asked)
                if reply is HANG_UP:
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(reply.body if reply.cut is None else reply.body[: reply.cut])
                if reply.cut is not None:
                    self.close_connection = True

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def paths(self) -> list[str]:
        return [f"{asked.method} {asked.path}" for asked in self.asked]


class Instant(threading.Event):
    """Pauses take no time, and are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses.append(timeout or 0)
        return self.is_set()


@contextmanager
def registry() -> Iterator[Registry]:
    found = Registry()
    try:
        yield found
    finally:
        found.close()


def transport(
    registry: Registry, credentials: Credentials = NOBODY, pauses: Instant | None = None
) -> Transport:
    endpoint = Endpoint(host=registry.host, schemes=("http",), insecure=True)
    return Transport(endpoint, Authorizer(credentials), pauses or Instant())


def repository(
    registry: Registry, credentials: Credentials = NOBODY, pauses: Instant | None = None
) -> Repository:
    """The repository ``a/b``."""
    return Repository(transport(registry, credentials, pauses), "a/b", "example/a/b")
