"""An engine to attack, with busybox:latest. What attacks make is removed after each."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.e2e import conftest as live
from tests.e2e.serving import Daemon
from tests.e2e.talk import ask

Docker: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"

daemon = live.daemon
docker = live.docker

OWN_IDS, HOSTS_IDS = (), ("--userns", "host")


@pytest.fixture(params=[OWN_IDS, HOSTS_IDS], ids=["own-ids", "hosts-ids"])
def ids(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The flags of a container with ids of its own, and of one that fell back to the host's."""
    given: tuple[str, ...] = request.param
    return given


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory of the host that anybody may read and write: no user ids stand before it."""
    path = Path(tempfile.mkdtemp(prefix="sampan-public-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def engine(daemon: Daemon, docker: str) -> Iterator[Docker]:
    """Run docker with arguments, whatever comes of it; attacks do not get longer than 30 seconds."""

    def run(*arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [docker, "-H", daemon.host, *arguments],
            input=stdin,
            capture_output=True,
            timeout=30,
            check=False,
            env={"PATH": "/usr/bin:/bin", "DOCKER_BUILDKIT": "0", "DOCKER_CONFIG": f"{daemon.root}/none"},
        )
        return subprocess.CompletedProcess(
            done.args,
            done.returncode,
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
        )

    yield run
    for box in json.loads(ask(daemon.socket, "GET", "/containers/json?all=1")[1]):
        ask(daemon.socket, "DELETE", f"/containers/{box['Id']}?force=1&v=1")
    ask(daemon.socket, "POST", "/volumes/prune?filters=%7B%22all%22:%5B%221%22%5D%7D")
    for image in json.loads(ask(daemon.socket, "GET", "/images/json")[1]):
        if any(name.startswith("evil") for name in image["RepoTags"]):
            ask(daemon.socket, "DELETE", f"/images/{image['Id']}?force=1")
