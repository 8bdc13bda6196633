"""What a container has of what its engine was started with: nothing but limits and processors, as in Docker.

An engine is started by a program that has changed all that a process hands down. What a container's first
process and an exec have there is compared with what they have of an engine that was started plainly, and that
with what dockerd 20.10 gives (which was looked at with the same program).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.test_kernel import HOSTS_PROGRAMS, PYTHON
from tests.e2e import serving
from tests.e2e.serving import Daemon

pytestmark = [
    pytest.mark.root,
    pytest.mark.e2e,
    pytest.mark.skipif(not os.path.exists(PYTHON), reason="needs the host's python3"),
]

# The numbers of calls: those of x86-64, or of arm64.
CALLS = (
    "X = os.uname().machine == 'x86_64'; KEYCTL, ADD_KEY, IO_SET, IO_GET = (250, 248, 251, 252) if X else "
)
CALLS += "(219, 217, 30, 31)"

STARTER = f"""
import ctypes, os, resource, signal, sys
{CALLS}
libc = ctypes.CDLL(None, use_errno=True)
P, L = ctypes.c_char_p, ctypes.c_long
leak = os.open("/etc/shadow", os.O_RDONLY)
os.dup2(leak, 9)
os.dup2(leak, 77)
os.umask(0o077)
for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD, signal.SIGUSR1, signal.SIGALRM, 34, 64):
    signal.signal(number, signal.SIG_IGN)
