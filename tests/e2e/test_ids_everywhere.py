"""Whatever is done with a container, its user namespace stays its own: each feature, as the kernel shows it.

What ends that is in ``test_user_namespaces`` (the rows 26 to 31); here is proved that the list is complete.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import pytest

from sampan.engine import users
from sampan.engine.model import HostConfig
from sampan.spec.runtime import ALL_CAPABILITIES
from tests.e2e.serving import Daemon
from tests.e2e.test_user_namespaces import FALLBACKS

pytestmark = [pytest.mark.root, pytest.mark.e2e]

Docker: TypeAlias = Callable[..., str]
MAP = "cat /proc/self/uid_map"
FIRST = 1 << 25  # the lowest id that containers get
PREFIX = "everywhere"
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "user-namespaces.md"


@pytest.fixture
def docker(daemon: Daemon, docker: str) -> Iterator[Docker]:
    def run(*arguments: str, stdin: bytes = b"") -> str:
        done = subprocess.run(
            [docker, "-H", daemon.host, *arguments],
            input=stdin,
            capture_output=True,
            timeout=120,
            check=False,
            env={**os.environ, "DOCKER_BUILDKIT": "0", "DOCKER_CONFIG": f"{daemon.root}/none"},
        )
        assert done.returncode == 0, (arguments, done)
        return done.stdout.decode()

    yield run
    made = ("ps", "-aqf", f"name={PREFIX}"), ("volume", "ls", "-qf", f"name={PREFIX}")
    removal = ("rm", "-fv"), ("volume", "rm"), ("network", "rm"), ("rmi", "-f")
    found = [run(*words).split() for words in made]
    found.append(run("network", "ls", "-qf", f"name={PREFIX}").split())
    found.append(run("images", "-q", f"{PREFIX}*").split())
    for words, names in zip(removal, found, strict=True):
        for name in dict.fromkeys(names):
            with suppress(AssertionError):
                run(*words, name)


def private(text: str) -> tuple[int, int]:
    """The range that a map tells of; fails for the host's."""
    first, base, count = map(int, text.split()[-3:])
    assert (first, count >= 65536, base >= FIRST) == (0, True, True), text
    return base, count


def of_process(docker: Docker, name: str) -> tuple[int, int]:
    """That of a running container, as the host sees it; inspect says the same."""
    pid = docker("inspect", "-f", "{{.State.Pid}}", name).strip()
    found = private(Path(f"/proc/{pid}/uid_map").read_text())
    shown = json.loads(docker("inspect", "-f", "{{json .UserNamespace}}", name))
    assert shown == {"Mode": "private", "FirstHostID": found[0], "Size": found[1]}
    return found


FLAGS = {
    "networks, ports, links": (
        *("--network", f"{PREFIX}-net", "--network-alias", "x", "--sysctl", "net.ipv4.ip_forward=1"),
        *("-p", "127.0.0.1::80", "-P", "--expose", "81"),
    ),
    "volumes, binds, devices": (
        *("-v", f"{PREFIX}-vol:/data", "--tmpfs", "/tmp", "-v", "/tmp:/host", "-v", "/usr:/host-usr:ro"),
        *("--device", "/dev/zero:/dev/x", "--device-cgroup-rule", "c 1:3 rwm"),
    ),
    "init, terminal, links": ("--init", "-t", "-i", "--link", f"{PREFIX}-run:peer", "--ipc", "shareable"),
    "rights": (
        *("--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--cap-add", "SYS_PTRACE"),
        *("--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined"),
    ),
    "limits, users": (
        *("-m", "32m", "--cpus", "0.5", "--pids-limit", "50", "--ulimit", "nofile=100:200"),
        *("--oom-score-adj", "500", "-u", "1000:1000", "--group-add", "7"),
        *("--security-opt", "no-new-privileges"),
    ),
    "no network, no log": ("--network", "none", "--uts", "host", "--log-driver", "none", "--read-only"),
    "another log": ("--log-driver", "local", "--shm-size", "1m"),
}


def test_ids_stay_private_whatever_a_container_is_given(docker: Docker) -> None:
    docker("network", "create", f"{PREFIX}-net")
    docker("run", "-d", "--name", f"{PREFIX}-run", "busybox", "sleep", "600")
    ranges = {of_process(docker, f"{PREFIX}-run")}
    for number, (what, flags) in enumerate(FLAGS.items()):
        name = f"{PREFIX}-{number}"
        docker("run", "-d", "--name", name, *flags, "busybox", "sleep", "600")
        ranges.add(of_process(docker, name))
        assert len(ranges) == number + 2, what


