"""docker-py connected to the engine of the session, and containers that go with their test."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import docker
import docker.errors
import pytest

from tests.e2e import images
from tests.e2e.serving import Daemon

# docker-py is not typed.
Container: TypeAlias = Any
Run: TypeAlias = Callable[..., Container]


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[docker.DockerClient]:
    connected = docker.DockerClient(base_url=daemon.host, timeout=30)
    yield connected
    connected.close()


@pytest.fixture
def run(client: docker.DockerClient) -> Iterator[Run]:
    """Start a container in the background; it is removed after the test."""
    made: list[Container] = []

    def start(command: object, **options: object) -> Container:
        made.append(client.containers.run(images.NAME, command, detach=True, **options))
        return made[-1]

    yield start
    for container in made:
        with contextlib.suppress(docker.errors.NotFound):
            container.remove(force=True, v=True)
