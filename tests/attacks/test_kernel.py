"""Attacks by what the kernel offers: its files, its devices, other processes, keys, groups of processes."""

from __future__ import annotations

import contextlib
import glob
import os
from pathlib import Path

import pytest

from tests.attacks.conftest import HOSTS_IDS, Docker
from tests.e2e.serving import Daemon

pytestmark = [pytest.mark.root, pytest.mark.e2e]

PYTHON = "/usr/bin/python3"
"""The host's own, with which a container can make any system call."""

HOSTS_PROGRAMS = [word for place in ("/usr", "/lib", "/lib64") for word in ("-v", f"{place}:{place}:ro")]
needs_python = pytest.mark.skipif(not os.path.exists(PYTHON), reason="needs the host's python3")


def processes(daemon: Daemon) -> list[int]:
    """Of the engine: the daemon, and whoever has its root in its command line or its name."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if daemon.root.encode() in Path(path).read_bytes():
                found.append(int(path.split("/")[2]))
    return found


@needs_python
def test_cve_2019_5736_the_engines_program_is_not_written_to(engine: Docker, ids: tuple[str, ...]) -> None:
    """The container's program is /proc/self/exe: it has the interpreter of the engine in its hands."""
    code = (
        "import os\\n"
        "fd = os.open('/proc/self/exe', os.O_RDONLY)\\n"
        "try: os.open(f'/proc/self/fd/{fd}', os.O_WRONLY); print('WRITABLE')\\n"
        "except OSError as error: print('refused', error.errno)\\n"
    )
    make = f"printf '#!/proc/self/exe\\n{code}' > /evil; chmod 755 /evil; exec sleep 1000"
    engine("run", "-d", *ids, *HOSTS_PROGRAMS, "--name", "box", "busybox", "sh", "-c", make)
    engine("exec", "box", "sh", "-c", "until [ -x /evil ]; do :; done")
    done = engine("exec", "box", "/evil")
    assert "WRITABLE" not in done.stdout, done


def test_cve_2019_5736_nobody_in_it_sees_what_enters(engine: Docker, ids: tuple[str, ...]) -> None:
    """A process of the container waits for the one that an exec brings in, and takes hold of its program."""
    watch = (
        "while :; do for p in /proc/[0-9]*; do e=$(readlink $p/exe) && "
        "case $e in /bin/busybox) ;; *) echo $e; exec 3<$p/exe && echo HELD;; esac; done; done"
    )
    engine("run", "-d", *ids, "--name", "box", "busybox", "sh", "-c", watch)
    for _ in range(4):
        engine("exec", "box", "true")
    assert engine("logs", "box").stdout == ""


