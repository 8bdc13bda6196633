"""The processes of the engine under test, as the kernel tells them.

Law: the process that plays the chaos is the subreaper of everything that it starts, so that whatever the
engine leaves behind is a descendant of it, and is found.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_NAMES = "127.0.0.11"
_PIDFD_GETFD = 438
_TCP_CLOSE = 7
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """``kind``: daemon, zygote, seed, keeper, launcher, child (of a launcher, and no program yet), worker,
    program.

    ``began`` is in clock ticks since the boot: a pid and its ``began`` are one process for ever.
    """

    pid: int
    parent: int
    session: int
    began: int
    state: str
    command: bytes
    kind: str = ""


def become_reaper() -> None:
    """Be the parent of all orphans among our descendants."""
    if _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def bury(own: set[int]) -> None:
    """Reap the orphans that have ended; ``own`` are children that somebody else waits for."""
    for child in children_of(os.getpid()):
        if child not in own:
            with suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)


def children_of(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found


def look(pid: int) -> Process | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None
    return Process(
        pid=pid,
        parent=int(fields[1]),
        session=int(fields[3]),
        began=int(fields[19]),
        state=fields[0],
        command=command,
    )


def descendants(top: int) -> Iterator[Process]:
    left = children_of(top)
    while left:
        pid = left.pop()
        if (found := look(pid)) is not None:
            left += children_of(pid)
            yield found


def of_engine(root: str, top: int | None = None) -> list[Process]:
    """Every living process that the engine of ``root`` has, or left; zombies are not alive."""
    title = b"sampan-zygote " + os.fsencode(root)
    every = {one.pid: one for one in descendants(top or os.getpid()) if one.state != "Z"}
    kinds: dict[int, str] = {}
    for pid, one in every.items():
        if b"sampan.daemon" in one.command and os.fsencode(root) in one.command:
            kinds[pid] = "daemon"
        elif one.command.startswith(b"sampan-seed " + os.fsencode(root)):
            kinds[pid] = "seed"
        elif one.command.startswith(b"sampan-exec " + os.fsencode(root)):
            kinds[pid] = "attendant"
        elif one.command.startswith(title):
            kinds[pid] = _part(one, every, title)
    for pid in every.keys() - kinds.keys():
        above: Process | None = every[pid]
        while above is not None and above.pid not in kinds:
            above = every.get(above.parent)
        if above is not None or _in_container(pid, root):
            kinds[pid] = "program"
    return [
        Process(
            pid=one.pid,
            parent=one.parent,
            session=one.session,
            began=one.began,
            state=one.state,
            command=one.command,
            kind=kinds[pid],
        )
        for pid, one in every.items()
        if pid in kinds
    ]


def _part(one: Process, every: dict[int, Process], title: bytes) -> str:
    if one.session == one.pid:
        return "zygote"
    above = every.get(one.parent)
    if above is not None and above.command.startswith(title) and above.session != above.pid:
        return "launcher" if pid_namespace(one.pid) == pid_namespace(above.pid) else "child"
    return "worker" if is_worker(one.pid) else "keeper"


def workers(zygotes: Iterable[int]) -> list[Process]:
    found = [look(pid) for zygote in zygotes for pid in children_of(zygote) if is_worker(pid)]
    return [replace(one, kind="worker") for one in found if one is not None and one.state != "Z"]


def pid_namespace(pid: int) -> str:
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/pid")
    return ""


def is_worker(pid: int) -> bool:
    """A visitor is told from a keeper by the descriptor of itself that it made for the daemon."""
    with suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if "pidfd" in os.readlink(f"/proc/{pid}/fd/{fd}"):
                    text = Path(f"/proc/{pid}/fdinfo/{fd}").read_text()
                    if f"Pid:\t{pid}\n" in text:
                        return True
    return False


def _in_container(pid: int, root: str) -> bool:
    from sampan.network.naming import bridge_name

    with suppress(OSError):
        return bridge_name(f"{root.rpartition('/')[0]}/data") in Path(f"/proc/{pid}/cgroup").read_text()
    return False


def end(pid: int, patience: float = 30.0) -> bool:
    """SIGKILL, and wait for the death; whether it lived."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if select.select([handle], [], [], 0)[0]:
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        assert select.select([handle], [], [], patience)[0], f"{pid} does not die"
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)


