"""Pulls that are broken off, killed, doubled or lied to: a registry of the test's own, real connections."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import os
import random
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest

from sampan.spec import digest as digests
from sampan.spec.image import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from tests import archives
from tests.e2e import serving
from tests.e2e.serving import Daemon
from tests.e2e.talk import ask

SECONDS = 30
PLAIN = archives.layer(big=random.Random(1).randbytes(4 << 20))
LAYER = gzip.compress(PLAIN, mtime=0)
CONFIG = archives.config([PLAIN])
_SMALL = 1 << 16
LARGE = 17 << 20
"""Bytes of a layer that is unpacked while it comes."""


def manifest(**changes: object) -> bytes:
    layer = {"mediaType": f"{OCI_LAYER}+gzip", "digest": digests.of(LAYER), "size": len(LAYER), **changes}
    config = {"mediaType": OCI_CONFIG, "digest": digests.of(CONFIG), "size": len(CONFIG)}
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]}
    return json.dumps(document).encode()


@dataclass(slots=True)
class Source:
    """A registry of one image. ``gate`` holds the layer's second half back until it is set."""

    documents: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    gate: threading.Event | None = None
    cuts: list[int] = field(default_factory=list)
    """Bytes after which the next answers break off."""
    ranged: bool = True
    halfway: threading.Event = field(default_factory=threading.Event)
    ranges: list[str] = field(default_factory=list)
    host: str = ""
    results: bytes = b""

    def pause(self) -> None:
        self.halfway.set()
        if self.gate is not None:
            self.gate.wait(SECONDS)

    def offset(self, wanted: str) -> int:
        return int(wanted.removeprefix("bytes=").rstrip("-") or 0) if self.ranged else 0

    def offer(self, name: str, raw: bytes, media_type: str = OCI_MANIFEST) -> None:
        self.documents[name] = self.documents[digests.of(raw)] = (media_type, raw)