def test_cve_2020_15257_no_socket_without_a_file(engine: Docker, daemon: Daemon) -> None:
    """With the host's network a container reaches abstract sockets: the engine has none."""
    engine("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    inodes = set()
    for pid in processes(daemon):
        for path in glob.glob(f"/proc/{pid}/fd/*"):
            with contextlib.suppress(OSError):
                inodes.add(os.readlink(path))
    assert any(name.startswith("socket:") for name in inodes)
    with open("/proc/net/unix") as file:
        abstract = [line.split() for line in file if " @" in line]
    assert [words for words in abstract if f"socket:[{words[6]}]" in inodes] == []


@pytest.mark.parametrize("more", [(), ("--cap-add", "NET_ADMIN"), ("--user", "app")], ids=str)
def test_cve_2022_24769_no_capability_is_inherited(
    engine: Docker, ids: tuple[str, ...], more: tuple[str, ...]
) -> None:
    """A program with file capabilities would add to its own what is inheritable."""
    look = ("grep", "-E", "Cap(Inh|Amb)", "/proc/self/status")
    engine("run", "-d", *ids, *more, "--name", "box", "busybox", "sleep", "1000")
    for words in (("run", "--rm", *ids, *more, "busybox"), ("exec", "box"), ("exec", "-u", "app", "box")):
        done = engine(*words, *look)
        assert {line.split()[1] for line in done.stdout.splitlines()} == {"0" * 16}, done


RELEASE = (
    "for t in cgroup cgroup2; do mkdir /tmp/$t; unshare -C mount -t $t $t /tmp/$t; "
    "unshare -UrmC mount -t cgroup -o rdma cgroup /tmp/$t; unshare -Urm mount -t $t $t /tmp/$t; "
    "mount -t $t $t /tmp/$t; done 2>/dev/null; "
    "for f in $(find /sys/fs/cgroup /tmp/cgroup /tmp/cgroup2 -name release_agent -o "
    "-name notify_on_release -o -name cgroup.procs 2>/dev/null); do "
    "(exec 3>>$f) 2>/dev/null && echo OPENED $f; done; true"
)


@pytest.mark.parametrize("more", [(), ("--cap-add", "SYS_ADMIN")], ids=["plain", "sys-admin"])
def test_cve_2022_0492_release_agent(engine: Docker, more: tuple[str, ...]) -> None:
    """A group's file names a program that the kernel runs as the host's root. Here it is only opened."""
    done = engine("run", "--rm", *more, "busybox", "sh", "-c", RELEASE)
    assert "release_agent" not in done.stdout, done
    if not more:
        assert "OPENED" not in done.stdout, done


def test_cve_2022_0492_with_the_hosts_ids(engine: Docker) -> None:
    assert "OPENED" not in engine("run", "--rm", *HOSTS_IDS, "busybox", "sh", "-c", RELEASE).stdout


@pytest.mark.parametrize(
    "path",
    [
        "/proc/sysrq-trigger",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/vm/panic_on_oom",
        "/proc/sys/fs/binfmt_misc/register",
        "/sys/kernel/uevent_helper",
        "/proc/1/oom_score_adj_of_nobody",
    ],
)
def test_files_of_the_kernel_are_not_written_to(engine: Docker, ids: tuple[str, ...], path: str) -> None:
    """Opened for appending, with nothing to append: on an engine that lets it no harm is done."""
    tries = f"(exec 3>>{path}) 2>/dev/null && echo OPENED; mount -o remount,rw /proc/sys 2>/dev/null; "
    tries += f"umount /proc/sys {path} 2>/dev/null; (exec 3>>{path}) 2>/dev/null && echo OPENED; true"
    assert "OPENED" not in engine("run", "--rm", *ids, "busybox", "sh", "-c", tries).stdout


def test_memory_and_disks_are_not_opened(engine: Docker, ids: tuple[str, ...]) -> None:
    disk = os.stat("/").st_dev
    kinds = [("mem", "c 1 1"), ("kmem", "c 1 2"), ("port", "c 1 4"), ("kmsg", "c 1 11")]
    kinds.append(("disk", f"b {os.major(disk)} {os.minor(disk)}"))
    tries = [
        f"mknod /tmp/{name} {kind} 2>/dev/null; (exec 3</tmp/{name}) 2>/dev/null && echo OPENED {name}"
        for name, kind in kinds
    ]
    tries += ["for n in mem kmem port kmsg; do (exec 3</dev/$n) 2>/dev/null && echo OPENED $n; done"]
    done = engine("run", "--rm", *ids, "busybox", "sh", "-c", "; ".join([*tries, "true"]))
    assert "OPENED" not in done.stdout, done


@pytest.mark.parametrize("more", [(), ("--pid", "host")], ids=["own-pids", "hosts-pids"])
def test_other_processes_are_not_traced(engine: Docker, daemon: Daemon, more: tuple[str, ...]) -> None:
    """Root of a container that sees the engine's processes gets at nothing of theirs."""
    tries = [
        f"(exec 3<>/proc/{pid}/mem) 2>/dev/null && echo OPENED {pid}; "
        f"ls /proc/{pid}/root/ 2>/dev/null && echo SEEN {pid}; "
        f"readlink /proc/{pid}/exe /proc/{pid}/fd/0; "
        f"head -c 1 /proc/{pid}/environ 2>/dev/null | grep -q . && echo READ {pid}"
        for pid in processes(daemon)
    ]
    done = engine("run", "--rm", *more, "busybox", "sh", "-c", "; ".join([*tries, "true"]))
    assert done.stdout == "", done


CALLS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def tried(name, number, *words):
    ctypes.set_errno(0)
    done = libc.syscall(ctypes.c_long(number), *words)
    print(name, "done" if done >= 0 else "refused")
P = ctypes.c_char_p
tried("add_key", 248, P(b"user"), P(b"k"), P(b"x"), ctypes.c_long(1), ctypes.c_long(-3))
tried("request_key", 249, P(b"user"), P(b"k"), None, ctypes.c_long(-3))
tried("keyctl", 250, ctypes.c_long(0), ctypes.c_long(-3), ctypes.c_long(0))
tried("bpf", 321, ctypes.c_long(0), None, ctypes.c_long(0))
tried("userfaultfd", 323, ctypes.c_long(0))
tried("open_by_handle_at", 304, ctypes.c_long(0), None, ctypes.c_long(0))
tried("init_module", 175, None, ctypes.c_long(0), P(b""))
tried("kexec_load", 246, ctypes.c_long(0), ctypes.c_long(0), None, ctypes.c_long(0))
tried("perf_event_open", 298, None, ctypes.c_long(0), ctypes.c_long(-1), ctypes.c_long(-1), ctypes.c_long(0))
tried("setns", 308, ctypes.c_long(0), ctypes.c_long(0))
tried("io_uring_setup", 425, ctypes.c_long(1), None)
tried("vm_readv", 310, ctypes.c_long(1), None, ctypes.c_long(0), None, ctypes.c_long(0), ctypes.c_long(0))
"""


@needs_python
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86-64's calls")
def test_keys_and_calls_that_reach_beyond(engine: Docker, ids: tuple[str, ...]) -> None:
    """The host's keys are not the container's; calls that only attacks make are refused."""
    done = engine("run", "--rm", *ids, *HOSTS_PROGRAMS, "busybox", PYTHON, "-c", CALLS)
    assert done.returncode == 0, done
    told = dict(line.split() for line in done.stdout.splitlines())
    assert {name for name, how in told.items() if how == "done"} <= {"vm_readv"}, told
    assert len(told) == 12
