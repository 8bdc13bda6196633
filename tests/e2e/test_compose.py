"""Debian's docker-compose over two services: dependency on health, a volume, a restart policy."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.e2e import images
from tests.e2e.conftest import PROGRAMS, Client
from tests.e2e.packages import program
from tests.e2e.serving import Daemon

pytestmark = [pytest.mark.root, pytest.mark.e2e]

Compose: TypeAlias = Callable[..., "subprocess.CompletedProcess[str]"]

PROJECT = f"""
services:
  store:
    image: {images.NAME}
    network_mode: bridge
    command: [sh, -c, "echo stored >/data/file; echo store is up; touch /tmp/well; exec sleep 1000"]
    stop_signal: SIGKILL
    volumes: ["kept:/data"]
    healthcheck:
      test: [CMD, test, -e, /tmp/well]
      interval: 0.2s
      timeout: 5s
      retries: 50
  web:
    image: {images.NAME}
    network_mode: bridge
    command: [sh, -c, "cat /data/file; trap 'exit 7' TERM; while :; do sleep 0.05; done"]
    volumes: ["kept:/data:ro"]
    restart: on-failure
    environment: {{ROLE: front}}
    labels: {{kind: web}}
    depends_on:
      store: {{condition: service_healthy}}
volumes:
  kept:
"""


MANY = f"""
services:
  store:
    image: {images.NAME}
    command: [sh, -c, "echo stored >/data/file; exec httpd -f -p 6379 -h /data"]
    volumes: ["kept:/data"]
    networks: {{default: {{aliases: [redis]}}}}
  web:
    image: {images.NAME}
    command: [sleep, "1000"]
    ports: ["80"]
    depends_on: [store]
volumes:
  kept:
"""


@pytest.fixture(params=[PROJECT])
def compose(daemon: Daemon, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Compose]:
    """Run ``docker-compose`` on the project; it is taken down after the test."""
    path = program("docker-compose")
    (tmp_path / "compose.yml").write_text(request.param)
    environment = {"DOCKER_HOST": daemon.host, "HOME": str(tmp_path), "PATH": os.environ["PATH"]}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [path, "--no-ansi", "-p", "shop", "-f", f"{tmp_path}/compose.yml", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment,
            timeout=120,
            check=False,
        )

    yield run
    run("down", "-v", "-t", "0")


@pytest.fixture
def inspect(environment: dict[str, str]) -> Callable[[str], dict[str, object]]:
    """The document of a container."""

    def look(name: str) -> dict[str, object]:
        command = [*PROGRAMS["sampan"], "inspect", name]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found: dict[str, object] = json.loads(done.stdout)[0]
        return found

    return look


def test_a_project_lives(compose: Compose, inspect: Callable[[str], dict[str, object]]) -> None:
    up = compose("up", "-d")
    assert up.returncode == 0, up.stderr
    store, web = inspect("shop_store_1"), inspect("shop_web_1")
    assert store["State"]["Health"]["Status"] == "healthy"  # type: ignore[index]
    assert web["State"]["StartedAt"] > store["State"]["StartedAt"]  # type: ignore[index]
    assert web["HostConfig"]["RestartPolicy"]["Name"] == "on-failure"  # type: ignore[index]

    listed = compose("ps")
    assert listed.stdout.count("Up") == 2
    assert "healthy" in listed.stdout
    assert len(compose("ps", "-q", "web").stdout.split()) == 1
    logs = compose("logs", "--no-color")
    assert "store_1  | store is up\n" in logs.stdout
    assert "web_1    | stored\n" in logs.stdout
    said = compose("exec", "-T", "web", "sh", "-c", "echo $ROLE; exit 3")
    assert (said.returncode, said.stdout) == (3, "front\n")
    assert "sleep" in compose("top", "store").stdout

    again = compose("up", "-d")
    assert again.returncode == 0
    assert inspect("shop_web_1")["Id"] == web["Id"]  # nothing changed, so nothing is made anew
    assert compose("restart", "-t", "1", "web").returncode == 0
    assert inspect("shop_web_1")["State"]["Running"] is True  # type: ignore[index]
    killed = compose("kill", "-s", "TERM", "web")
    assert killed.returncode == 0

    down = compose("down", "-v", "-t", "0")
    assert down.returncode == 0, down.stderr
    assert compose("ps", "-q").stdout == ""


@pytest.mark.parametrize("compose", [MANY], indirect=True)
def test_a_project_of_its_own_network(compose: Compose, client: Client) -> None:
    """Names are found both ways, by service, alias and container; three of a service answer to one name."""

    def docker(*arguments: str) -> str:
        done = client("docker", arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    up = compose("up", "-d", "--scale", "web=3")
    assert up.returncode == 0, up.stderr
    store = "shop_store_1"
    for name in ("store", "redis", store):
        fetched = f"until nc {name} 6379 </dev/null; do sleep 0.02; done"
        docker("exec", "shop_web_2", "sh", "-c", fetched)
    found = docker("exec", store, "nslookup", "web")
    assert found.count("Address: ") == 3
    for number in (1, 2, 3):
        docker("exec", store, "ping", "-c", "1", "-W", "2", f"shop_web_{number}")
    assert len({compose("port", "--index", str(n), "web", "80").stdout for n in (1, 2, 3)}) == 3
    assert docker("network", "ls", "-q", "--filter", "name=shop_default") != ""
    down = compose("down", "-v", "-t", "0")
    assert down.returncode == 0, down.stderr
    for listing in (
        ("ps", "-aq"),
        ("network", "ls", "-q", "--filter", "type=custom"),
        ("volume", "ls", "-q", "--filter", "name=shop_"),
    ):
        assert docker(*listing) == ""


def test_a_plugin_of_dockers_client_is_a_command(
    environment: dict[str, str], tmp_path: Path, daemon: Daemon
) -> None:
    folder = tmp_path / "cli-plugins"
    folder.mkdir(parents=True)
    plugin = folder / "docker-hello"
    plugin.write_text(
        '#!/bin/sh\ntest "$1" != docker-cli-plugin-metadata || { echo \'{"SchemaVersion": "0.1.0", '
        '"ShortDescription": "Says hello"}\'; exit; }\necho "$DOCKER_HOST: $*"\nexit 5\n'
    )
    plugin.chmod(0o755)

    def sampan(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAMS["sampan"], *arguments],
            env={**environment, "DOCKER_CONFIG": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )

    done = sampan("hello", "--to", "you")
    assert (done.returncode, done.stdout) == (5, f"{daemon.host}: hello --to you\n")
    assert "hello*" in sampan("--help").stdout
    absent = sampan("compose", "up")
    assert absent.returncode == 1
    assert absent.stderr.startswith("sampan compose: Docker's Compose plugin is not installed")
