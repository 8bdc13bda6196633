"""User-defined networks as users of either client have them: made, joined, left, found by name, removed."""

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

BOXES = ("net-one", "net-two", "net-three")
NETWORKS = ("net-a", "net-b", "net-c")


@pytest.fixture
def cli(client: Client) -> Iterator[Cli]:
    """Run Docker's client; what it makes is removed after the test."""

    def run(*arguments: str, fails: bool = False) -> str:
        done: subprocess.CompletedProcess[str] = client("docker", arguments)
        assert (done.returncode != 0) is fails, done.stderr
        return done.stderr if fails else done.stdout

    yield run
    client("docker", ["rm", "-f", *BOXES])
    client("docker", ["network", "rm", *NETWORKS])


def settings(cli: Cli, box: str) -> dict[str, dict[str, str]]:
    return json.loads(cli("inspect", "-f", "{{json .NetworkSettings.Networks}}", box))  # type: ignore[no-any-return]


def test_a_network_lives(cli: Cli) -> None:
    made = cli("network", "create", "--label", "a=b", "--subnet", "10.213.7.0/24", "net-a").strip()
    (shown,) = json.loads(cli("network", "inspect", "net-a"))
    assert (shown["Id"], shown["Driver"], shown["Labels"]) == (made, "bridge", {"a": "b"})
    assert shown["IPAM"]["Config"] == [{"Subnet": "10.213.7.0/24"}]
    assert cli("network", "ls", "-q", "--filter", "type=custom") == f"{made[:12]}\n"
    said = cli("network", "create", "net-a", fails=True)
    assert said == "Error response from daemon: network with name net-a already exists\n"
    said = cli("network", "create", "--subnet", "10.213.7.0/25", "net-b", fails=True)
    assert "Pool overlaps with other one on this address space" in said

    cli("run", "-d", "--name", "net-one", "--network", "net-a", "busybox", "sleep", "1000")
    place = settings(cli, "net-one")["net-a"]
    assert (place["IPAddress"], place["Gateway"]) == ("10.213.7.2", "10.213.7.1")
    assert place["MacAddress"] == "02:42:0a:d5:07:02"
    said = cli("network", "rm", "net-a", fails=True)
    assert f"error while removing network: network net-a id {made} has active endpoints" in said
    cli("stop", "-t", "0", "net-one")
    assert settings(cli, "net-one")["net-a"]["IPAddress"] == ""
    cli("rm", "net-one")
    assert cli("network", "prune", "-f") == "Deleted Networks:\nnet-a\n\n"


def test_addresses_that_are_asked_for(cli: Cli) -> None:
    cli("network", "create", "--subnet", "10.213.8.0/24", "--aux-address", "r=10.213.8.9", "net-a")
    run = ("run", "-d", "--name", "net-one", "--network", "net-a", "--mac-address", "02:42:00:00:00:09")
    cli(*run, "--ip", "10.213.8.77", "busybox", "sleep", "1000")
    place = settings(cli, "net-one")["net-a"]
    assert (place["IPAddress"], place["MacAddress"]) == ("10.213.8.77", "02:42:00:00:00:09")
    for address, words in (
        ("10.213.8.77", "Address already in use"),
        ("10.213.8.9", "Address already in use"),
        ("10.213.8.1", "Address already in use"),
        ("10.9.9.9", "no configured subnet contains IP address 10.9.9.9"),
    ):
        said = cli("run", "--rm", "--network", "net-a", "--ip", address, "busybox", "true", fails=True)
        assert words in said


