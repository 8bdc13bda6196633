"""What comes back, and how, when the host was switched off and is started again."""

from __future__ import annotations

import functools
import glob
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import images, serving
from tests.e2e.talk import ask
from tests.e2e.test_network_crashes import Host, power_off, until

pytestmark = [pytest.mark.root, pytest.mark.e2e]

SERVE = "echo page > /tmp/index.html; exec httpd -f -p 80 -h /tmp"
POLICIES = {"always": "always", "unless": "unless-stopped", "failing": "on-failure:3"}
COMES_BACK = (*POLICIES, "web", "linked", "checked")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    try:
        assert ask(made.served.socket, "POST", "/images/load?quiet=1", images.busybox())[0] == 200
        yield made
    finally:
        for name in made.docker("ps", "-aq").split():
            made.docker("rm", "-f", name)
        made.process.terminate()
        made.process.wait(20)
    assert serving.traces(str(tmp_path)) == []


def state(host: Host, name: str) -> tuple[str, int]:
    """Its status and exit code."""
    status, code = host.docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name).split()
    return status, int(code)


def test_containers_come_back_by_their_policies(host: Host) -> None:
    docker = host.docker
    for name, policy in POLICIES.items():
        docker("run", "-d", "--name", name, "--restart", policy, "busybox", "sleep", "1000")
    docker("run", "-d", "--name", "plain", "busybox", "sleep", "1000")
    docker("run", "-d", "--name", "byhand", "--restart", "unless-stopped", "busybox", "sleep", "1000")
    docker("stop", "-t", "0", "byhand")
    docker("run", "--name", "well", "--restart", "on-failure", "busybox", "true")
    docker("run", "-d", "--rm", "--name", "passing", "busybox", "sleep", "1000")
    docker("network", "create", "--subnet", "10.214.7.0/24", "boot-net")
    docker("volume", "create", "kept")
    fixed = (
        "--network",
        "boot-net",
        "--ip",
        "10.214.7.9",
        "--network-alias",
        "site",
        "-p",
        f"127.0.0.1:{_free_port()}:80",
    )
    always = ("-d", "--restart", "always")
    docker("run", *always, "--name", "web", *fixed, "-v", "kept:/data", "busybox", "sh", "-c", SERVE)
    docker("run", *always, "--name", "linked", "--link", "always:other", "busybox", "sleep", "1000")
    check = ("--health-cmd", "true", "--health-interval", "100ms")
    docker("run", *always, "--name", "checked", *check, "busybox", "sleep", "1000")
    docker("exec", "web", "sh", "-c", "echo word > /data/file; sync")
    port = docker("port", "web", "80")
    network = docker("network", "ls", "-q", "--no-trunc", "--filter", "name=boot-net")
    running = [*COMES_BACK, "plain", "passing"]
    pids = [int(docker("inspect", "-f", "{{.State.Pid}}", name)) for name in running]
    host.kill()
    power_off(host, pids, [f"br-{network[:12]}"])
    for path in _id_blocks(host):
        os.unlink(path)
    assert serving.traces(host.served.root) == []

    host.again()
    for name in COMES_BACK:
        until(functools.partial(host.runs, name))
    assert {name: docker("inspect", "-f", "{{.RestartCount}}", name) for name in COMES_BACK} == dict.fromkeys(
        COMES_BACK, "0"
    )
    assert state(host, "plain") == ("exited", 255)
    assert state(host, "byhand") == ("exited", 137)
    assert state(host, "well") == ("exited", 0)
    assert "passing" not in docker("ps", "-a", "--format", "{{.Names}}").split()
    _the_network_is_as_before(host, port)
    until(lambda: docker("inspect", "-f", "{{.State.Health.Status}}", "checked") == "healthy")
    assert docker("exec", "web", "cat", "/data/file") == "word"
    assert len(_id_blocks(host)) == 1
    docker("rm", "-f", *COMES_BACK, "plain", "byhand", "well")
    docker("network", "rm", "boot-net")
    docker("volume", "rm", "kept")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _the_network_is_as_before(host: Host, port: str) -> None:
    docker = host.docker
    assert docker("port", "web", "80") == port
    page = subprocess.run(["busybox", "wget", "-qO-", f"http://{port}/"], capture_output=True, check=True)
    assert page.stdout == b"page\n"
    address = json.loads(docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", "web"))["boot-net"]
    assert address["IPAddress"] == "10.214.7.9"
    assert "10.214.7.9" in docker("exec", "web", "cat", "/etc/hosts")
    assert docker("run", "--rm", "--network", "boot-net", "busybox", "wget", "-qO-", "http://site/") == "page"
    other = docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "always")
    assert f"{other}\tother" in docker("exec", "linked", "cat", "/etc/hosts")
    docker("exec", "linked", "ping", "-c", "1", "other")


def _id_blocks(host: Host) -> list[str]:
    """The host's notes of which ids are this engine's."""
    owner = f"{host.served.root}/data"
    return [path for path in glob.glob("/run/sampan-ids/*.json") if owner in Path(path).read_text()]
