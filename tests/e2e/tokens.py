"""A token server for Debian's docker-registry: it knows alice, signs what she may, and is asked over HTTP.

What it signs is checked by the registry (distribution's token specification: a JSON Web Token, RS256, whose
``x5c`` names the certificate that the registry trusts). The signing is openssl's.
"""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

SERVICE = "the registry"
ISSUER = "test"
NAME, PASSWORD, LASTING = "alice", "secret", "a-token-that-lasts"
PUBLIC = "public/"
"""Repositories below it are anybody's to pull."""


class TokenServer:
    """``asked`` keeps (method, parameters, Authorization) of each request."""

    def __init__(self, place: Path) -> None:
        self.asked: list[tuple[str, dict[str, list[str]], str]] = []
        self._key, self.certificate = place / "token.key", place / "token.crt"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=tokens"),
                *("-keyout", str(self._key), "-out", str(self.certificate)),
            ],
            check=True,
            capture_output=True,
        )
        self.url = ""

    def settings(self) -> dict[str, Any]:
        """The registry's section ``auth``."""
        return {
            "token": {
                "realm": self.url,
                "service": SERVICE,
                "issuer": ISSUER,
                "rootcertbundle": str(self.certificate),
            }
        }

    def answer(self, method: str, parameters: dict[str, list[str]], shown: str) -> tuple[int, dict[str, Any]]:
        self.asked.append((method, parameters, shown))
        who = ""
        if method == "POST":
            if parameters.get("refresh_token") != [LASTING]:
                return 401, {}
            who = NAME
        elif shown:
            pair = base64.b64encode(f"{NAME}:{PASSWORD}".encode()).decode()
            if shown != f"Basic {pair}":
                return 401, {}
            who = NAME
        scopes = [scope for value in parameters.get("scope", ()) for scope in value.split()]
        token = self._signed(who, [_access(scope, known=bool(who)) for scope in scopes])
        found: dict[str, Any] = {"token": token, "access_token": token, "expires_in": 300}
        if who and parameters.get("offline_token") == ["true"]:
            found["refresh_token"] = LASTING
        return 200, found

    def _signed(self, who: str, access: list[dict[str, Any]]) -> str:
        now = int(time.time())
        body = self.certificate.read_text().partition("-----\n")[2].partition("-----")[0]
        head = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(body.split())]}
        times = {"exp": now + 300, "nbf": now - 60, "iat": now}
        claims = {"iss": ISSUER, "sub": who, "aud": SERVICE, **times, "access": access, "jti": str(now)}
        text = f"{_base64(json.dumps(head).encode())}.{_base64(json.dumps(claims).encode())}"
        signing = ["openssl", "dgst", "-sha256", "-sign", str(self._key)]
        done = subprocess.run(signing, input=text.encode(), check=True, capture_output=True)
        return f"{text}.{_base64(done.stdout)}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _access(scope: str, *, known: bool) -> dict[str, Any]:
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    allowed = {"pull", "push"} if known else {"pull"} if name.startswith(PUBLIC) else set()
    return {"type": kind, "name": name, "actions": sorted(allowed & set(actions.split(",")))}


@contextmanager
def serve(place: Path) -> Iterator[TokenServer]:
    tokens = TokenServer(place)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(urlsplit(self.path).query)

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

        def _answer(self, query: str) -> None:
            shown = self.headers.get("Authorization", "")
            status, document = tokens.answer(self.command, parse_qs(query), shown)
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    tokens.url = f"http://127.0.0.1:{server.server_port}/token"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield tokens
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
