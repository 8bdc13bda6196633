"""What a process owns that has got out of its container's mounts and pids, by a hole that is not there yet.

The test puts one there: it has the container's root and all that its user namespace gives, the host's tree
and processes in sight, no seccomp filter and no cgroup. The same process with the host's ids is the control:
what it gets at shows that there was something to get.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.linux import capabilities
from sampan.linux import process as p
from sampan.sandbox.entering import become_root
from sampan.spec.runtime import DEFAULT_CAPABILITIES, capability_number
from tests.attacks.conftest import HOSTS_IDS, Docker
from tests.attacks.test_kernel import processes
from tests.e2e.serving import Daemon

pytestmark = [pytest.mark.root, pytest.mark.e2e]

SECRET = "the other's secret"
PTRACE_ATTACH, PTRACE_DETACH, MS_BIND, TIOCSTI = 16, 17, 4096, 0x5412
KINDS = {
    "user": p.CLONE_NEWUSER,
    "mnt": p.CLONE_NEWNS,
    "pid": p.CLONE_NEWPID,
    "net": p.CLONE_NEWNET,
    "ipc": p.CLONE_NEWIPC,
    "uts": p.CLONE_NEWUTS,
}
LIBC = ctypes.CDLL(None, use_errno=True)


def succeeds(work: Callable[[], object]) -> bool:
    try:
        work()
    except OSError:
        return False
    return True


def checked(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")


def files_got_at(places: list[str]) -> list[str]:
    """What below the places can be listed, read or written."""
    found = []
    for place in places:
        for directory, folders, files in os.walk(place, onerror=lambda _: None):
            found.append(f"list {directory}")
            for name in (*files, *folders):
                path = f"{directory}/{name}"
                with contextlib.suppress(OSError):
                    if stat.S_ISREG(os.lstat(path).st_mode):
                        os.close(os.open(path, os.O_RDONLY | os.O_NOFOLLOW))
                        found.append(f"read {path}")
                if os.access(path, os.W_OK, effective_ids=True, follow_symlinks=False):
                    found.append(f"write {path}")
    return found


def process_got_at(pid: int) -> list[str]:
    def see(name: str) -> Callable[[], object]:
        return lambda: os.stat(f"/proc/{pid}/{name}")

    def opened(name: str, flags: int = os.O_RDONLY) -> Callable[[], object]:
        return lambda: os.read(os.open(f"/proc/{pid}/{name}", flags), 1)

    def traced() -> None:
        checked(LIBC.ptrace(PTRACE_ATTACH, pid, 0, 0))
        os.waitpid(pid, 0)
        checked(LIBC.ptrace(PTRACE_DETACH, pid, 0, 0))

    def joined(kind: str) -> Callable[[], object]:
        def join() -> None:
            # By a child: the next try is to be made from here.
            child = os.fork()
            if child == 0:
                os._exit(0 if succeeds(lambda: p.setns(os.pidfd_open(pid), KINDS[kind])) else 1)
            if os.waitpid(child, 0)[1]:
                raise OSError(errno.EPERM, kind)

        return join

    tries: dict[str, Callable[[], object]] = {
        "root": see("root/"),
        "cwd": see("cwd/"),
        "exe": see("exe"),
        "descriptors": lambda: os.listdir(f"/proc/{pid}/fd"),
        "environment": opened("environ"),
        "memory": lambda: os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR)),
        "maps": opened("maps"),
        "score": lambda: Path(f"/proc/{pid}/oom_score_adj").write_text("1000"),
        "signal": lambda: os.kill(pid, 0),
        "priority": lambda: os.setpriority(os.PRIO_PROCESS, pid, 19),
        "affinity": lambda: os.sched_setaffinity(pid, os.sched_getaffinity(0)),
        "trace": traced,
        **{f"join {kind}": joined(kind) for kind in KINDS},
    }
    return [f"{name} of {pid}" for name, work in tries.items() if succeeds(work)]


def host_got_at(engines_socket: str) -> list[str]:
    def connect() -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(engines_socket)

    def bound() -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 1))

    def node() -> None:
        os.mknod("/tmp/evil-node", stat.S_IFCHR | 0o600, os.makedev(1, 1))
        os.unlink("/tmp/evil-node")

    def sysctl(name: str) -> Callable[[], object]:
        path = f"/proc/sys/{name}"
        return lambda: os.close(os.open(path, os.O_WRONLY))

    tries: dict[str, Callable[[], object]] = {
        "the engine's socket": connect,
        "the host's shadow file": lambda: os.close(os.open("/etc/shadow", os.O_RDONLY)),
        "the host's passwd file": lambda: os.close(os.open("/etc/passwd", os.O_WRONLY)),
        "root's home": lambda: os.listdir("/root"),
        "a device": node,
        "the kernel's log": lambda: os.close(os.open("/dev/kmsg", os.O_RDWR)),
        "core_pattern": sysctl("kernel/core_pattern"),
        "forwarding": sysctl("net/ipv4/ip_forward"),
        "sysrq": lambda: os.close(os.open("/proc/sysrq-trigger", os.O_WRONLY)),
        "mounting": lambda: checked(LIBC.mount(b"/tmp", b"/tmp", None, MS_BIND, None)),
        "unmounting": lambda: checked(LIBC.umount2(b"/proc", 2)),
        "the host's name": lambda: socket.sethostname(socket.gethostname()),
        "a port below 1024": bound,
        "raw sockets": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close(),
        "the clock": lambda: checked(LIBC.settimeofday(ctypes.byref((ctypes.c_long * 2)(-1, 0)), None)),
        "the first process": lambda: os.kill(1, 0),
        "cgroups": lambda: os.mkdir(f"{_cgroup_top()}/evil"),
    }
    return [name for name, work in tries.items() if succeeds(work)]


def _cgroup_top() -> str:
    return "/sys/fs/cgroup" if os.path.exists("/sys/fs/cgroup/cgroup.procs") else "/sys/fs/cgroup/pids"


@contextlib.contextmanager
def opened_up(daemon: Daemon) -> Iterator[None]:
    """The temporary directory that hides the engine's own from everybody does not count."""
    mode = stat.S_IMODE(os.stat(daemon.root).st_mode)
    os.chmod(daemon.root, 0o755)
    yield
    os.chmod(daemon.root, mode)


