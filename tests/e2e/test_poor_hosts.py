"""Hosts that lack something (docs/hosts.md): what is missing is said, and everything else works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from sampan.sandbox import cgroups, cgroups_v2
from tests.e2e import serving
from tests.e2e.serving import Daemon

pytestmark = [pytest.mark.root, pytest.mark.e2e]

NO_BRIDGE = "network bridge is not available on this host: "
DOCKERFILE = "FROM busybox\nRUN --network=none echo built >/made\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Poor:
    """A host without ``lack`` (``tests/poverty.py``). ``says``: what its info warns of, as a pattern;
    ``bridge``: whether it has the default network; ``memory``: whether it limits memory; ``whole``: whether
    the lack may have to do with more than networks."""

    lack: str
    says: str = ""
    bridge: bool = True
    memory: bool = True
    whole: bool = True
    first_version: bool = False
    idle: str = ""
    """What is said where version 2 of cgroups alone, and the lack, leave no container to be started."""


HOSTS = (
    Poor(lack="unified", first_version=True),
    Poor(lack="memory", says="No memory limit support", memory=False, first_version=True),
    Poor(lack="netfilter", says=f"{NO_BRIDGE}Protocol not supported", bridge=False, whole=False),
    Poor(
        lack="net-admin",
        says=f"{NO_BRIDGE}Operation not permitted",
        bridge=False,
        idle="No CAP_NET_ADMIN; no container can be started",
    ),
    Poor(lack="ipv6", says="IPv6 is turned off, or not in the kernel", whole=False),
    Poor(
        lack="overlay:ROOT/data",
        says="overlayfs cannot be used .*; images are laid out by (vfs|fuse-overlayfs)",
    ),
    Poor(lack="user-namespaces", says="Containers have the host's user ids: user namespaces cannot be made"),
    Poor(lack="sys-resource", says="No CAP_SYS_RESOURCE"),
)


class Typed:
    """Types commands of ``sampan`` at a daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._environment = {**os.environ, "SAMPAN_HOST": daemon.host, "DOCKER_CONFIG": f"{daemon.root}/none"}

    def refused(self, *words: str, text: str = "") -> str:
        """What a command that fails says."""
        done = self._done(words, text)
        assert done.returncode, done.stdout
        return done.stderr

    def __call__(self, *words: str, text: str = "") -> str:
        done = self._done(words, text)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def _done(self, words: tuple[str, ...], text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sampan", *words],
            input=text,
            capture_output=True,
            text=True,
            env=self._environment,
            check=False,
        )


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.lack.partition(":")[0])
def test_what_is_missing_is_said_and_all_else_works(host: Poor) -> None:
    if host.first_version and isinstance(cgroups.detect(), cgroups_v2.Hierarchy):
        pytest.skip("this host has no version 1 of cgroups")
    with serving.daemon(before=(sys.executable, "-m", "tests.poverty", host.lack)) as daemon:
        sampan = Typed(daemon)
        warned = sampan("info", "--format", "{{range .Warnings}}{{println .}}{{end}}")
        assert re.search(host.says, warned), warned
        if host.idle and isinstance(cgroups.detect(), cgroups_v2.Hierarchy):
            assert host.idle in warned
            said = sampan.refused("run", "--rm", "--network", "none", "busybox", "true")
            assert "the device programs: Operation not permitted" in said
            return
        networks_work(sampan, host)
        if host.whole:
            limits_work(sampan, host)
            a_life_works(sampan)
        sampan("build", "-q", "-t", "made", "-", text=DOCKERFILE)
        assert sampan("run", "--rm", "--network", "none", "made", "cat", "/made") == "built\n"
        sampan("rmi", "made")


def networks_work(sampan: Typed, host: Poor) -> None:
    if not host.bridge:
        assert NO_BRIDGE in sampan.refused("run", "--rm", "busybox", "true")
        assert (
            sampan("ps", "-aq") == sampan("rm", "-f", *sampan("ps", "-aq").split())
            if sampan("ps", "-aq")
            else True
        )
        assert sampan("run", "--rm", "--network", "host", "busybox", "echo", "hi") == "hi\n"
        return
    assert " eth0 " in sampan("run", "--rm", "busybox", "ip", "-o", "addr")
    sampan("network", "create", "poor")
    assert (
        sampan("run", "--rm", "--network", "poor", "-p", "127.0.0.1::80", "busybox", "echo", "hi") == "hi\n"
    )
    sampan("network", "rm", "poor")
    if host.lack == "ipv6":
        assert "IPv6 is turned off" in sampan.refused("network", "create", "--ipv6", "poor")


def limits_work(sampan: Typed, host: Poor) -> None:
    look = "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max; cat /sys/fs/cgroup/memory*/memory*.max"
    limits = ["-m", "64m", "--pids-limit", "20", "--cpus", "0.5"]
    assert "20\n" in sampan(
        "run", "--rm", "--network", "none", *limits, "busybox", "sh", "-c", f"{look}; true"
    )
    sampan("run", "-d", "--name", "limited", "--network", "none", *limits, "busybox", "sleep", "1000")
    kept = sampan("inspect", "-f", "{{.HostConfig.Memory}}", "limited").strip()
    assert kept == (str(64 << 20) if host.memory else "0")
    sampan("update", "--pids-limit", "30", "limited")
    sampan("rm", "-f", "limited")


def a_life_works(sampan: Typed) -> None:
    sampan("run", "-d", "--name", "life", "--network", "none", "-v", "poor:/v", "busybox", "sleep", "1000")
    # A process that joins finds what the first one has, and nothing of the host's.
    listed = sampan("exec", "life", "ls", "/")
    assert set(listed.split()) == {
        *sampan("run", "--rm", "--network", "none", "busybox", "ls", "/").split(),
        "v",
    }
    sampan("exec", "life", "sh", "-c", "echo kept >/v/file; echo mine >/tmp/file")
    sampan("pause", "life")
    sampan("unpause", "life")
    assert sampan("stats", "--no-stream", "--format", "{{.PIDs}}", "life") == "1\n"
    assert "sleep 1000" in sampan("top", "life")
    assert "A /tmp/file" in sampan("diff", "life").splitlines()
    assert "mine" in sampan("cp", "life:/tmp/file", "-")
    sampan("commit", "life", "committed")
    sampan("stop", "-t", "0", "life")
    sampan("start", "life")
    assert sampan("exec", "life", "cat", "/v/file") == "kept\n"
    sampan("rm", "-f", "life")
    sampan("volume", "rm", "poor")
    assert sampan("run", "--rm", "--network", "none", "committed", "cat", "/tmp/file") == "mine\n"
    sampan("rmi", "committed")


def test_without_any_cgroups_the_daemon_says_so(tmp_path: Path) -> None:
    place = (
        "--data-root",
        f"{tmp_path}/data",
        "--exec-root",
        f"{tmp_path}/run",
        "-H",
        f"unix://{tmp_path}/s",
    )
    words = ("-m", "tests.poverty", "cgroups", sys.executable, "-m", "sampan.daemon", *place)
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cgroups: cgroup mountpoint does not exist" in done.stderr
