"""What is left to somebody who has taken hold of a worker: in the place of its work stands other code.

Each worker is the real one, forked as the zygote does it, with a request as the daemon sends it; it goes
where it goes and narrows itself as it does. Only what it would do there is replaced, by calls that nobody
should have. Descriptor 0 is a directory of the host, as if one had been left open.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import select
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from sampan.linux import landlock
from sampan.sandbox import compose, merge, pack, packer, placing, settle, unpacker, visit, zygote
from sampan.sandbox.messages import RootFilesystem, encode
from sampan.spec import syscalls

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="no filter for this machine"),
]

NUMBERS = syscalls.numbers("aarch64" if platform.machine() == "aarch64" else "x86_64")
FORBIDDEN = """
    clone clone3 execve execveat ptrace process_vm_readv process_vm_writev kill tkill pidfd_open pidfd_getfd
    pidfd_send_signal socket socketpair connect bind listen accept4 mount umount2 move_mount open_tree
    fsopen fsmount fspick mount_setattr pivot_root chroot unshare setns setuid setgid setreuid setresuid
    setresgid setgroups setfsuid capset prctl seccomp personality bpf keyctl add_key request_key init_module
    finit_module delete_module kexec_load perf_event_open userfaultfd io_uring_setup io_uring_enter
    open_by_handle_at name_to_handle_at memfd_secret reboot swapon acct sethostname
    setdomainname settimeofday clock_settime syslog quotactl shmget shmat timer_create setrlimit
    inotify_init1 fanotify_init signalfd4 landlock_restrict_self
"""
CHANGING = """
    mkdirat unlinkat symlinkat linkat renameat2 fchmodat fchownat fsetxattr ftruncate mknodat
"""
PROT_READ, PROT_EXEC, MAP_PRIVATE_ANONYMOUS, RLIMIT_NOFILE = 1, 4, 0x22, 7
LEAKED = 0

ORDER = {
    "sources": ["f"],
    "target": "/x",
    "chown": "",
    "mode": None,
    "parents": False,
    "link": False,
    "whole": False,
    "keep_owners": False,
    "excluded": [],
    "epoch": None,
    "since": None,
}
UNPACKING = {
    "compression": "",
    "digest": False,
    "size_limit": 0,
    "entry_limit": 0,
    "ratio_limit": 0,
    "plain_marks": False,
    "libraries": [],
}
EXTRACTING = {"binds": [], "writable": True, "path": "/", "volumes": [], "owner": "", "keep_kinds": False}
LOOKING = {"binds": [], "writable": False, "path": "/f"}

Worker = tuple[str, dict[str, Any], object, str, str]
"""(operation, what its request adds, whose work is replaced: an object and its attribute, what it does)"""

READERS: list[Worker] = [
    ("stat", LOOKING, visit, "look", "reads"),
    ("pack", LOOKING, visit, "pack_at", "reads"),
    ("export", {}, pack.Packer, "tree", "reads"),
    ("tree", {}, pack.Packer, "tree", "reads"),
    ("changes", {}, visit, "differences", "reads"),
    ("compose", {"made": "", "links": 0, "order": ORDER}, compose.Composer, "run", "reads"),
    ("packer", {}, pack.Packer, "tree", "reads"),
]
WRITERS: list[Worker] = [
    ("extract", EXTRACTING, visit, "extract", "writes anywhere"),
    ("fill", {}, visit, "extract", "writes"),
    ("compose", {"made": "made", "links": 0, "order": ORDER}, compose.Composer, "run", "writes"),
    ("layer", {"stubs": [], "latest": None}, settle.Settler, "run", "writes"),
    ("merge", {"made": "made", "latest": None}, merge.Merger, "run", "writes"),
    ("apart", {"made": "made", "links": 1}, placing, "set_apart", "writes"),
    ("unpack", UNPACKING, unpacker, "unpack", "writes"),
]


def attack(inside: int) -> dict[str, Any]:
    """What comes of all that is tried: 0, or the number of the error. ``inside`` is its own directory."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long

    def call(number: int, *arguments: int) -> int:
        words = [ctypes.c_long(word) for word in (number, *arguments)]
        return ctypes.get_errno() if libc.syscall(*words) == -1 else 0

    def make(directory: int) -> int:
        try:
            os.close(os.open("evil", os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=directory))
        except OSError as error:
            return error.errno or -1
        return 0

    def load() -> int:
        try:
            __import__("this")
        except ImportError:
            return -1
        return 0

    nonsense = (-1,) * 6  # nothing comes of it where a call is allowed
    limit = ctypes.create_string_buffer(16)
    return {
        "forbidden": {name: call(NUMBERS[name], *nonsense) for name in FORBIDDEN.split() if name in NUMBERS},
        "changing": {name: call(NUMBERS[name], *nonsense) for name in CHANGING.split() if name in NUMBERS},
        "younger": call(5000),
        "code": call(NUMBERS["mmap"], 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE_ANONYMOUS, -1, 0),
        "memory": call(NUMBERS["mmap"], 0, 4096, PROT_READ, MAP_PRIVATE_ANONYMOUS, -1, 0),
        "set limit": call(NUMBERS["prlimit64"], 0, RLIMIT_NOFILE, ctypes.addressof(limit), 0),
        "see limit": call(NUMBERS["prlimit64"], 0, RLIMIT_NOFILE, 0, ctypes.addressof(limit)),
        "inside": make(inside),
        "outside": make(LEAKED),
        "import": load(),
    }


