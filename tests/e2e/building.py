"""One client with a folder to build, and the fixtures of modules that build."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import docker
import pytest

from tests.e2e.conftest import PROGRAMS
from tests.e2e.serving import Daemon

Result: TypeAlias = "subprocess.CompletedProcess[str]"
NAME = "built:test"


class Builder:
    """One client with a folder to build."""

    def __init__(self, words: list[str], environment: dict[str, str], folder: Path) -> None:
        self._words = words
        self._environment = environment
        self.folder = folder

    def file(self, name: str, text: str = "", mode: int = 0o644) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def run(self, *arguments: str, text: str | bytes = "", **variables: str) -> Result:
        data = text.encode() if isinstance(text, str) else text
        done = subprocess.run(
            [*self._words, *arguments],
            input=data,
            capture_output=True,
            env={**self._environment, **variables},
            timeout=120,
            check=False,
        )
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        err = err.partition("environment-variable.\n\n")[2] if err.startswith("DEPRECATED") else err
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def build(self, dockerfile: str, *arguments: str, **variables: str) -> Result:
        self.file("Dockerfile", dockerfile)
        return self.run("build", "-t", NAME, *arguments, str(self.folder), **variables)

    def built(self, dockerfile: str, *arguments: str, **variables: str) -> str:
        """What it says; it must succeed."""
        done = self.build(dockerfile, *arguments, **variables)
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout

    def sh(self, script: str) -> str:
        """What a shell in the image prints."""
        done = self.run("run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", NAME, "-c", script)
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout

    def forget(self, *names: str) -> None:
        """Have nothing remain of what was built by ``NAME`` and ``names``, nor of the cache."""
        client = docker.APIClient(base_url=self._environment["SAMPAN_HOST"], version="1.41")
        for name in (NAME, *names):
            with contextlib.suppress(docker.errors.NotFound):
                client.remove_image(name, force=True)
        client.prune_images()  # what a later build of the same name left without one
        client.prune_builds(all=True)
        client.close()

    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("image", "inspect", NAME).stdout)[0]["Config"]
        return found


@pytest.fixture(scope="module", autouse=True)
def nothing_left(daemon: Daemon) -> Iterator[None]:
    """Other modules count what there is."""
    yield
    client = docker.DockerClient(base_url=daemon.host)
    client.images.prune()
    client.api.prune_builds(all=True)
    client.close()


@pytest.fixture(params=["docker", "sampan"])
def builder(request: pytest.FixtureRequest, environment: dict[str, str], tmp_path: Path) -> Iterator[Builder]:
    found = Builder(PROGRAMS[request.param], {**environment, "DOCKER_BUILDKIT": "0"}, tmp_path / "context")
    found.folder.mkdir()
    yield found
    found.forget()


@pytest.fixture(name="builder")
def own_builder(environment: dict[str, str], tmp_path: Path) -> Iterator[Builder]:
    """``sampan`` alone, with an empty folder; what it builds is gone afterwards."""
    found = Builder(PROGRAMS["sampan"], environment, tmp_path / "context")
    found.folder.mkdir()
    yield found
    found.forget()
