"""What the usual failures of registries are called, and their status, compared with dockerd 20.10.

dockerd answers 500 to all that goes wrong between it and a registry. Here 500 is a fault of the engine's
own: a registry that cannot be reached or does not do its work is 503, and who may not pull gets 403, for
401 would make Docker's client ask for a password. The words were compared with dockerd's; where they
differ, the table says so.
"""

from __future__ import annotations

import json
import shutil
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.e2e.serving import Daemon
from tests.e2e.talk import ask
from tests.e2e.test_registry_trust import authority, by_name

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
__all__ = ["by_name"]


def _error(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


# What the registry answers below a repository of that name: status, headers, body.
_ANSWERS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "limited": (
        429,
        {"Retry-After": "21600"},
        _error("TOOMANYREQUESTS", "You have reached your pull rate limit."),
    ),
    "broken": (500, {}, _error("UNKNOWN", "unknown error")),
    "denied": (403, {}, _error("DENIED", "requested access to the resource is denied")),
    "private": (
        401,
        {"WWW-Authenticate": 'Basic realm="r"'},
        _error("UNAUTHORIZED", "authentication required"),
    ),
    "unknown": (404, {}, _error("MANIFEST_UNKNOWN", "manifest unknown")),
    "nameless": (404, {}, _error("NAME_UNKNOWN", "repository name not known to registry")),
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status, headers, body = _ANSWERS.get(self.path.split("/")[2], (200, {}, b"{}"))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


@contextmanager
def refusing(certificate: Path | None = None) -> Iterator[int]:
    """The port of a registry that refuses, with TLS if it has a certificate."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    place = tmp_path_factory.mktemp("authority")
    authority(place)
    with refusing() as plain, refusing(place / "server.crt") as secret:
        yield {
            "here": f"127.0.0.1:{plain}",
            "plain": f"registry.test:{plain}",
            "secret": f"registry.test:{secret}",
        }


_DENIED = (
    "pull access denied for {here}/denied/a, repository does not exist or may require 'docker login': "
    "denied: requested access to the resource is denied"
)


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("nowhere.invalid/a", 503, "dial tcp: lookup nowhere.invalid: no such host"),  # and by which server
        ("127.0.0.1:1/a", 503, "dial tcp 127.0.0.1:1: connect: connection refused"),
        # Go before 1.21: "tls: first record does not look like a TLS handshake".
        ("{plain}/a", 503, "http: server gave HTTP response to HTTPS client"),
        ("{secret}/a", 503, "x509: certificate signed by unknown authority"),
        ("{here}/limited/a", 503, "toomanyrequests: You have reached your pull rate limit."),
        ("{here}/broken/a", 503, "received unexpected HTTP status: 500 Internal Server Error"),
        ("{here}/denied/a", 404, _DENIED),  # dockerd asks by HEAD first and knows only "denied"
        ("{here}/private/a", 403, "no basic auth credentials"),
        (
            "{here}/unknown/a",
            404,
            "manifest for {here}/unknown/a:x not found: manifest unknown: manifest unknown",
        ),
        (
            "{here}/nameless/a",
            404,
            "repository {here}/nameless/a not found: name unknown: repository name not known to registry",
        ),
    ],
)
def test_a_pull_that_cannot_be(
    daemon: Daemon, hosts: dict[str, str], by_name: None, name: str, status: int, words: str
) -> None:
    image = quote(name.format(**hosts), safe="")
    found, said = ask(daemon.socket, "POST", f"/images/create?fromImage={image}&tag=x")
    message = json.loads(said)["message"]
    assert (found, message.endswith(words.format(**hosts))) == (status, True), message


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.invalid/a", "dial tcp: lookup nowhere.invalid: no such host"),
        ("127.0.0.1:1/a", "dial tcp 127.0.0.1:1: connect: connection refused"),
        ("{plain}/a", "http: server gave HTTP response to HTTPS client"),
        ("{secret}/a", "x509: certificate signed by unknown authority"),
        ("{here}/denied/a", "denied: requested access to the resource is denied"),
        ("{here}/private/a", "no basic auth credentials"),
        ("{here}/broken/a", "received unexpected HTTP status: 500 Internal Server Error"),
    ],
)
def test_a_push_that_cannot_be(
    daemon: Daemon, hosts: dict[str, str], by_name: None, image: str, name: str, words: str
) -> None:
    full = name.format(**hosts)
    assert ask(daemon.socket, "POST", f"/images/{image}/tag?repo={quote(full, safe='')}&tag=x")[0] == 201
    try:
        found, said = ask(daemon.socket, "POST", f"/images/{full}/push?tag=x")
        message = json.loads(said.splitlines()[-1])["error"]
        assert (found, message.endswith(words)) == (200, True), message
    finally:
        ask(daemon.socket, "DELETE", f"/images/{full}:x")