def descriptors(pid: int, guests: Sequence[int] = ()) -> dict[str, int]:
    """How many descriptors of each sort a process has, but for connections to a registry, which are kept.

    ``guests`` are first processes of containers: the sockets by which one of them asks for names, which are
    in its network namespace, are told apart from all others as ``names of PID``, and pidfds of theirs are not
    counted: a daemon that did not start a container has one from the first exec on.
    """
    sorts = {f"socket:[{inode}]": "socket" for inode in _inodes(pid, "unix", 6)}
    sorts |= {f"socket:[{inode}]": "netlink" for inode in _inodes(pid, "netlink", 9)}
    sorts |= dict.fromkeys(_sockets(pid, "tcp"), "")
    for guest in guests:
        for inode, address in (_sockets(guest, "udp") | _sockets(guest, "tcp")).items():
            if address == _NAMES:
                sorts[inode] = f"names of {guest}"
    found: dict[str, int] = {}
    with suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                what = os.readlink(f"/proc/{pid}/fd/{fd}")
                if "pidfd" in what and _of_one(pid, fd, guests):
                    continue
                sort = sorts.get(what)
                if sort is None:
                    sort = what.partition("[")[0] if "socket" not in what else _in_no_table(pid, int(fd))
                if sort:
                    found[sort] = found.get(sort, 0) + 1
    return found


def _of_one(pid: int, fd: str, guests: Sequence[int]) -> bool:
    text = Path(f"/proc/{pid}/fdinfo/{fd}").read_text()
    return any(f"Pid:\t{guest}\n" in text for guest in guests)


def _in_no_table(pid: int, fd: int) -> str:
    """The sort of a socket that its process's network namespace does not list; "" is a connection that was
    reset, of which the kernel keeps nothing but the descriptor, until its owner looks at it."""
    process = os.pidfd_open(pid)
    try:
        copy = _LIBC.syscall(_PIDFD_GETFD, process, fd, 0)
    finally:
        os.close(process)
    if copy < 0:
        return "socket of another namespace"
    with socket.socket(fileno=copy) as sock:
        sort = f"{sock.family.name} {sock.proto} {sock.getsockname()}"
        tcp = sock.proto == socket.IPPROTO_TCP
        closed = tcp and sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE
        return "" if closed else sort


def _inodes(pid: int, table: str, column: int) -> list[str]:
    with suppress(OSError):
        rows = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        return [row.split()[column] for row in rows]
    return []


def _sockets(pid: int, protocol: str) -> dict[str, str]:
    """The IPv4 sockets in a process's network namespace: their links in /proc/PID/fd → local address."""
    with suppress(OSError):
        rows = [line.split() for line in Path(f"/proc/{pid}/net/{protocol}").read_text().splitlines()[1:]]
        return {f"socket:[{row[9]}]": _address(row[1]) for row in rows}
    return {}


def _address(text: str) -> str:
    """``0B00007F:C35A`` is 127.0.0.11: the kernel prints a number of the host's order."""
    return socket.inet_ntoa(int(text.partition(":")[0], 16).to_bytes(4, sys.byteorder))


def peers(pid: int) -> list[str]:
    """What the kernel says of a process's sockets, one a line; for those who read a violation."""
    inodes = set()
    with suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                inodes.add(os.readlink(f"/proc/{pid}/fd/{fd}").removeprefix("socket:[").removesuffix("]"))
    told = subprocess.run(["ss", "-xanpH"], capture_output=True, text=True, check=False).stdout.splitlines()
    return [line for line in told if inodes & set(line.split())]
