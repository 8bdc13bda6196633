"""Egress policies as users have them, and what a killed daemon leaves of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.network.naming import bridge_name
from tests.e2e import images, serving
from tests.e2e.conftest import Client
from tests.e2e.talk import ask

pytestmark = [pytest.mark.root, pytest.mark.e2e]

OUT = "192.0.2.1"  # is nowhere


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[serving.Daemon, list[subprocess.Popen[bytes]]]]:
    served = serving.Daemon(socket=f"{tmp_path}/run/sampan.sock", root=str(tmp_path))
    processes = [serving.start(served, ())]
    try:
        assert ask(served.socket, "POST", "/images/load?quiet=1", images.busybox())[0] == 200
        yield served, processes
    finally:
        processes[-1].terminate()
        processes[-1].wait(20)
    assert serving.traces(str(tmp_path)) == []


def test_a_policy_outlives_the_daemon(
    own: tuple[serving.Daemon, list[subprocess.Popen[bytes]]],
) -> None:
    served, processes = own
    table = f"{bridge_name(f'{served.root}/data')}-egress"

    def docker(*arguments: str) -> str:
        command = ["docker", "-H", served.host, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    def fails(*arguments: str) -> str:
        command = ["docker", "-H", served.host, "exec", "held", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode != 0
        return done.stdout + done.stderr

    def tables() -> list[str]:
        listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
        return [line.split()[1] for line in listed.splitlines() if line.endswith(table)]

    policy = "io.sampan.egress=allow=good.invalid:80"
    docker("run", "-d", "--name", "held", "--annotation", policy, "busybox", "sleep", "1000")
    assert docker("exec", "held", "cat", "/etc/resolv.conf").startswith("nameserver 127.0.0.11\n")
    assert sorted(tables()) == ["bridge", "inet"]
    processes[-1].kill()
    processes[-1].wait()
    assert sorted(tables()) == ["bridge", "inet"]
    processes.append(serving.start(served, ()))
    assert "REFUSED" in fails("nslookup", "bad.invalid")
    assert "REFUSED" not in fails("nslookup", "good.invalid")
    assert "Connection refused" in fails("nc", "-w", "9", OUT, "99")
    wanted = {"bad.invalid", f"{OUT}:99"}
    listen = ("docker", "-H", served.host, "events", "--since", "1", "--filter", "event=egress-refused")
    with subprocess.Popen(
        [*listen, "--format", "{{json .Actor.Attributes}}"], stdout=subprocess.PIPE
    ) as events:
        assert events.stdout is not None
        while wanted:
            wanted.discard(json.loads(events.stdout.readline())["destination"])
        events.terminate()
    docker("rm", "-f", "held")
    assert tables() == []


def test_policies_of_both_clients(client: Client) -> None:
    try:
        made = client("sampan", ["network", "create", "--egress", "none", "egress-net"])
        assert made.returncode == 0, made.stderr
        run = client(
            "sampan",
            ["run", "-d", "--name", "egress-box", "--network", "egress-net", "busybox", "sleep", "1000"],
        )
        assert run.returncode == 0, run.stderr
        peer = ["run", "--rm", "--network", "egress-net", "busybox", "nslookup"]
        assert client("docker", [*peer, "egress-box"]).returncode == 0
        assert "REFUSED" in client("docker", [*peer, "example.invalid"]).stdout
        for words, said in (
            (["--egress", "allow=x:0"], 'invalid egress destination "x:0": invalid port 0'),
            (["--egress", "some"], 'invalid egress policy "some"'),
            (["--egress", "none", "--network", "host"], "conflicting options: an egress policy and"),
        ):
            refused = client("sampan", ["run", "--rm", *words, "busybox", "true"])
            assert refused.returncode == 125
            assert said in refused.stderr
    finally:
        client("docker", ["rm", "-f", "egress-box"])
        client("docker", ["network", "rm", "egress-net"])
