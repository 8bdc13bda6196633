"""``--runtime``: an engine whose containers another runtime runs; and dockerd, whose containers ours runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e import images
from tests.e2e.conftest import Client
from tests.e2e.talk import ask

pytestmark = pytest.mark.e2e

START_SECONDS = 20
WRAPPER = """#!/bin/sh
exec {python} -m sampan oci "$@"
"""

LOOP = "trap 'echo bye; exit 3' TERM; echo hello; while :; do sleep 0.02; done"
MEMORY = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null"

Docker = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def docker_client(client: Client) -> Docker:
    if shutil.which("runc") is None:
        pytest.skip("runc is not installed")
    return lambda *words: client("docker", words)


def test_runc_runs_a_container_from_begin_to_end(docker_client: Docker, image: str) -> None:
    words = ("--name", "by-runc", "--runtime", "runc", "-m", "64m", image, "sh", "-c", LOOP)
    made = docker_client("run", "-d", *words)
    assert made.returncode == 0, made.stderr
    try:
        shown = json.loads(docker_client("inspect", "by-runc").stdout)[0]
        assert shown["HostConfig"]["Runtime"] == "runc"
        limit = docker_client("exec", "by-runc", "sh", "-c", MEMORY)
        assert "67108864" in limit.stdout
        assert docker_client("exec", "-u", "1000", "by-runc", "id", "-u").stdout == "1000\n"
        assert docker_client("exec", "by-runc", "nosuch").returncode == 127
        assert docker_client("pause", "by-runc").returncode == 0
        assert docker_client("unpause", "by-runc").returncode == 0
        assert docker_client("restart", "-t", "5", "by-runc").returncode == 0
        while docker_client("logs", "by-runc").stdout.count("hello") < 2:
            pass  # only then does it listen to signals
        assert docker_client("stop", "-t", "5", "by-runc").returncode == 0
        assert docker_client("logs", "by-runc").stdout == "hello\nbye\nhello\nbye\n"
        assert docker_client("wait", "by-runc").stdout == "3\n"
    finally:
        assert docker_client("rm", "-f", "by-runc").returncode == 0


def test_it_has_the_network_and_the_init_asked_for(docker_client: Docker, image: str) -> None:
    ran = docker_client(
        *("run", "--rm", "--init", "--runtime", "io.containerd.runc.v2", image, "sh", "-c"),
        "ip -4 -o addr show eth0 | wc -l; cat /proc/1/comm; hostname",
    )
    assert ran.stdout.splitlines()[:2] == ["1", "docker-init"], ran.stderr


def test_failures_have_dockers_codes_and_words(docker_client: Docker, image: str) -> None:
    missing = docker_client("run", "--rm", "--runtime", "runc", image, "nosuch")
    assert missing.returncode == 127
    assert 'exec: "nosuch": executable file not found in $PATH' in missing.stderr
    unknown = docker_client("create", "--runtime", "nosuch", image)
    assert unknown.returncode == 1
    assert "unknown or invalid runtime name: nosuch" in unknown.stderr


def test_info_lists_the_runtimes(docker_client: Docker) -> None:
    found = json.loads(docker_client("info", "--format", "{{json .}}").stdout)
    assert found["DefaultRuntime"] == "sampan"
    assert {"sampan", "runc", "io.containerd.runc.v2"} <= set(found["Runtimes"])


# -- the other way round -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dockerd(tmp_path_factory: pytest.TempPathFactory, docker: str) -> Iterator[Docker]:
    """Debian's engine with our runtime, which touches nothing of the host's network."""
    program = shutil.which("dockerd")
    if program is None or os.geteuid() != 0:
        pytest.skip("dockerd cannot be run here")
    root = tmp_path_factory.mktemp("dockerd")
    wrapper = root / "runtime"
    wrapper.write_text(WRAPPER.format(python=sys.executable))
    wrapper.chmod(0o755)
    socket = str(root / "s")
    with open(root / "log", "wb") as log:
        process = subprocess.Popen(
            [
                *(program, "-H", f"unix://{socket}", "--data-root", str(root / "data")),
                *("--exec-root", str(root / "exec"), "--pidfile", str(root / "pid")),
                *("--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"),
                *("--add-runtime", f"sampan={wrapper}", "--default-runtime", "sampan"),
            ],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _await(process, socket, root / "log")
        status, said = ask(socket, "POST", "/images/load?quiet=1", images.busybox())
        assert status == 200, said
        environment = {**os.environ, "DOCKER_HOST": f"unix://{socket}"}

        def call(*words: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [docker, *words], capture_output=True, text=True, env=environment, timeout=60, check=False
            )

        yield call
        assert ask(socket, "GET", "/containers/json?all=1") == (200, b"[]\n")
        assert [path for path in Path(root, "exec").glob("runtime-*/moby/[!.]*") if path.is_dir()] == []
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(START_SECONDS)


def _await(process: subprocess.Popen[bytes], socket: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if ask(socket, "GET", "/_ping")[0] == 200:
                return
        except OSError:
            pass
        try:
            code = process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"dockerd ended with {code}: {log.read_text()[-2000:]}")
    raise AssertionError(f"dockerd does not serve: {log.read_text()[-2000:]}")


def test_dockerd_runs_its_containers_by_ours(dockerd: Docker, image: str) -> None:
    script = "echo hi; grep -e ^Seccomp: -e CapEff /proc/self/status; exit 3"
    ran = dockerd("run", "--rm", image, "sh", "-c", script)
    assert (ran.returncode, ran.stderr) == (3, "")
    assert ran.stdout.split() == ["hi", "CapEff:", "00000000a80425fb", "Seccomp:", "2"]
    missing = dockerd("run", "--rm", image, "nosuch")
    assert missing.returncode == 127
    assert 'exec: "nosuch": executable file not found in $PATH' in missing.stderr


def test_dockerd_execs_pauses_updates_and_stops_by_ours(dockerd: Docker, image: str) -> None:
    assert dockerd("run", "-d", "--name", "ours", "-m", "64m", image, "sh", "-c", LOOP).returncode == 0
    assert dockerd("exec", "ours", "sh", "-c", "exit 4").returncode == 4
    assert dockerd("exec", "-t", "ours", "tty").stdout.strip() == "/dev/pts/0"
    assert "sh -c trap" in dockerd("top", "ours").stdout
    assert dockerd("pause", "ours").returncode == 0
    assert dockerd("unpause", "ours").returncode == 0
    assert dockerd("update", "-m", "80m", "--memory-swap", "160m", "ours").returncode == 0
    assert dockerd("stop", "-t", "5", "ours").returncode == 0
    assert dockerd("logs", "ours").stdout == "hello\nbye\n"
    assert dockerd("inspect", "-f", "{{.State.ExitCode}}", "ours").stdout == "3\n"
    assert dockerd("start", "ours").returncode == 0
    assert dockerd("kill", "ours").returncode == 0
    assert dockerd("rm", "ours").returncode == 0


def test_dockerd_sees_that_memory_ran_out(dockerd: Docker, image: str) -> None:
    words = ("run", "--name", "full", "-m", "20m", "--memory-swap", "20m", image)
    assert dockerd(*words, "sh", "-c", "x=a; while :; do x=$x$x; done").returncode == 137
    assert dockerd("inspect", "-f", "{{.State.OOMKilled}}", "full").stdout == "true\n"
    assert dockerd("rm", "full").returncode == 0
