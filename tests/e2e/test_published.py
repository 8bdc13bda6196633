"""Published ports as users have them: -p, -P, ranges, addresses, conflicts; what ps, port and inspect say."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.e2e import images, serving
from tests.e2e.conftest import Client
from tests.e2e.talk import ask

Cli: TypeAlias = Callable[..., str]

pytestmark = [pytest.mark.root, pytest.mark.e2e]

# httpd answers only what is there; the loop is there before the port is asked.
SERVE = ("sh", "-c", "echo found >/index.html; exec httpd -f -p 80")


@pytest.fixture
def cli(client: Client) -> Iterator[Cli]:
    """Run Docker's client; the containers that the tests name are removed afterwards."""

    def run(*arguments: str, fails: bool = False) -> str:
        done: subprocess.CompletedProcess[str] = client("docker", arguments)
        assert (done.returncode != 0) is fails, done.stderr
        return done.stderr if fails else done.stdout

    yield run
    client("docker", ["rm", "-f", "pub-one", "pub-two"])


def fetch(address: str, port: int) -> str:
    """What the web server at a port says; it is waited for."""
    with socket.create_connection((address, port), timeout=10) as connection:
        connection.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
        said = b""
        while data := connection.recv(4096):
            said += data
    return said.decode().rpartition("\r\n\r\n")[2]


def serving_at(cli: Cli, *flags: str) -> dict[str, list[dict[str, str]]]:
    """Start a web server, wait until it listens; where its ports are published."""
    cli("run", "-d", "--name", "pub-one", *flags, "busybox", *SERVE)
    cli("exec", "pub-one", "sh", "-c", "until nc 127.0.0.1 80 </dev/null; do sleep 0.02; done")
    return json.loads(cli("inspect", "-f", "{{json .NetworkSettings.Ports}}", "pub-one"))  # type: ignore[no-any-return]


def test_a_port_is_published(cli: Cli) -> None:
    ports = serving_at(cli, "-p", "80", "-p", "127.0.0.1::80", "--expose", "90")
    number = ports["80/tcp"][0]["HostPort"]
    assert ports["80/tcp"][0] == {"HostIp": "0.0.0.0", "HostPort": number}
    assert ports["90/tcp"] is None
    assert fetch("127.0.0.1", int(number)) == "found\n"
    assert fetch("127.0.0.1", int(ports["80/tcp"][-1]["HostPort"])) == "found\n"
    if {"HostIp": "::", "HostPort": number} in ports["80/tcp"]:
        assert fetch("::1", int(number)) == "found\n"
    assert f"0.0.0.0:{number}->80/tcp" in cli("ps", "--format", "{{.Ports}}")
    assert cli("port", "pub-one", "80").splitlines()[0] == f"0.0.0.0:{number}"
    assert cli("ps", "-q", "--filter", f"publish={number}") != ""
    cli("stop", "-t", "0", "pub-one")
    with pytest.raises(ConnectionRefusedError):
        fetch("127.0.0.1", int(number))
    cli("start", "pub-one")
    assert "80/tcp -> 0.0.0.0:" in cli("port", "pub-one")


def test_a_port_that_is_taken(cli: Cli) -> None:
    ports = serving_at(cli, "-p", "80")
    number = ports["80/tcp"][0]["HostPort"]
    said = cli("run", "--rm", "-p", f"{number}:80", "busybox", "true", fails=True)
    assert "driver failed programming external connectivity on endpoint" in said
    assert f"Bind for 0.0.0.0:{number} failed: port is already allocated" in said
    with socket.create_server(("0.0.0.0", 0)) as server:
        taken = server.getsockname()[1]
        said = cli("run", "--rm", "-p", f"{taken}:80", "busybox", "true", fails=True)
    assert f"failed to bind host port for 0.0.0.0:{taken}:" in said
    assert "address already in use" in said


def test_all_exposed_ports(cli: Cli) -> None:
    cli("run", "-d", "--name", "pub-one", "-P", "--expose", "7000-7002", "busybox", "sleep", "1000")
    lines = cli("port", "pub-one").splitlines()
    assert {line.split(" ")[0] for line in lines} == {"7000/tcp", "7001/tcp", "7002/tcp"}


def test_a_container_reaches_itself_and_others_by_the_hosts_ports(cli: Cli) -> None:
    ports = serving_at(cli, "-p", "80")
    number = ports["80/tcp"][0]["HostPort"]
    gateway = cli("network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}").strip()
    ask_for_it = f"printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {gateway} {number} | tail -1"
    assert cli("exec", "pub-one", "sh", "-c", ask_for_it) == "found\n"
    assert cli("run", "--rm", "busybox", "sh", "-c", ask_for_it) == "found\n"


def test_ports_outlive_the_daemon(tmp_path: Path) -> None:
    served = serving.Daemon(socket=f"{tmp_path}/run/sampan.sock", root=str(tmp_path))
    process = serving.start(served, ())

    def docker(*arguments: str) -> str:
        command = ["docker", "-H", served.host, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    try:
        assert ask(served.socket, "POST", "/images/load?quiet=1", images.busybox())[0] == 200
        docker("run", "-d", "--name", "one", "-p", "80", "busybox", *SERVE)
        docker("exec", "one", "sh", "-c", "until nc 127.0.0.1 80 </dev/null; do sleep 0.02; done")
        before = docker("port", "one")
        number = int(before.splitlines()[0].rpartition(":")[2])
        process.kill()
        process.wait()
        assert fetch("127.0.0.1", number) == "found\n"
        process = serving.start(served, ())
        assert docker("port", "one") == before
        assert fetch("127.0.0.1", number) == "found\n"
        docker("rm", "-f", "one")
        with pytest.raises(ConnectionRefusedError):
            fetch("127.0.0.1", number)
    finally:
        process.terminate()
        assert process.wait(serving.START_SECONDS) == 0
