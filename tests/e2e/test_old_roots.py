"""Data roots of older versions open in this one, with everything in them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import oldroots
from tests.e2e import serving
from tests.e2e.serving import Daemon
from tests.e2e.talk import ask

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

KEPT = sorted(oldroots.ROOTS.glob("*.tar.gz"))


@pytest.fixture(params=KEPT, ids=lambda path: path.name.partition(".")[0])
def opened(request: pytest.FixtureRequest) -> Iterator[tuple[Daemon, Path]]:
    """A daemon on a copy of an older root; nothing of it is left, and no error was logged."""
    root = tempfile.mkdtemp(prefix="sampan-e2e-")
    os.mkdir(f"{root}/data", 0o711)
    tar = ["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", f"{root}/data", "-xpzf"]
    subprocess.run([*tar, request.param], check=True)
    daemon = Daemon(socket=f"{root}/run/sampan.sock", root=root)
    process = serving.start(daemon, ())
    try:
        yield daemon, request.param.with_name(request.param.name.partition(".")[0] + ".json")
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
        left = serving.traces(root)
        log = Path(root, "log").read_text()
        shutil.rmtree(root)
    assert (code, left) == (0, [])
    assert "level=error" not in log, log


def test_there_is_one() -> None:
    assert KEPT


def test_everything_is_there_and_works(opened: tuple[Daemon, Path]) -> None:
    daemon, told = opened
    assert json.loads(json.dumps(oldroots.described(daemon))) == json.loads(told.read_text())

    def post(path: str) -> bytes:
        status, body = ask(daemon.socket, "POST", path, b"" if "create" not in path else b"{}")
        assert status < 300, body
        return body

    checked = json.loads(post("/system/check"))
    assert checked["Problems"] == []
    post("/containers/kept/start")
    assert json.loads(post("/containers/kept/wait"))["StatusCode"] == 0
    status, logs = ask(daemon.socket, "GET", "/containers/kept/logs?stdout=1")
    assert (status, logs.count(oldroots.WORD)) == (200, 2)
    post("/containers/made/start")
    assert json.loads(post("/containers/made/wait"))["StatusCode"] == 0
    for name in ("kept", "made"):
        assert ask(daemon.socket, "DELETE", f"/containers/{name}?v=1")[0] == 204
    for name in ("tiny:built", "example.test:5000/tiny:3", "tiny:2", "tiny:1"):
        assert ask(daemon.socket, "DELETE", f"/images/{name}")[0] == 200
    assert ask(daemon.socket, "DELETE", "/volumes/data")[0] == 204
    assert ask(daemon.socket, "DELETE", "/networks/net")[0] == 204
    assert json.loads(post("/system/check"))["Problems"] == []
