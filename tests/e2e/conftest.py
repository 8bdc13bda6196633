"""One live engine for all end-to-end tests, which remove the containers and images that they make."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import pytest

from tests.e2e import images, registries, serving
from tests.e2e.serving import Daemon

Client: TypeAlias = Callable[..., "subprocess.CompletedProcess[str]"]

PROGRAMS = {"docker": ["docker"], "sampan": [sys.executable, "-m", "sampan"]}


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    """A daemon of its own root, which has the image busybox:latest."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with serving.daemon() as served:
        yield served


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a registry, at first empty."""
    if shutil.which("docker-registry") is None:
        pytest.skip("needs docker-registry")
    with registries.serve(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(scope="session")
def docker() -> str:
    """The path of Docker's client."""
    found = shutil.which("docker")
    if found is None:
        pytest.skip("there is no docker CLI to compare with")
    return found


@pytest.fixture(scope="session")
def environment(daemon: Daemon, docker: str) -> dict[str, str]:
    """Environment in which both clients find the engine, and no settings of whoever runs the tests."""
    place = {"DOCKER_HOST": daemon.host, "SAMPAN_HOST": daemon.host, "DOCKER_CONFIG": f"{daemon.root}/none"}
    return {**os.environ, **place}


@pytest.fixture(scope="session")
def image() -> str:
    """An image with busybox's commands."""
    return images.NAME


@pytest.fixture
def client(environment: dict[str, str]) -> Client:
    """Run ``docker`` or ``sampan`` with arguments."""

    def run(program: str, arguments: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAMS[program], *arguments],
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=300,
            check=False,
        )

    return run