def place(root: Path) -> RootFilesystem:
    for name in ("lower", "upper", "work", "made", "outside"):
        (root / name).mkdir()
    (root / "lower/f").write_text("f")
    (root / "archive").write_bytes(bytes(1024))
    return RootFilesystem(base=str(root), lowers=("lower",), upper="upper", work="work")


def request_of(worker: Worker, root: RootFilesystem) -> tuple[bytes, list[str]]:
    """The request, and the paths of the files that are sent with it."""
    op, more, *_ = worker
    files = {"unpack": ["archive", "made"]}.get(op, [] if op == "stat" else ["archive"])
    document = {"op": op, "root": asdict(root), "directory": f"{root.base}/made", **more}
    if document.get("made"):
        document["made"] = f"{root.base}/made"
    if op == "compose":
        document["tree"] = f"{root.base}/lower"
    return encode(document), [f"{root.base}/{name}" for name in files]


def be_worker(worker: Worker, root: RootFilesystem, control: int, report: int) -> None:
    """Become the worker; the report is sent from where its work would have been done."""
    op, _, owner, attribute, _ = worker
    document, paths = request_of(worker, root)

    def evil(*arguments: Any, **_named: Any) -> None:
        inside = os.open(".", os.O_RDONLY)
        if op == "compose" and arguments[0]._placer is not None:
            inside = arguments[0]._placer._root
        os.write(report, json.dumps(attack(inside)).encode() + b"\n")
        select.poll().poll()

    setattr(owner, attribute, evil)
    fds = [control]
    for path in paths:
        kind = os.O_DIRECTORY if os.path.isdir(path) else os.O_RDWR
        fds.append(os.open(path, kind))
    os.dup2(os.open(f"{root.base}/outside", os.O_RDONLY), LEAKED)
    if op == "packer":
        os.chdir(f"{root.base}/upper")
        sys.argv = ["packer"]
        packer.main()
    else:
        zygote._become_visitor(document, fds)


@contextmanager
def taken(worker: Worker, root: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The worker's pid and what the attacker found, while it is still there."""
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reading, writing = os.pipe()
    where = place(root)
    child = os.fork()
    if child == 0:
        try:
            os.dup2(writing, 1)
            control.close()
            be_worker(worker, where, theirs.detach(), 1)
        finally:
            os._exit(1)
    os.close(writing)
    theirs.close()
    try:
        with os.fdopen(reading) as pipe:
            line = pipe.readline()
        assert line, control.recv(1 << 16)
        yield child, json.loads(line)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        control.close()


def named(worker: Worker) -> str:
    return f"{worker[0]}-{worker[4].replace(' ', '-')}"


@pytest.mark.parametrize("worker", READERS + WRITERS, ids=named)
def test_who_takes_hold_of_a_worker_has_gained_nothing(worker: Worker, tmp_path: Path) -> None:
    with taken(worker, tmp_path) as (pid, found):
        assert {name: value for name, value in found["forbidden"].items() if value != errno.EPERM} == {}
        assert found["younger"] == errno.ENOSYS
        assert (found["code"], found["memory"]) == (errno.EPERM, 0)
        assert (found["set limit"], found["see limit"]) == (errno.EPERM, 0)
        assert found["import"] == -1
        text = Path(f"/proc/{pid}/status").read_text()
        status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        # Without CAP_SYS_PTRACE, SETUID, SETGID, SETPCAP, NET_ADMIN, SYS_CHROOT, SYS_MODULE, SYS_BOOT, KILL.
        few = sum(1 << number for number in (0, 1, 2, 3, 4, 21, 27, 31))
        assert int(status["CapEff"], 16) & ~few == 0
        assert status["CapEff"] == status["CapPrm"]
        assert int(status["CapBnd"], 16) & ~few == 0


@pytest.mark.parametrize("worker", READERS, ids=named)
def test_who_only_reads_changes_no_file(worker: Worker, tmp_path: Path) -> None:
    with taken(worker, tmp_path) as (_, found):
        assert {name: value for name, value in found["changing"].items() if value != errno.EPERM} == {}
        if landlock.usable():
            assert found["outside"] == errno.EACCES
            assert found["inside"] in (errno.EACCES, errno.EROFS)


@pytest.mark.skipif(not landlock.usable(), reason="this kernel has no Landlock that we use")
@pytest.mark.parametrize("worker", [worker for worker in WRITERS if worker[4] == "writes"], ids=named)
def test_who_writes_does_it_below_its_directory_only(worker: Worker, tmp_path: Path) -> None:
    with taken(worker, tmp_path) as (_, found):
        assert (found["inside"], found["outside"]) == (0, errno.EACCES)
    assert not (tmp_path / "outside/evil").exists()