@pytest.fixture
def source() -> Iterator[Source]:
    found = Source(blobs={digests.of(LAYER): LAYER, digests.of(CONFIG): CONFIG})
    found.offer("latest", manifest())

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path.startswith("/v1/search?"):
                self._send(200, "application/json", found.results)
                return
            kind, name = self.path.split("/")[-2:]
            if kind == "manifests" and name in found.documents:
                self._send(200, *found.documents[name])
            elif kind == "blobs" and name in found.blobs:
                self._blob(found.blobs[name])
            else:
                self._send(200 if self.path == "/v2/" else 404, "text/plain", b"")

        def _send(self, status: int, media_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _blob(self, data: bytes) -> None:
            if len(data) < _SMALL:
                self._send(200, "application/octet-stream", data)
                return
            wanted = self.headers.get("Range", "")
            found.ranges.append(wanted)
            start = found.offset(wanted)
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            if found.cuts:
                self.wfile.write(data[start : start + found.cuts.pop(0)])
                self.close_connection = True
                return
            half = max(start, len(data) // 2)
            with contextlib.suppress(OSError):
                self.wfile.write(data[start:half])
                found.pause()
                self.wfile.write(data[half:])

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.host = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield found
    finally:
        if found.gate is not None:
            found.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()


def pull(daemon: Daemon, source: Source, tag: str = "latest") -> bytes:
    image = quote(f"{source.host}/t/image", safe="")
    return ask(daemon.socket, "POST", f"/images/create?fromImage={image}&tag={tag}")[1]


def remove(daemon: Daemon, source: Source) -> None:
    ask(daemon.socket, "DELETE", f"/images/{quote(f'{source.host}/t/image:latest', safe='')}?force=1")
    ask(daemon.socket, "POST", "/images/prune")


def sizes(daemon: Daemon) -> list[int]:
    """Of the parts of blobs that are kept."""
    return [path.stat().st_size for path in Path(daemon.root, "data/blobs/partial").iterdir()]


def until(daemon: Daemon, reached: Callable[[], bool]) -> None:
    """Keep asking the engine until something has come about."""
    for _ in range(20_000):
        if reached():
            return
        ask(daemon.socket, "GET", "/_ping")
    raise AssertionError("it never came")


def test_a_pull_goes_on_where_a_killed_daemon_was(source: Source) -> None:
    root = tempfile.mkdtemp(prefix="sampan-e2e-")
    daemon = Daemon(socket=f"{root}/run/sampan.sock", root=root)
    source.gate = threading.Event()
    process = serving.start(daemon, ())
    try:
        pulling = threading.Thread(target=_ignored, args=(daemon, source))
        pulling.start()
        assert source.halfway.wait(SECONDS)
        until(daemon, lambda: sum(sizes(daemon)) > 0)
        process.kill()
        process.wait()
        pulling.join()
        source.gate.set()
        process = serving.start(daemon, ())
        (kept,) = sizes(daemon)
        assert 0 < kept <= len(LAYER) // 2
        assert b"Status: Downloaded newer image" in pull(daemon, source)
        assert source.ranges == ["", f"bytes={kept}-"]
        assert sizes(daemon) == []
        assert json.loads(ask(daemon.socket, "POST", "/system/check")[1])["Problems"] == []
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(serving.START_SECONDS)
        shutil.rmtree(root, ignore_errors=True)


def unpacked(daemon: Daemon) -> list[int]:
    """Sizes of the files of that name which the layers have so far."""
    return [path.stat().st_size for path in Path(daemon.root, "data/layers").glob("*/fs/big")]


@pytest.fixture
def large(source: Source) -> Source:
    """The registry, whose image has one large layer."""
    plain = archives.layer(big=random.Random(2).randbytes(LARGE))
    layer, config = gzip.compress(plain, 1, mtime=0), archives.config([plain])
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": archives.descriptor(config, OCI_CONFIG),
        "layers": [archives.descriptor(layer, f"{OCI_LAYER}+gzip")],
    }
    source.blobs |= {digests.of(layer): layer, digests.of(config): config}
    source.offer("latest", json.dumps(document).encode())
    return source


def test_a_layer_is_unpacked_while_it_comes_and_seen_by_nobody(daemon: Daemon, large: Source) -> None:
    source = large
    source.gate = threading.Event()
    pulling = threading.Thread(target=pull, args=(daemon, source))
    pulling.start()
    try:
        until(daemon, lambda: sum(unpacked(daemon)) > 0)
        assert sum(unpacked(daemon)) < LARGE
        assert source.host.encode() not in ask(daemon.socket, "GET", "/images/json?all=1")[1]
        assert json.loads(ask(daemon.socket, "POST", "/system/check")[1])["Problems"] == []
    finally:
        source.gate.set()
        pulling.join()
    assert unpacked(daemon) == [LARGE]
    assert source.ranges == [""]
    remove(daemon, source)
    until(daemon, lambda: unpacked(daemon) == [])


@pytest.mark.parametrize("ranged", [True, False])
def test_a_connection_that_breaks_is_gone_on_with(daemon: Daemon, large: Source, *, ranged: bool) -> None:
    source = large
    source.cuts, source.ranged = [1 << 20, 1 << 19, 0, 1], ranged
    before = os.listdir(f"{daemon.root}/data/layers")
    assert b"Status: Downloaded newer image" in pull(daemon, source)
    came = [0, 1 << 20, 3 << 19, 3 << 19, (3 << 19) + 1] if ranged else [0, 1 << 20, 1 << 19, 0, 1]
    assert source.ranges == [f"bytes={start}-" if start else "" for start in came]
    assert unpacked(daemon) == [LARGE]
    assert json.loads(ask(daemon.socket, "POST", "/system/check")[1])["Problems"] == []
    remove(daemon, source)
    until(daemon, lambda: os.listdir(f"{daemon.root}/data/layers") == before)


def _ignored(daemon: Daemon, source: Source) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        pull(daemon, source)


def test_a_client_that_leaves_leaves_a_part_and_nothing_else(daemon: Daemon, source: Source) -> None:
    source.gate = threading.Event()
    before = os.listdir(f"{daemon.root}/data/blobs/sha256")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(daemon.socket)
        image = quote(f"{source.host}/t/image", safe="")
        target = f"/images/create?fromImage={image}&tag=latest"
        client.sendall(f"POST {target} HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n".encode())
        client.settimeout(SECONDS)
        client.recv(1000)
        assert source.halfway.wait(SECONDS)
        until(daemon, lambda: sum(sizes(daemon)) > 0)
    source.gate.set()
    source.gate = None
    assert os.listdir(f"{daemon.root}/data/blobs/sha256") == before
    assert b"Status: Downloaded newer image" in pull(daemon, source)
    assert sizes(daemon) == []
    remove(daemon, source)


def test_two_pulls_at_once_fetch_a_layer_once(daemon: Daemon, source: Source) -> None:
    source.gate = threading.Event()
    said: list[bytes] = []
    both = [threading.Thread(target=lambda: said.append(pull(daemon, source))) for _ in range(2)]
    for one in both:
        one.start()
    assert source.halfway.wait(SECONDS)
    source.gate.set()
    for one in both:
        one.join()
    assert len(source.ranges) == 1
    assert sum(b"Status: Downloaded newer image" in one for one in said) >= 1
    assert all(b"errorDetail" not in one for one in said)
    remove(daemon, source)


def _endless(source: Source) -> None:
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    raw = json.dumps(index).encode()
    for depth in range(5):
        platform = {"os": "linux", "architecture": "amd64"}
        entry = {
            "mediaType": OCI_INDEX,
            "digest": digests.of(raw),
            "size": len(raw),
            "platform": platform,
            "annotations": {"depth": str(depth)},
        }
        raw = json.dumps({**index, "manifests": [entry]}).encode()
        source.offer("latest", raw, OCI_INDEX)


def _huge(source: Source) -> None:
    source.offer("latest", b" " * (100 << 20))


def _too_long(source: Source) -> None:
    source.offer("latest", manifest(size=len(LAYER) - 1))


def _too_short(source: Source) -> None:
    source.offer("latest", manifest(size=len(LAYER) + 1))


def _other(source: Source) -> None:
    source.blobs[digests.of(LAYER)] = LAYER[:-1] + bytes((LAYER[-1] ^ 1,))


def _foreign(source: Source) -> None:
    media_type = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    source.offer("latest", manifest(mediaType=media_type, urls=["http://x"]))


def _nonsense(source: Source) -> None:
    source.offer("latest", b"[]")


def _deep(source: Source) -> None:
    source.offer("latest", b"[" * 100_000)


def _negative(source: Source) -> None:
    source.offer("latest", manifest(size=-1))


def _path(source: Source) -> None:
    source.offer("latest", manifest(digest="sha256:../../../etc/passwd"))


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (_endless, "leads to more than"),
        (_huge, "larger than the limit"),
        (_too_long, "sends more than"),
        (_too_short, "the registry sent nothing"),
        (_other, "filesystem layer verification failed"),
        (_foreign, "is foreign"),
        (_nonsense, ""),
        (_deep, ""),
        (_negative, ""),
        (_path, ""),
    ],
)
def test_a_lie_is_told_and_leaves_no_trace(
    daemon: Daemon, source: Source, lie: Callable[[Source], None], words: str
) -> None:
    lie(source)
    before = os.listdir(f"{daemon.root}/data/blobs/sha256")
    said = pull(daemon, source)
    message = json.loads(said.splitlines()[-1])
    text = message.get("error") or message["message"]
    assert words in text
    assert "Traceback" not in text
    assert "\n" not in text
    assert os.listdir(f"{daemon.root}/data/blobs/sha256") == before
    ask(daemon.socket, "POST", "/images/prune")
    found = json.loads(ask(daemon.socket, "POST", "/system/check")[1])
    assert found["Problems"] == []
    for path in Path(daemon.root, "data/blobs/partial").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, ["one", "two"]),
        ({"stars": ["5"]}, ["one"]),
        ({"is-official": ["false"]}, ["two"]),
        ({"is-official": ["true"], "stars": ["5"]}, ["one"]),
    ],
)
def test_a_search(daemon: Daemon, source: Source, filters: dict[str, list[str]], names: list[str]) -> None:
    found = [
        {"name": "one", "star_count": 9, "is_official": True, "description": "first"},
        {"name": "two", "description": None},
        {"no": "name"},
    ]
    source.results = json.dumps({"results": found}).encode()
    target = f"/images/search?term={quote(source.host + '/x', safe='')}&filters={quote(json.dumps(filters))}"
    status, said = ask(daemon.socket, "GET", target)
    assert (status, [one["name"] for one in json.loads(said)]) == (200, names), said


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("&limit=101", "limit 101 is outside the range of [1, 100]"),
        ('&filters={"nope":["x"]}', "invalid filter 'nope'"),
        ('&filters={"stars":["x"]}', "invalid filter 'stars=[x]'"),
    ],
)
def test_a_search_that_cannot_be_made(daemon: Daemon, query: str, words: str) -> None:
    status, said = ask(daemon.socket, "GET", f"/images/search?term=x{quote(query, safe='&=')}")
    assert (status, json.loads(said)["message"]) == (400, words)


def test_a_search_that_is_answered_with_nonsense(daemon: Daemon, source: Source) -> None:
    source.results = b"[]"
    status, said = ask(daemon.socket, "GET", f"/images/search?term={quote(source.host + '/x', safe='')}")
    assert status == 503, said


def test_another_platform_than_the_image_has_is_not_pushed(daemon: Daemon, image: str) -> None:
    wanted = quote('{"os":"linux","architecture":"s390x"}')
    target = f"/images/{image.partition(':')[0]}/push?tag=latest&platform={wanted}"
    _, said = ask(daemon.socket, "POST", target)
    words = "was found but does not provide the specified platform (linux/s390x)"
    assert words in json.loads(said.splitlines()[-1])["error"]
    assert ask(daemon.socket, "POST", target + "x")[0] == 400
