"""Every flag of ``run``, through both programs, on the state of a real container."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.cli.runflags import RUN
from tests.e2e.conftest import PROGRAMS, Client
from tests.e2e.flags import EITHER, ELSEWHERE, FILES, GROUP, HOSTIDS, INSIDE, INSPECT, REFUSED, ROWS
from tests.e2e.serving import Daemon

pytestmark = [pytest.mark.root, pytest.mark.e2e]

OURS = frozenset(("net", "net-alias", "timeout", "egress"))  # hidden spellings, and what Docker lacks


def disk() -> str:
    """A block device of this host."""
    for name in sorted(os.listdir("/sys/block")):
        if os.path.exists(f"/dev/{name}"):
            return f"/dev/{name}"
    return "/dev/null"


@pytest.fixture(scope="module")
def places(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The files, mounts, volume and container that rows speak of; the mounts are gone afterwards."""
    directory = tmp_path_factory.mktemp("flags")
    for name, text in FILES.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text)
    mounts = [directory / "shared", directory / "shared/inner", directory / "private"]
    for path in mounts:
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "flags", path], check=True)
    subprocess.run(["mount", "--make-shared", mounts[0]], check=True)
    subprocess.run(["mount", "--make-private", mounts[2]], check=True)
    names = {"dir": str(directory), "volume": "flags-volume", "other": "flags-other", "disk": disk()}
    docker = (*PROGRAMS["docker"], "-H", daemon.host)
    fill = "mkdir -p /v/deep/er && echo far down > /v/deep/er/file; ln -s /etc /v/out; ln -s ../../.. /v/away"
    subprocess.run(
        [*docker, "run", "-d", "--name", "flags-other", "-v", "flags-volume:/v", "busybox", "sleep", "1000"],
        check=True,
        capture_output=True,
    )
    subprocess.run([*docker, "exec", "flags-other", "sh", "-c", fill], check=True)
    yield {**names, "image": "busybox", "host": socket.gethostname(), "parent": "/flags-parent"}
    subprocess.run([*docker, "rm", "-f", "flags-other"], check=True, capture_output=True)
    subprocess.run([*docker, "volume", "rm", "flags-volume"], check=True, capture_output=True)
    for path in reversed(mounts):
        subprocess.run(["umount", path], check=True)
    for group in Path("/sys/fs/cgroup").glob("*/flags-parent"):
        group.rmdir()


def filled(text: str, places: dict[str, str]) -> str:
    for name, value in places.items():
        text = text.replace(f"{{{name}}}", value)
    return text


@pytest.mark.parametrize("program", ["docker", "sampan"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_a_flag(client: Client, places: dict[str, str], program: str, row: tuple[str, ...]) -> None:
    flag, given, how, look, seen = row
    places = {**places, "name": f"flags-{program}"}
    words = shlex.split(filled(given, places))
    seen = filled(seen, places)
    if how in (INSIDE, HOSTIDS, EITHER):
        result = client(program, ["run", "--rm", *words, "busybox", "sh", "-c", GROUP + filled(look, places)])
        said = result.stdout.strip() + (result.stderr if how == EITHER else "")
        assert re.search(seen, said), (result.stdout, result.stderr)
    elif how == INSPECT:
        named = [] if flag == "name" else ["--name", places["name"]]
        made = client(program, ["create", *named, *words, "busybox", "true"])
        assert made.returncode == 0, made.stderr
        result = client(program, ["inspect", "--format", look, places["name"]])
        client(program, ["rm", "-f", places["name"]])
        assert re.search(seen, result.stdout.strip()), result.stdout
    else:
        assert how == REFUSED
        result = client(program, ["run", "--rm", *words, "busybox", "true"])
        assert result.returncode != 0
        assert re.search(seen, result.stderr) or seen in result.stderr, result.stderr


def test_every_flag_has_a_row() -> None:
    flags = {flag[1] for flag in RUN} - OURS
    assert flags <= {row[0] for row in ROWS} | set(ELSEWHERE)


@pytest.mark.parametrize("program", ["docker", "sampan"])
def test_links(client: Client, places: dict[str, str], program: str) -> None:
    name = f"flags-{program}"
    client("docker", ["run", "-d", "--name", name, "--expose", "80", "-e", "A=b", "busybox", "sleep", "1000"])
    try:
        words = ["run", "--rm", "--link", f"{name}:web-x", "busybox"]
        told = client(program, [*words, "env"]).stdout.splitlines()
        address = client("docker", ["exec", name, "hostname", "-i"]).stdout.strip()
        assert f"WEB_X_PORT_80_TCP=tcp://{address}:80" in told
        assert "WEB_X_ENV_A=b" in told
        hosts = client(program, [*words, "cat", "/etc/hosts"]).stdout
        assert f"{address}\tweb-x " in hosts
        missing = client(program, ["run", "--rm", "--link", "flags-none", "busybox", "true"])
        assert missing.returncode == 125
        assert "could not get container for flags-none: No such container: flags-none\n" in missing.stderr
    finally:
        client("docker", ["rm", "-f", name])


@pytest.mark.parametrize("program", ["docker", "sampan"])
def test_what_is_printed_and_when(client: Client, tmp_path: Path, program: str) -> None:
    path = tmp_path / "cid"
    result = client(program, ["run", "-d", "--rm", "--cidfile", str(path), "busybox", "sleep", "100"])
    assert result.stdout.strip() == path.read_text()
    client(program, ["rm", "-f", result.stdout.strip()])
    missing = client(program, ["run", "--cidfile", str(tmp_path / "no/cid"), "busybox", "true"])
    assert missing.returncode == 127  # by the words, as everything that Docker's client cannot start
    assert "failed to create the container ID file" in missing.stderr
    refused = client(program, ["create", "--cidfile", str(tmp_path / "other"), "-m", "1m", "busybox"])
    assert refused.returncode != 0
    assert not (tmp_path / "other").exists()


def test_the_api_socket(client: Client, daemon: Daemon) -> None:
    words = ["run", "--rm", "--use-api-socket", "busybox", "stat", "-c", "%F", "/var/run/docker.sock"]
    assert client("sampan", words).stdout == "socket\n"
