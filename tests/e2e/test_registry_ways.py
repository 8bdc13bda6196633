"""Ways to a registry that are not straight: mirrors of Docker Hub, and proxies that the environment names."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import pytest

from tests.e2e import proxying, registries, serving
from tests.e2e.conftest import PROGRAMS
from tests.e2e.proxying import Proxy

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("docker-registry"), reason="needs docker-registry"),
]

Run: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"

BEHIND = "behind.test:5000"
"""A registry that only the proxy finds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """An engine, a registry on loopback that is Docker Hub's second mirror, and a proxy."""

    registry: str
    proxy: Proxy
    run: Run


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    place = tmp_path_factory.mktemp("ways")
    with (
        registries.serve(place) as registry,
        proxying.serve({BEHIND: registry}) as proxy,
        pytest.MonkeyPatch.context() as environment,
    ):
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            environment.delenv(name.lower(), raising=False)
            environment.setenv(name, proxy.url)
        environment.setenv("NO_PROXY", "direct.invalid,10.0.0.0/8")
        options = ("--registry-mirror", "http://127.0.0.1:1", "--registry-mirror", f"http://{registry}")
        with serving.daemon(*options, "--insecure-registry", BEHIND) as daemon:
            environment.undo()
            own = {"DOCKER_HOST": daemon.host, "SAMPAN_HOST": daemon.host, "DOCKER_CONFIG": f"{place}/none"}

            def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
                return subprocess.run(
                    [*PROGRAMS[program], *arguments],
                    env={**os.environ, **own},
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=60,
                )

            yield Ways(registry=registry, proxy=proxy, run=run)


@pytest.mark.parametrize("program", ["docker", "sampan"])
def test_a_short_name_is_found_at_the_first_mirror_that_has_it(ways: Ways, image: str, program: str) -> None:
    away = f"{ways.registry}/library/mirrored:x"
    assert ways.run("docker", "tag", image, away).returncode == 0
    assert ways.run("docker", "push", "-q", away).returncode == 0
    assert ways.run("docker", "rmi", away).returncode == 0
    ways.proxy.asked.clear()
    pulled = ways.run(program, "pull", "mirrored:x")
    assert pulled.returncode == 0, pulled.stderr
    assert "Status: Downloaded newer image for mirrored:x" in pulled.stdout
    assert ways.proxy.asked == []
    tags = ways.run(program, "image", "inspect", "--format", "{{.RepoTags}}", "mirrored:x").stdout
    assert "mirrored:x" in tags
    assert ways.registry not in tags
    ways.run("docker", "rmi", "mirrored:x")


@pytest.mark.parametrize("program", ["docker", "sampan"])
def test_a_proxy_is_asked_for_what_is_not_here(ways: Ways, image: str, program: str) -> None:
    name = f"{BEHIND}/{program}:x"
    ways.proxy.asked.clear()
    ways.run("docker", "tag", image, name)
    pushed = ways.run(program, "push", name)
    assert pushed.returncode == 0, pushed.stderr
    ways.run("docker", "rmi", name)
    pulled = ways.run(program, "pull", name)
    assert pulled.returncode == 0, pulled.stderr
    ways.run("docker", "rmi", name)
    methods = {method for method, _ in ways.proxy.asked}
    assert {"GET", "HEAD", "PUT"} <= methods
    # TLS was tried as well, once: an insecure registry may have it.
    assert sum(method == "CONNECT" for method, _ in ways.proxy.asked) <= 1
    assert ways.proxy.refused == 0


def test_the_proxy_is_passed_by_for_loopback_and_what_the_environment_excepts(ways: Ways) -> None:
    ways.proxy.asked.clear()
    here = ways.run("docker", "pull", f"{ways.registry}/nothing:x")
    assert "manifest unknown" in here.stderr
    direct = ways.run("docker", "pull", "direct.invalid/a:x")
    assert "dial tcp: lookup direct.invalid: no such host" in direct.stderr
    assert ways.proxy.asked == []
    proxied = ways.run("docker", "pull", "proxied.invalid/a:x")
    assert proxied.returncode == 1
    assert "502" in proxied.stderr