def escaped(pid: int, *, own_ids: bool, work: Callable[[], list[str]]) -> list[str]:
    """What ``work`` finds as root of the container of ``pid``, with the host's namespaces but for users."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(60)
            if own_ids:
                p.setns(os.pidfd_open(pid), p.CLONE_NEWUSER)
                become_root()
            else:
                held = [capability_number(name) for name in DEFAULT_CAPABILITIES]
                capabilities.limit_bounding_set(held)
                capabilities.capset(effective=held, permitted=held, inheritable=())
            os.write(writing, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    found: list[str] = json.loads(data)
    return found


@pytest.fixture
def pids(engine: Docker, ids: tuple[str, ...]) -> dict[str, int]:
    """The first processes of the container that is escaped from, and of another with a secret."""
    for name in ("box", "other"):
        write = f'echo "{SECRET}" > /secret; cp /secret /data/secret; echo ready; exec sleep 1000'
        run = ("run", "-d", *ids, "--name", name, "-e", f"SECRET={SECRET}", "-v", f"{name}:/data")
        assert engine(*run, "busybox", "sh", "-c", write).returncode == 0
        engine("exec", name, "sh", "-c", "until [ -e /data/secret ]; do :; done")
    return {name: int(engine("inspect", "-f", "{{.State.Pid}}", name).stdout) for name in ("box", "other")}


def test_who_escaped_owns_nothing(
    engine: Docker, daemon: Daemon, ids: tuple[str, ...], pids: dict[str, int]
) -> None:
    """Neither files (state, layers, volumes, logs, sockets), nor processes, nor anything of the host."""
    engines = processes(daemon)
    assert len(engines) >= 3  # daemon, zygote, keepers

    def work() -> list[str]:
        return [
            *files_got_at([f"{daemon.root}/data", f"{daemon.root}/run"]),
            *(line for pid in (*engines, pids["other"]) for line in process_got_at(pid)),
            *host_got_at(daemon.socket),
        ]

    with opened_up(daemon):
        found = escaped(pids["box"], own_ids=ids != HOSTS_IDS, work=work)
    if ids != HOSTS_IDS:
        assert found == []
        return
    assert {"the engine's socket", "the host's passwd file"} <= set(found)
    assert {f"root of {pids['other']}", f"signal of {engines[0]}"} <= set(found)
    assert any("state.db" in line for line in found)
    assert any("/secret" in line for line in found)
