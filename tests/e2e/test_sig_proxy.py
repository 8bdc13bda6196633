"""Signals that a client passes on, and those that it keeps to itself."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from typing import TypeAlias

import pytest

from tests.e2e.conftest import PROGRAMS

pytestmark = [pytest.mark.root, pytest.mark.e2e]

Process: TypeAlias = "subprocess.Popen[bytes]"

NAME = "sig-proxy"
SCRIPT = "trap 'echo heard; exit 3' TERM; echo ready; while :; do sleep 0.05; done"


@pytest.fixture(params=["docker", "sampan"])
def program(request: pytest.FixtureRequest, environment: dict[str, str]) -> Iterator[str]:
    yield request.param
    subprocess.run(["docker", "rm", "-f", NAME], env=environment, capture_output=True, check=False)


def _started(arguments: list[str], environment: dict[str, str], program: str) -> Process:
    command = [*PROGRAMS[program], *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _line(process: Process) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def _running(environment: dict[str, str]) -> str:
    command = ["docker", "inspect", "--format", "{{.State.Running}}", NAME]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def _leave(process: Process) -> int:
    """Ask the client to end until it does; the third time it must."""
    code = None
    for _ in range(100):
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(0.05)
            break
        except subprocess.TimeoutExpired:
            continue
    process.communicate()
    assert code is not None
    return code


def test_run_passes_signals_on(environment: dict[str, str], image: str, program: str) -> None:
    process = _started(["run", "--name", NAME, image, "sh", "-c", SCRIPT], environment, program)
    assert _line(process) == b"ready\n"
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=30)
    assert (process.returncode, said) == (3, b"heard\n")


def test_run_keeps_signals_to_itself(environment: dict[str, str], image: str, program: str) -> None:
    process = _started(
        ["run", "--sig-proxy=false", "--name", NAME, image, "sh", "-c", SCRIPT], environment, program
    )
    assert _line(process) == b"ready\n"
    assert _leave(process) == 1
    assert _running(environment) == "true"


def test_attach_keeps_signals_to_itself(environment: dict[str, str], image: str, program: str) -> None:
    loop = "trap 'exit 3' TERM; while :; do echo ready; sleep 0.05; done"
    command = ["docker", "run", "-d", "--name", NAME, image, "sh", "-c", loop]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    process = _started(["attach", "--sig-proxy=false", "--no-stdin", NAME], environment, program)
    assert _line(process) == b"ready\n"
    assert _leave(process) == 1
    assert _running(environment) == "true"
