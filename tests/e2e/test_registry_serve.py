"""The engine as a registry: what clients pull from it, and what it refuses."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.serving import Daemon

pytestmark = pytest.mark.root


class Serving:
    """``registry serve`` while it runs, and what it said of itself."""

    def __init__(self, daemon: Daemon, *words: str) -> None:
        command = [
            sys.executable,
            "-m",
            "sampan",
            "-H",
            daemon.host,
            "registry",
            "serve",
            *words,
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.said = [self.process.stdout.readline().strip()]
        self.address = self.said[0].rpartition("/")[2]
        if self.said[0].rpartition(" ")[2].startswith("https"):
            while "END CERTIFICATE" not in self.said[-1]:
                self.said.append(self.process.stdout.readline().strip())

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def ask(self, method: str, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        found = (answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())
        connection.close()
        return found

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


@pytest.fixture(scope="module")
def serving(daemon: Daemon) -> Iterator[Serving]:
    found = Serving(daemon, "--listen", "127.0.0.1:0")
    yield found
    found.end()


def _error(body: bytes) -> str:
    return str(json.loads(body)["errors"][0]["code"])


def test_an_image_is_pulled_by_name_and_digest(serving: Serving, tmp_path: Path) -> None:
    status, headers, raw = serving.ask("GET", "/v2/busybox/manifests/latest")
    assert status == 200
    digest = headers["docker-content-digest"]
    assert digest == f"sha256:{hashlib.sha256(raw).hexdigest()}"
    assert serving.ask("GET", f"/v2/busybox/manifests/{digest}")[2] == raw
    manifest = json.loads(raw)
    assert headers["content-type"] == manifest["mediaType"]
    for one in (manifest["config"], *manifest["layers"]):
        status, headers, body = serving.ask("GET", f"/v2/busybox/blobs/{one['digest']}")
        assert (status, len(body)) == (200, one["size"])
        assert f"sha256:{hashlib.sha256(body).hexdigest()}" == one["digest"]
        status, headers, nothing = serving.ask("HEAD", f"/v2/busybox/blobs/{one['digest']}")
        assert (status, headers["content-length"], nothing) == (200, str(one["size"]), b"")
    source = f"docker://{serving.address}/busybox:latest"
    words = ["skopeo", "copy", "-q", "--src-tls-verify=false", source, f"dir:{tmp_path}/out"]
    subprocess.run(words, check=True, timeout=60)
    assert (tmp_path / "out/manifest.json").read_bytes() == raw


def test_another_engine_pulls(daemon: Daemon, serving: Serving) -> None:
    name = f"{serving.address}/busybox"
    try:
        done = subprocess.run(
            ["docker", "-H", daemon.host, "pull", name],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert f"Status: Downloaded newer image for {name}:latest" in done.stdout
    finally:
        subprocess.run(["docker", "-H", daemon.host, "rmi", name], capture_output=True)


@pytest.mark.parametrize(
    ("wanted", "status", "span"),
    [
        ("bytes=10-19", 206, (10, 20)),
        ("bytes=100-", 206, (100, None)),
        ("bytes=-7", 206, (-7, None)),
        ("bytes=0-", 200, (0, None)),
        ("bytes=5-4", 416, None),
        ("bytes=99999999999-", 416, None),
        ("bytes=1-2,4-5", 200, (0, None)),
        ("lines=1-2", 200, (0, None)),
    ],
)
def test_ranges(serving: Serving, wanted: str, status: int, span: tuple[int, int | None] | None) -> None:
    manifest = json.loads(serving.ask("GET", "/v2/busybox/manifests/latest")[2])
    path = f"/v2/busybox/blobs/{manifest['config']['digest']}"
    whole = serving.ask("GET", path)[2]
    found, headers, body = serving.ask("GET", path, Range=wanted)
    assert found == status
    if span is None:
        assert headers["content-range"] == f"bytes */{len(whole)}"
    else:
        assert body == whole[slice(*span)]


def test_lists_come_in_pages(serving: Serving) -> None:
    assert json.loads(serving.ask("GET", "/v2/_catalog")[2]) == {"repositories": ["busybox"]}
    status, headers, body = serving.ask("GET", "/v2/busybox/tags/list?n=1")
    assert (status, json.loads(body)) == (200, {"name": "busybox", "tags": ["latest"]})
    assert "link" not in headers
    assert json.loads(serving.ask("GET", "/v2/busybox/tags/list?last=latest")[2])["tags"] == []
    digest = "sha256:" + "0" * 64
    assert json.loads(serving.ask("GET", f"/v2/busybox/referrers/{digest}")[2])["manifests"] == []


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v2/nonesuch/tags/list", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/busybox/manifests/nonesuch", 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/busybox/blobs/sha256:" + "0" * 64, 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/busybox/blobs/sha256:..", 400, "DIGEST_INVALID"),
        ("GET", "/v2/busybox/manifests/..%2f..%2fstate.db", 404, "NAME_INVALID"),
        ("GET", "/v2/../../etc/passwd", 404, "NAME_INVALID"),
        ("GET", "/v2/BUSYBOX/tags/list", 404, "NAME_INVALID"),
        ("GET", "/v2/" + "a" * 300 + "/tags/list", 404, "NAME_INVALID"),
        ("GET", "/v2/_catalog?n=-1", 400, "PAGINATION_NUMBER_INVALID"),
        ("GET", "/etc/passwd", 404, "NAME_INVALID"),
        ("GET", "/", 404, "NAME_INVALID"),
        ("POST", "/v2/busybox/blobs/uploads/", 405, "UNSUPPORTED"),
        ("PUT", "/v2/busybox/manifests/latest", 405, "UNSUPPORTED"),
        ("DELETE", "/v2/busybox/manifests/latest", 405, "UNSUPPORTED"),
    ],
)
def test_what_is_refused(serving: Serving, method: str, path: str, status: int, code: str) -> None:
    found, _, body = serving.ask(method, path)
    assert (found, _error(body)) == (status, code)


_LONG = b"GET / HTTP/1.1\r\nA: " + b"x" * 20_000


@pytest.mark.parametrize("sent", [b"\x16\x03\x01", _LONG, b"GET\r\n\r\n"])
def test_nonsense_is_answered_and_cut(serving: Serving, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", serving.port), timeout=30) as client:
        client.sendall(sent)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))


def test_connections_are_bounded(serving: Serving) -> None:
    held: list[socket.socket] = []
    try:
        while len(held) <= 128:
            held.append(socket.create_connection(("127.0.0.1", serving.port), timeout=30))
            held[-1].sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = held[-1].recv(65536)
            if not answer.startswith(b"HTTP/1.1 200"):
                break
        assert answer.startswith(b"HTTP/1.1 503")
        # Connections of tests before this one may not be noticed to be closed yet.
        assert 64 < len(held) <= 129
    finally:
        for client in held:
            client.close()


def test_it_ends_with_the_command(daemon: Daemon) -> None:
    found = Serving(daemon, "--listen", "127.0.0.1:0")
    with socket.create_connection(("127.0.0.1", found.port), timeout=30) as client:
        found.end()
        assert client.recv(1) == b""  # cut, not left waiting


def test_off_the_loopback_there_is_tls_and_a_token(daemon: Daemon) -> None:
    found = Serving(daemon, "--listen", "0.0.0.0:0")
    try:
        token = found.said[1].split()[1]
        certificate = "\n".join(line for line in found.said[3:]) + "\n"
        context = ssl.create_default_context(cadata=certificate)
        answers = []
        for given in ("", "wrong", token):
            client = http.client.HTTPSConnection("localhost", found.port, context=context, timeout=30)
            word = base64.b64encode(f"anyone:{given}".encode()).decode()
            client.request("GET", "/v2/_catalog", headers={"Authorization": f"Basic {word}"} if given else {})
            answer = client.getresponse()
            answers.append((answer.status, b"busybox" in answer.read()))
            client.close()
        assert answers == [(401, False), (401, False), (200, True)]
    finally:
        found.end()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--listen", "nonsense"), "invalid address nonsense: use HOST:PORT"),
        (("--tls-cert", "/nonesuch"), "cannot read /nonesuch: No such file or directory"),
        (("--listen", "192.0.2.1:5000"), "cannot listen on 192.0.2.1:5000: "),
    ],
)
def test_what_cannot_be_served(daemon: Daemon, words: tuple[str, ...], message: str) -> None:
    command = [sys.executable, "-m", "sampan", "-H", daemon.host, "registry", "serve", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
