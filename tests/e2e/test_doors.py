"""The engine's other doors: TCP with TLS, a socket for readers, the log of who came in, and metrics."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.certificates import Authority
from tests.e2e import serving
from tests.e2e.conftest import PROGRAMS

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    place: Path
    address: str
    readers: str
    audit: Path
    metrics: str


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    place = tmp_path_factory.mktemp("doors")
    authority = Authority(place)
    authority.sign("server")
    authority.sign("client")
    address, metrics = f"tcp://127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    with serving.daemon(
        *("--metrics-addr", metrics),
        *("-H", address, "--read-only-host", f"unix://{place}/readers.sock"),
        *("--audit-log", f"{place}/audit", "--tlsverify", "--tlscacert", f"{place}/ca.pem"),
        *("--tlscert", f"{place}/server.pem", "--tlskey", f"{place}/server-key.pem"),
    ):
        readers = f"unix://{place}/readers.sock"
        yield Doors(
            place=place,
            address=address,
            readers=readers,
            audit=place / "audit",
            metrics=f"http://{metrics}/metrics",
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run(program: str, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*PROGRAMS[program], *arguments], input=given, capture_output=True)


@pytest.mark.parametrize("program", PROGRAMS)
def test_over_tls_everything_is_as_on_the_socket(doors: Doors, program: str) -> None:
    place = doors.place
    tls = ["--tlsverify", "--tlscacert", f"{place}/ca.pem", "-H", doors.address]
    tls += ["--tlscert", f"{place}/client.pem", "--tlskey", f"{place}/client-key.pem"]
    data = os.urandom(1 << 20)
    result = run(
        program, *tls, "run", "-i", "--rm", "busybox", "sh", "-c", "cat; echo done >&2; exit 3", given=data
    )
    assert (result.returncode, result.stderr) == (3, b"done\n")
    assert result.stdout == data
    lines = [json.loads(line) for line in doors.audit.read_text().splitlines()]
    made = [line for line in lines if line["path"] == "/containers/create"]
    assert (made[-1]["name"], made[-1]["socket"], made[-1]["status"]) == ("client", doors.address, 201)


@pytest.mark.parametrize("program", PROGRAMS)
def test_readers_look_and_do_not_touch(doors: Doors, program: str) -> None:
    assert run(program, "-H", doors.readers, "ps").returncode == 0
    refused = run(program, "-H", doors.readers, "run", "--rm", "busybox", "true")
    assert refused.returncode == 125
    assert b"POST /containers/create is not allowed on this socket: it is for reading only" in refused.stderr


def scraped(url: str) -> dict[str, dict[frozenset[str], float]]:
    """The values of the page by name, and by what is said of each: ``key=value``."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        text = answer.read().decode()
    found: dict[str, dict[frozenset[str], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = frozenset(f"{key}={value}" for key, value in sample.labels.items())
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_prometheus_is_told_of_containers_and_requests(doors: Doors) -> None:
    place = doors.place
    tls = ["--tlsverify", "--tlscacert", f"{place}/ca.pem", "-H", doors.address]
    tls += ["--tlscert", f"{place}/client.pem", "--tlskey", f"{place}/client-key.pem"]
    before = scraped(doors.metrics)
    made = run("docker", *tls, "run", "-d", "--name", "metered", "busybox", "sleep", "1000")
    assert made.returncode == 0, made.stderr
    series = frozenset({f"id={made.stdout.decode().strip()}", "name=metered"})
    during = scraped(doors.metrics)
    assert run("docker", *tls, "rm", "-f", "metered").returncode == 0
    after = scraped(doors.metrics)
    running = frozenset({"state=running"})
    states = [page["engine_daemon_container_states_containers"][running] for page in (before, during, after)]
    assert states == [0, 1, 0]
    assert during["sampan_container_memory_bytes"][series] > 0
    assert during["sampan_container_processes"][series] >= 1
    assert series not in after.get("sampan_container_memory_bytes", {})
    started = frozenset({"method=POST", "route=/containers/{name}/start", "status=204"})
    counts = [page.get("sampan_requests_total", {}).get(started, 0) for page in (before, during)]
    assert counts[1] == counts[0] + 1
    assert during["sampan_processes"][frozenset({"process=daemon"})] == 1
    assert (
        during["engine_daemon_events_total"][frozenset()] > before["engine_daemon_events_total"][frozenset()]
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "would give whoever reaches it root on this machine: set --tlsverify"),
        (("--tls",), "could not read the TLS file /nowhere/cert.pem: no such file or directory"),
    ],
)
def test_tcp_is_not_open_by_accident(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    result = subprocess.run(
        [
            *(sys.executable, "-m", "sampan.daemon", "-H", "tcp://127.0.0.1:0", *options),
            *("--data-root", str(tmp_path / "data"), "--exec-root", str(tmp_path / "run")),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "DOCKER_CERT_PATH": "/nowhere"},
    )
    assert result.returncode == 1
    assert words in result.stderr
    assert "Traceback" not in result.stderr
