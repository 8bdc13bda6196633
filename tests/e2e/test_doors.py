"""The engine's other doors: TCP with TLS, a socket for readers, and the log of who came in."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

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


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    place = tmp_path_factory.mktemp("doors")
    authority = Authority(place)
    authority.sign("server")
    authority.sign("client")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    with serving.daemon(
        *("-H", address, "--read-only-host", f"unix://{place}/readers.sock"),
        *("--audit-log", f"{place}/audit", "--tlsverify", "--tlscacert", f"{place}/ca.pem"),
        *("--tlscert", f"{place}/server.pem", "--tlskey", f"{place}/server-key.pem"),
    ):
        readers = f"unix://{place}/readers.sock"
        yield Doors(place=place, address=address, readers=readers, audit=place / "audit")


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