def test_ipv6(cli: Cli, client: Client, daemon: serving.Daemon) -> None:
    cli("network", "create", "--ipv6", "--subnet", "fd5a:1::/64", "--ip-range", "fd5a:1::100/120", "net-a")
    cli("network", "create", "--ipv6", "--ipv4=false", "net-b")
    (shown,) = json.loads(cli("network", "inspect", "net-a"))
    assert (shown["EnableIPv6"], len(shown["IPAM"]["Config"])) == (True, 2)
    run = ("run", "-d", "--network", "net-a", "--name")
    cli(*run, "net-one", "-p", "8095:80", "--ip6", "fd5a:1::77", "busybox", "httpd", "-f")
    cli(*run, "net-two", "busybox", "sleep", "1000")
    assert settings(cli, "net-one")["net-a"]["GlobalIPv6Address"] == "fd5a:1::77"
    assert settings(cli, "net-two")["net-a"]["GlobalIPv6Address"] == "fd5a:1::101"
    cli("exec", "net-two", "ping", "-6", "-c", "1", "-W", "5", "net-one")
    assert "Address: fd5a:1::77" in cli("exec", "net-two", "nslookup", "-type=aaaa", "net-one")
    assert "net-one.net-a" in cli("exec", "net-two", "nslookup", "fd5a:1::77")
    cli("exec", "net-one", "sh", "-c", "until netstat -ltn | grep -q ':80 '; do :; done")
    for address in ("::1", "127.0.0.1"):
        with socket.create_connection((address, 8095), timeout=30) as browser:
            browser.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert browser.recv(100).startswith(b"HTTP/1.")
    found = json.loads(ask(daemon.socket, "GET", "/system/ports")[1])
    told = {port["Host"]: port["ReachedBy"] for port in found if port["Container"] == "net-one"}
    assert told[""] == ["host", "network net-a"]
    assert told["[::]:8095"][:2] == ["host", "containers with a way out"]
    assert "net-one" in client("sampan", ["system", "ports"]).stdout
    # Another network takes over where the first one led out.
    cli("network", "connect", "net-b", "net-two")
    cli("network", "disconnect", "net-a", "net-two")
    (place,) = settings(cli, "net-two").values()
    assert place["IPAddress"] == ""
    way_out = cli("exec", "net-two", "ip", "-6", "route", "show", "default")
    assert f"default via {place['IPv6Gateway']} dev eth1" in way_out


def test_a_configuration_is_kept_and_used(cli: Cli) -> None:
    words = ("--config-only", "--subnet", "10.213.9.0/24", "--label", "a=b")
    cli("network", "create", *words, "net-a")
    cli("network", "create", "--config-from", "net-a", "net-b")
    (shown,) = json.loads(cli("network", "inspect", "net-b"))
    assert shown["IPAM"]["Config"] == [{"Subnet": "10.213.9.0/24"}]
    assert (shown["ConfigFrom"], shown["Labels"]) == ({"Network": "net-a"}, {"a": "b"})
    for arguments, said in (
        (("run", "--rm", "--network", "net-a", "busybox", "true"), "endpoint on configuration-only network"),
        (("network", "rm", "net-a"), 'configuration network "net-a" is in use'),
        (("network", "create", "--config-from", "net-b", "net-c"), 'network "net-b" does not exist'),
        (("network", "create", "--config-from", "net-a", "-o", "a=b", "net-c"), "options are not supported"),
        (
            ("network", "create", "--config-only", "--internal", "net-c"),
            "only contain network specific fields",
        ),
    ):
        assert said in cli(*arguments, fails=True)
    cli("run", "--rm", "--network", "net-b", "busybox", "true")
    # A configuration is never unused.
    assert cli("network", "prune", "-f") == "Deleted Networks:\nnet-b\n\n"
    assert cli("network", "inspect", "-f", "{{.Driver}} {{.ConfigOnly}}", "net-a") == "null true\n"


def test_a_network_beside_the_host(cli: Cli) -> None:
    cli("network", "create", "-d", "macvlan", "--subnet", "10.213.10.0/24", "net-a")
    run = ("run", "-d", "--network", "net-a", "--name")
    cli(*run, "net-one", "--ip", "10.213.10.7", "busybox", "sleep", "1000")
    cli(*run, "net-two", "busybox", "sleep", "1000")
    cli("exec", "net-two", "ping", "-c", "1", "-W", "5", "net-one")
    assert "default" not in cli("exec", "net-two", "ip", "route")
    said = cli("run", "--rm", "--network", "net-a", "--ip", "10.213.10.7", "busybox", "true", fails=True)
    assert "Address already in use" in said
    cli("network", "disconnect", "net-a", "net-two")
    assert "eth0" not in cli("exec", "net-two", "ip", "link")
    cli("network", "connect", "net-a", "net-two")
    cli("exec", "net-one", "ping", "-c", "1", "-W", "5", "net-two")
    said = cli("network", "create", "-d", "macvlan", "-o", "parent=net-no", "net-b", fails=True)
    assert "parent interface was not found on the host: net-no" in said
    said = cli("network", "create", "-d", "ipvlan", "-o", "ipvlan_mode=l9", "net-b", fails=True)
    assert "requested ipvlan mode 'l9' is not valid, 'l2' mode is the ipvlan driver default" in said


