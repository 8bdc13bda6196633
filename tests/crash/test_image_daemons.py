"""A daemon killed at random moments of loads, pulls, tags, removals and prunes: the next one's store is true.

Law under test: what was acknowledged is there, `system check` finds no problem, which is that every blob
and layer is what an image needs and none is more, and nothing unfinished is left but parts of blobs that
can be gone on with. ``SAMPAN_CRASHES`` says how many times (6), ``SAMPAN_SEED`` where chance begins; the
seed is printed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest

from tests import archives
from tests.e2e import registries, serving
from tests.e2e.serving import Daemon
from tests.e2e.talk import ask

pytestmark = pytest.mark.root

CRASHES = int(os.environ.get("SAMPAN_CRASHES", "6"))
NAMES = ("a:1", "b:1", "c:1")
PULLED = 3  # layers of the image that is pulled
LARGE = 17 << 20  # bytes of one that is unpacked while it comes
_GONE = (OSError, http.client.HTTPException)


@dataclass(slots=True)
class Expected:
    """Names that are there, and those of which a killed request leaves it open."""

    there: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)


def archive(number: int) -> bytes:
    chance = random.Random(number)
    shared = archives.layer(base=chance.randbytes(300_000), small=b"1")
    own = archives.layer(own=random.Random(number % 2).randbytes(700_000))
    return archives.pack(archives.docker_files([shared, own], [NAMES[number]]))


def work(daemon: Daemon, chance: random.Random, expected: Expected, pulled: str) -> None:
    """Ask for one thing after another until the daemon is gone."""
    uploads = [archive(number) for number in range(len(NAMES))]
    while True:
        what = chance.choice(("load", "load", "tag", "remove", "prune", "pull"))
        name = chance.choice(NAMES)
        if what in ("tag", "remove") and name not in expected.there:
            continue
        touched = {"load": name, "tag": "t:1", "remove": name, "pull": pulled}.get(what, "")
        was = touched in expected.there
        expected.open = {touched} if touched else set()
        expected.there -= expected.open
        try:
            done = request(daemon, what, name, uploads, pulled)
        except _GONE:
            if was and what != "remove":
                expected.open.clear()
                expected.there.add(touched)
            return
        expected.open = set()
        if touched and (what != "remove" if done else was):
            expected.there.add(touched)


def request(daemon: Daemon, what: str, name: str, uploads: list[bytes], pulled: str) -> bool:
    if what == "load":
        status, said = ask(daemon.socket, "POST", "/images/load", uploads[NAMES.index(name)])
        return status == 200 and b"Loaded image" in said
    if what == "pull":
        image, _, tag = pulled.rpartition(":")
        target = f"/images/create?fromImage={quote(image, safe='')}&tag={tag}"
        status, said = ask(daemon.socket, "POST", target)
        return status == 200 and b"Status: " in said
    method, target = {
        "tag": ("POST", f"/images/{name}/tag?repo=t&tag=1"),
        "remove": ("DELETE", f"/images/{name}"),
        "prune": ("POST", "/images/prune"),
    }[what]
    return ask(daemon.socket, method, target)[0] < 300


def names(daemon: Daemon) -> set[str]:
    listed = json.loads(ask(daemon.socket, "GET", "/images/json")[1])
    return {name for image in listed for name in image["RepoTags"] or ()}


def emptied(daemon: Daemon, directory: str) -> bool:
    """Whether the engine, which is asked for nothing, comes to leave nothing there."""
    for _ in range(5_000):
        if not os.listdir(directory):
            return True
        ask(daemon.socket, "GET", "/_ping")
    return False


@contextlib.contextmanager
def source() -> Iterator[str]:
    """A name of an image in a registry of its own."""
    with tempfile.TemporaryDirectory() as place, registries.serve(Path(place)) as host:
        sizes = (2 << 20, LARGE)
        layers = [archives.layer(big=random.Random(size).randbytes(size)) for size in sizes]
        layers.append(archives.layer(pulled=b"1"))
        Path(place, "i.tar").write_bytes(archives.pack(archives.docker_files(layers, ["x:1"])))
        copied = [f"docker-archive:{place}/i.tar", f"docker://{host}/crash/image:1"]
        subprocess.run(["skopeo", "copy", "-q", "--dest-tls-verify=false", *copied], check=True)
        yield f"{host}/crash/image:1"


@pytest.mark.skipif(not shutil.which("docker-registry") or not shutil.which("skopeo"), reason="no registry")
def test_killed_at_random() -> None:
    seed = int(os.environ.get("SAMPAN_SEED") or random.randrange(1 << 30))
    print(f"seed {seed}")
    chance = random.Random(seed)
    root = tempfile.mkdtemp(prefix="sampan-e2e-")
    daemon = Daemon(socket=f"{root}/run/sampan.sock", root=root)
    expected = Expected()
    with source() as pulled:
        process = serving.start(daemon, ())
        try:
            for crash in range(CRASHES):
                worker = threading.Thread(target=work, args=(daemon, chance, expected, pulled))
                worker.start()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(chance.uniform(0.02, 0.8))
                process.kill()
                process.wait()
                worker.join()
                process = serving.start(daemon, ())
                status, said = ask(daemon.socket, "POST", "/system/check")
                where = f"seed {seed}, crash {crash}"
                assert (status, json.loads(said)["Problems"]) == (200, []), where
                assert emptied(daemon, f"{root}/data/tmp"), where
                assert len(os.listdir(f"{root}/data/blobs/partial")) <= PULLED, where
                left = names(daemon)
                assert expected.there <= left <= expected.there | expected.open, where
                expected.there, expected.open = left, set()
            for name in names(daemon):
                ask(daemon.socket, "DELETE", f"/images/{quote(name, safe='')}?force=1")
            ask(daemon.socket, "POST", "/images/prune")
            assert json.loads(ask(daemon.socket, "POST", "/system/check")[1])["Problems"] == [], seed
            assert os.listdir(f"{root}/data/blobs/sha256") == [], seed
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(serving.START_SECONDS)
            shutil.rmtree(root, ignore_errors=True)