def test_ids_stay_private_whatever_is_done_with_a_container(docker: Docker, tmp_path: Path) -> None:
    box = f"{PREFIX}-box"
    health = f"{MAP} > /health.new && mv /health.new /health"
    docker("run", "-d", "--name", box, "--health-cmd", health, "--health-interval", "100ms", "--restart",
           "always", "--ipc", "shareable", "busybox", "sleep", "600")  # fmt: skip
    ids = of_process(docker, box)

    def inside(*flags: str) -> tuple[int, int]:
        return private(docker("exec", *flags, box, "sh", "-c", MAP))

    assert [inside(), inside("--privileged"), inside("-u", "1000"), inside("-t")] == [ids] * 4
    docker("exec", box, "sh", "-c", "until [ -e /health ]; do :; done")
    assert private(docker("exec", box, "cat", "/health")) == ids
    (tmp_path / "file").write_text("x")
    docker("cp", f"{tmp_path}/file", f"{box}:/file")
    docker("cp", f"{box}:/file", f"{tmp_path}/back")
    docker("pause", box)
    docker("unpause", box)
    docker("update", "-m", "64m", "--memory-swap", "-1", box)
    assert inside() == of_process(docker, box) == ids
    for kind in ("network", "pid", "ipc"):
        name = f"{PREFIX}-{kind}"
        docker("run", "-d", "--name", name, f"--{kind}", f"container:{box}", "busybox", "sleep", "600")
        assert of_process(docker, name) == ids
        docker("rm", "-f", name)
    docker("restart", "-t", "0", box)
    of_process(docker, box)
    pid = docker("inspect", "-f", "{{.State.Pid}}", box).strip()
    os.kill(int(pid), 9)
    _await_restart(docker, box, pid)
    of_process(docker, box)
    docker("commit", box, f"{PREFIX}-commit")
    private(docker("run", "--rm", "--name", f"{PREFIX}-r1", f"{PREFIX}-commit", "sh", "-c", MAP))
    archive = _exported(docker, box)
    docker("import", "-", f"{PREFIX}-import", stdin=archive)
    private(docker("run", "--rm", "--name", f"{PREFIX}-r2", f"{PREFIX}-import", "sh", "-c", MAP))


def _await_restart(docker: Docker, box: str, former: str) -> None:
    while True:
        state = json.loads(docker("inspect", "-f", "{{json .State}}", box))
        if state["Running"] and not state["Restarting"] and str(state["Pid"]) not in (former, "0"):
            return


def _exported(docker: Docker, box: str) -> bytes:
    """The files of busybox alone: what ``docker export`` gives is bytes, and larger than need be."""
    docker("export", "-o", f"/tmp/{PREFIX}.tar", box)
    try:
        return Path(f"/tmp/{PREFIX}.tar").read_bytes()
    finally:
        os.unlink(f"/tmp/{PREFIX}.tar")


def test_a_builds_steps_have_private_ids(docker: Docker) -> None:
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        lines = (
            "FROM busybox",
            "USER 1000",
            f"RUN {MAP}",
            "USER root",
            f"RUN --mount=type=tmpfs,target=/c {MAP}",
        )
        text = "\n".join(lines).encode()
        member = tarfile.TarInfo("Dockerfile")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    told = docker("build", "--no-cache", "-t", f"{PREFIX}-build", "-", stdin=context.getvalue())
    found = re.findall(r"^ +0 +[0-9]+ +[0-9]+$", told, re.MULTILINE)
    assert len(found) == 2, told
    for line in found:
        private(line)


# -- the list of what ends it is complete --------------------------------------------------------------------


def test_every_capability_is_either_the_containers_own_or_in_the_document() -> None:
    asked = {name for name in ALL_CAPABILITIES if users.asked(HostConfig(cap_add=(name,)))}
    row = next(line for line in DOCUMENT.read_text().splitlines() if "`--cap-add` of ALL" in line)
    listed = set(re.findall(r"\b[A-Z_]{3,}\b", row.split("|")[2])) - {"ALL"}
    assert {name.removeprefix("CAP_") for name in asked} == listed


def test_every_question_of_the_table_is_asked_with_its_flag() -> None:
    """A new reason for the host's ids must come with a flag that is tried, and refused with ``deny``."""
    ways = [
        HostConfig(userns_mode="host"),
        HostConfig(privileged=True),
        HostConfig(network_mode="host"),
        HostConfig(pid_mode="host"),
        HostConfig(ipc_mode="host"),
        HostConfig(cgroupns_mode="host"),
        HostConfig(uts_mode="host", cap_add=("CAP_SYS_ADMIN",)),
        HostConfig(cap_add=("CAP_IPC_LOCK",)),
        HostConfig(runtime="runc"),
    ]
    reasons = [users.asked(way) for way in ways]
    assert len(ways) == len(users._TABLE)
    for number, question in enumerate(users._TABLE):
        assert question(ways[number]) == reasons[number] != ""
    assert set(reasons) - set(FALLBACKS) == {"--runtime runc"}