def test_connecting_while_running(cli: Cli) -> None:
    cli("network", "create", "net-a")
    cli("network", "create", "--internal", "net-b")
    cli("run", "-d", "--name", "net-one", "--network", "net-b", "busybox", "sleep", "1000")
    cli("run", "-d", "--name", "net-two", "busybox", "sleep", "1000")
    cli("network", "connect", "--alias", "other", "net-b", "net-two")
    cli("exec", "net-one", "ping", "-c", "1", "-W", "2", "other")
    cli("exec", "net-two", "ping", "-c", "1", "-W", "2", "net-one")
    said = cli("network", "connect", "net-b", "net-two", fails=True)
    assert "endpoint with name net-two already exists in network net-b" in said
    # The default bridge leads out; without it nothing does, until there is another.
    assert "eth0" in cli("exec", "net-two", "sh", "-c", "ip route | grep default; true")
    cli("network", "disconnect", "bridge", "net-two")
    assert cli("exec", "net-two", "sh", "-c", "ip route | grep default; true") == ""
    cli("network", "connect", "net-a", "net-two")
    assert "dev eth0" in cli("exec", "net-two", "sh", "-c", "ip route | grep default; true")
    cli("network", "disconnect", "net-b", "net-two")
    cli("exec", "net-one", "nslookup", "other", fails=True)
    said = cli("network", "disconnect", "net-b", "net-two", fails=True)
    assert "is not connected to network net-b" in said


def test_several_networks_from_the_start(cli: Cli) -> None:
    for name in NETWORKS:
        cli("network", "create", name)
    joined = [word for name in NETWORKS for word in ("--network", name)]
    cli("run", "-d", "--name", "net-one", *joined, "busybox", "sleep", "1000")
    assert sorted(settings(cli, "net-one")) == list(NETWORKS)
    lines = cli("exec", "net-one", "ip", "-4", "-o", "addr").splitlines()
    assert len(lines) == 4
    for name in NETWORKS:
        cli("run", "--rm", "--network", name, "busybox", "ping", "-c", "1", "-W", "2", "net-one")


def test_networks_are_apart(cli: Cli) -> None:
    cli("network", "create", "net-a")
    cli("network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "net-b")
    cli("run", "-d", "--name", "net-one", "--network", "net-a", "busybox", "sleep", "1000")
    cli("run", "-d", "--name", "net-two", "--network", "net-b", "busybox", "sleep", "1000")
    for network, box in (("net-b", "net-one"), ("net-b", "net-two"), ("bridge", "net-one")):
        (place,) = settings(cli, box).values()
        ping = ("ping", "-c", "1", "-W", "1", place["IPAddress"])
        cli("run", "--rm", "--network", network, "busybox", *ping, fails=True)


def test_a_dead_daemon_loses_nothing(tmp_path: Path) -> None:
    served = serving.Daemon(socket=f"{tmp_path}/run/sampan.sock", root=str(tmp_path))
    process = serving.start(served, ())

    def docker(*arguments: str) -> str:
        command = ["docker", "-H", served.host, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    try:
        assert ask(served.socket, "POST", "/images/load?quiet=1", images.busybox())[0] == 200
        docker("network", "create", "kept")
        docker("run", "-d", "--name", "one", "--network", "kept", "busybox", "sleep", "1000")
        before = docker("inspect", "-f", "{{json .NetworkSettings}}", "one")
        process.kill()
        process.wait()
        process = serving.start(served, ())
        assert docker("inspect", "-f", "{{json .NetworkSettings}}", "one") == before
        docker("exec", "one", "nslookup", "one")
        docker("run", "--rm", "--network", "kept", "busybox", "ping", "-c", "1", "-W", "2", "one")
        docker("rm", "-f", "one")
        docker("network", "rm", "kept")
        assert ask(served.socket, "GET", "/networks/kept")[0] == 404
    finally:
        process.terminate()
        assert process.wait(serving.START_SECONDS) == 0
