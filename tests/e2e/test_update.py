"""``update`` through both programs and docker-py, read back from the group of a running container."""

from __future__ import annotations

from collections.abc import Iterator

import docker
import pytest

from tests.e2e.conftest import Client
from tests.e2e.flags import GROUP
from tests.e2e.serving import Daemon

pytestmark = [pytest.mark.root, pytest.mark.e2e]

# (flags, script, its output): each on a container that runs.
ROWS = (
    ("--memory 96m --memory-swap 128m", "cg memory.limit_in_bytes memory.max", "100663296"),
    ("--memory-reservation 16m", "cg memory.soft_limit_in_bytes memory.low", "16777216"),
    ("--cpu-shares 2048", "cg cpu.shares cpu.weight | sed s/2048/174/", "174"),
    ("--cpuset-cpus 0", "grep Cpus_allowed_list /proc/self/status | cut -f2", "0"),
    ("--cpu-period 50000 --cpu-quota 20000", "cg cpu.cfs_quota_us cpu.max | cut -d' ' -f1", "20000"),
    ("--cpu-quota -1", "cg cpu.cfs_quota_us cpu.max | cut -d' ' -f1 | sed s/max/-1/", "-1"),
    ("--pids-limit 44", "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null", "44"),
    ("--pids-limit -1", "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null", "max"),
)


@pytest.fixture(params=["docker", "sampan"])
def box(request: pytest.FixtureRequest, client: Client) -> Iterator[tuple[str, str]]:
    """(the program to use, a running container)."""
    name = f"update-{request.param}"
    started = client("docker", ["run", "-d", "--name", name, "busybox", "sleep", "1000"])
    assert started.returncode == 0, started.stderr
    yield request.param, name
    client("docker", ["rm", "-f", name])


def test_a_running_container_is_changed(client: Client, box: tuple[str, str]) -> None:
    program, name = box
    for flags, script, seen in ROWS:
        changed = client(program, ["update", *flags.split(), name])
        assert (changed.returncode, changed.stdout.splitlines()[:1]) == (0, [name]), (flags, changed)
        shown = client("docker", ["exec", name, "sh", "-c", GROUP + script])
        assert shown.stdout.strip() == seen, (flags, shown)


def test_it_is_recorded_and_kept_by_a_restart(client: Client, box: tuple[str, str]) -> None:
    program, name = box
    client(program, ["update", "--pids-limit", "55", "--restart", "on-failure:7", name])
    client(program, ["restart", "-t", "0", name])
    template = "{{.HostConfig.PidsLimit}} {{.HostConfig.RestartPolicy}}"
    assert client(program, ["inspect", "-f", template, name]).stdout == "55 {on-failure 7}\n"
    look = "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null"
    assert client(program, ["exec", name, "sh", "-c", look]).stdout == "55\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "you must provide one or more flags when using this command"),
        ("--memory 1m", "Minimum memory limit allowed is 6MB"),
        ("--memory 64m", "Memory limit should be smaller than already set memoryswap limit"),
        ("--cpus 4096", "Range of CPUs is from 0.01"),
        ("--restart nosuch", "unknown policy 'nosuch'"),
        ("--restart on-failure:x", "maximum retry count must be an integer"),
    ],
)
def test_refusals(client: Client, box: tuple[str, str], words: str, said: str) -> None:
    program, name = box
    refused = client(program, ["update", *words.split(), name])
    assert refused.returncode == 1
    assert said in refused.stderr


def test_several_and_one_that_is_not_there(client: Client, box: tuple[str, str]) -> None:
    program, name = box
    done = client(program, ["update", "--cpu-shares", "300", "update-nosuch", name])
    assert (done.returncode, done.stdout) == (1, f"{name}\n")
    assert "No such container: update-nosuch" in done.stderr


def test_docker_py(client: Client, box: tuple[str, str], daemon: Daemon) -> None:
    connected = docker.DockerClient(base_url=daemon.host, timeout=30)
    container = connected.containers.get(box[1])
    answer = container.update(cpu_shares=100, mem_reservation="8m", restart_policy={"Name": "always"})
    assert answer == {"Warnings": []}
    container.reload()
    assert container.attrs["HostConfig"]["CpuShares"] == 100
    assert container.attrs["HostConfig"]["RestartPolicy"]["Name"] == "always"
    connected.close()