blocked = (signal.SIGTERM, signal.SIGUSR2, signal.SIGWINCH, signal.SIGALRM, 40)
signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
os.environ["SECRET_OF_HOST"] = "x"
libc.prctl(29, L(123456), 0, 0, 0)
libc.prctl(41, L(1), 0, 0, 0)
libc.personality(ctypes.c_ulong(0x40000))
libc.syscall(L(KEYCTL), L(1), P(b"sampan-session"), L(0), L(0), L(0))
libc.syscall(L(ADD_KEY), P(b"user"), P(b"sampan-secret"), P(b"x"), L(1), L(-3))
libc.syscall(L(IO_SET), L(1), L(0), L(3 << 13))
os.nice(7)
open("/proc/self/coredump_filter", "w").write("0x7f")
open("/proc/self/oom_score_adj", "w").write("333")
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
resource.setrlimit(resource.RLIMIT_CORE, (1234, 1234))
signal.setitimer(signal.ITIMER_REAL, 100000)
os.execvp(sys.argv[1], sys.argv[1:])
"""

PROBE = f"""
import ctypes, json, os, signal
{CALLS}
libc = ctypes.CDLL(None, use_errno=True)
P, L = ctypes.c_char_p, ctypes.c_long
status = dict(line.rstrip("\\n").split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
kept = "SigBlk SigIgn SigCgt SigPnd ShdPnd CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp"
death = ctypes.c_int(-1)
libc.prctl(2, ctypes.byref(death), 0, 0, 0)
reaper = ctypes.c_int(-1)
libc.prctl(37, ctypes.byref(reaper), 0, 0, 0)
listed = os.listdir("/proc/self/fd")
read = lambda name: open(f"/proc/self/{{name}}").read().strip()
key = libc.syscall(L(KEYCTL), L(10), L(-3), P(b"user"), P(b"sampan-secret"), L(0))
print(json.dumps({{
    **{{name: status[name] for name in (*kept.split(), "Cpus_allowed_list")}},
    "descriptors": sorted(int(fd) for fd in listed if os.path.lexists(f"/proc/self/fd/{{fd}}")),
    "variables": sorted(os.environ), "umask": os.umask(0), "directory": os.getcwd(),
    "death signal": death.value, "reaper": reaper.value, "bits": libc.prctl(27, 0, 0, 0, 0),
    "kept": libc.prctl(7, 0, 0, 0, 0), "slack": libc.prctl(30, 0, 0, 0, 0),
    "pages": libc.prctl(42, 0, 0, 0, 0), "timer": signal.getitimer(signal.ITIMER_REAL),
    "nice": os.getpriority(os.PRIO_PROCESS, 0), "policy": os.sched_getscheduler(0),
    "io": libc.syscall(L(IO_GET), L(1), L(0)), "personality": libc.personality(ctypes.c_ulong(0xffffffff)),
    "oom": read("oom_score_adj"), "core": read("coredump_filter"),
    "key": ctypes.get_errno() if key < 0 else "found", "groups": read("cgroup").split("\\n"),
    "limits": [line.split() for line in read("limits").splitlines()[1:]],
}}))
"""

PLAIN: dict[str, Any] = {
    "SigBlk": "0000000000000000",
    "SigIgn": "0000000001001000",  # the probe's own
    "descriptors": [0, 1, 2],
    "umask": 0o022,
    "directory": "/",
    "death signal": 0,
    "reaper": 0,
    "bits": 0,
    "kept": 0,
    "slack": 50_000,
    "pages": 0,
    "nice": 0,
    "policy": os.SCHED_OTHER,
    "io": 0,
    "personality": 0,
    "oom": "0",
    "core": "00000033",
    "timer": [0.0, 0.0],
    "NoNewPrivs": "0",
    "Seccomp": "2",
    "CapInh": "0000000000000000",
    "CapPrm": "00000000a80425fb",
    "CapEff": "00000000a80425fb",
    "CapBnd": "00000000a80425fb",
    "CapAmb": "0000000000000000",
}
ENOKEY = 126


@pytest.fixture(scope="module")
def dirty() -> Iterator[Daemon]:
    with serving.daemon(before=(sys.executable, "-c", STARTER)) as served:
        yield served


def probes(docker: str, daemon: Daemon, *flags: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a container's first process finds, and an exec in another one."""

    def run(*words: str) -> str:
        done = subprocess.run(
            [docker, "-H", daemon.host, *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (words, done)
        return done.stdout

    probe = (PYTHON, "-c", PROBE)
    first = json.loads(run("run", "--rm", *flags, *HOSTS_PROGRAMS, "busybox", *probe))
    run("run", "-d", "--name", "inherits", *flags, *HOSTS_PROGRAMS, "busybox", "sleep", "600")
    try:
        return first, json.loads(run("exec", "inherits", *probe))
    finally:
        run("rm", "-f", "inherits")


def test_a_container_has_nothing_of_who_started_the_engine(
    docker: str, daemon: Daemon, dirty: Daemon
) -> None:
    plain, found = probes(docker, daemon), probes(docker, dirty)
    for one, other in zip(plain, found, strict=True):
        assert {name: one[name] for name in PLAIN} == PLAIN
        assert one["variables"] == other["variables"]
        assert "SECRET_OF_HOST" not in one["variables"]
        differing = {name for name in one if one[name] != other[name]}
        assert differing <= {"limits", "Cpus_allowed_list"}
        assert {line.rpartition(":")[2] for line in one["groups"]} == {"/"}
        limits = [row for row in one["limits"] if row not in other["limits"]]
        assert [row[:2] for row in limits] == [["Max", "core"]]


@pytest.mark.parametrize("flags", [(), ("--userns", "host")], ids=["own-ids", "hosts-ids"])
def test_nobody_has_the_keys_of_who_started_the_engine(
    docker: str, dirty: Daemon, flags: tuple[str, ...]
) -> None:
    found = probes(docker, dirty, "--security-opt", "seccomp=unconfined", *flags)
    assert [one["key"] for one in found] == [ENOKEY, ENOKEY]


def test_what_starts_containers_has_little_of_it_either(dirty: Daemon) -> None:
    found = 0
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):  # one that ended meanwhile
            name = (path / "cmdline").read_bytes()
            if not name.startswith(b"sampan-zygote") or dirty.root.encode() not in name:
                continue
            variables = (path / "environ").read_bytes().split(b"\0")
            assert {text.partition(b"=")[0] for text in variables} <= {b"PATH", b"LC_ALL", b""}
            assert "/etc/shadow" not in {os.readlink(fd) for fd in (path / "fd").iterdir()}
            found += 1
    assert found
