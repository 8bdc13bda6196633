"""Control files, and the values that both versions of cgroups share.

Law: a control file that is absent means that the host lacks the feature. Writing to it answers False and
changes nothing; ``Features`` tells of it beforehand. Every other refusal by the kernel is raised, in the
words that Docker's runtime uses.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from sampan.errors import Conflict, Failure, Internal, InvalidArgument

MICROSECOND = 1000  # in nanoseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One setting: ``value`` goes to ``file`` of the group in the hierarchy of ``controller``."""

    controller: str
    file: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What the host can limit and account for."""

    memory_limit: bool = False
    swap_limit: bool = False
    memory_reservation: bool = False
    memory_swappiness: bool = False
    oom_kill_disable: bool = False
    cpu_shares: bool = False
    cpu_quota: bool = False
    cpu_realtime: bool = False
    cpuset: bool = False
    cpus: str = ""
    mems: str = ""
    pids_limit: bool = False
    blkio_weight: bool = False
    blkio_weight_device: bool = False
    blkio_throttle: bool = False
    devices: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockIo:
    """Operations and bytes of one device (``major``, ``minor``) by one kind of operation (Read, Write, …)."""

    major: int
    minor: int
    operation: str
    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What a group has used. Times in nanoseconds, sizes in bytes; a limit of None is none.

    ``memory_details`` is the kernel's memory.stat, ``memory_cache`` the page cache that can be dropped.
    """

    cpu_total: int = 0
    cpu_user: int = 0
    cpu_kernel: int = 0
    cpu_each: tuple[int, ...] = ()
    cpu_periods: int = 0
    cpu_throttled_periods: int = 0
    cpu_throttled: int = 0
    memory_usage: int = 0
    memory_peak: int = 0
    memory_limit: int | None = None
    memory_cache: int = 0
    memory_failures: int = 0
    memory_details: dict[str, int] = field(default_factory=dict)
    pids: int = 0
    pids_limit: int | None = None
    blkio_bytes: tuple[BlockIo, ...] = ()
    blkio_operations: tuple[BlockIo, ...] = ()


def read(path: str) -> str:
    """The text of a control file. Raises ``OSError``."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = part = os.read(fd, 1 << 16)
        while part:
            part = os.read(fd, 1 << 16)
            data += part
        return data.decode()
    finally:
        os.close(fd)


def mount_points() -> list[str]:
    """Where cgroup trees of either version are mounted."""
    found = []
    for line in read("/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith(("cgroup ", "cgroup2 ")):
            found.append(before.split(" ")[4])
    return found


def read_or(path: str, default: str) -> str:
    """As ``read``; ``default`` where the host lacks the file or the group is gone."""
    try:
        return read(path)
    except FileNotFoundError:
        return default
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.EOPNOTSUPP):
            return default
        raise


def poke(path: str, value: str) -> None:
    """Write ``value`` to a control file. Raises ``OSError``."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def write(path: str, value: str) -> bool:
    """Write a limit; False if the host lacks the file.

    Raises ``InvalidArgument`` for a value that the kernel does not accept, ``Conflict`` for one that the
    present state of the group forbids.
    """
    try:
        poke(path, value)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise refusal(path, value, error) from error
    return True


# What moves processes and makes groups inside; never what limits the group itself.
_DELEGATED = ("", "/cgroup.procs", "/cgroup.threads", "/cgroup.subtree_control", "/tasks")


def give(directory: str, gid: int) -> None:
    """Let a group of users make groups inside and move processes among them (cgroups(7), delegation).

    The owner stays: the first process joins as the host's root, though without root's privileges.
    """
    for name in _DELEGATED:
        try:
            os.chown(directory + name, -1, gid)
            os.chmod(directory + name, 0o664 if name else 0o775)
        except FileNotFoundError:
            continue


def refusal(path: str, value: str, error: OSError) -> Failure:
    """The failure that tells what could not be written where."""
    message = f'failed to write "{value}": write {path}: {(error.strerror or str(error)).lower()}'
    if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
        return Conflict(message)
    if error.errno in (errno.EINVAL, errno.ERANGE, errno.ENODEV, errno.ENXIO, errno.EOPNOTSUPP):
        return InvalidArgument(message)
    return Internal(message)


def integer(text: str) -> int:
    """The number in a control file; 0 for an empty one."""
    return int(text.strip() or 0)


def limit(text: str) -> int | None:
    """A limit as a number; None for ``max`` and for what version 1 writes instead (the largest pages)."""
    text = text.strip()
    if not text or text == "max":
        return None
    number = int(text)
    return None if number < 0 or number >= 1 << 62 else number


def flat(text: str) -> dict[str, int]:
    """The lines ``name value`` of a control file; other lines are left out."""
    table: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.strip().isdigit():
            table[name] = int(value)
    return table


def subgroups(directory: str) -> Iterator[str]:
    """The group and all groups inside it, the inner ones first. One that vanishes meanwhile is left out."""
    try:
        with os.scandir(directory) as entries:
            inner = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for path in inner:
        yield from subgroups(path)
    yield directory


def process_ids(directory: str) -> list[int]:
    """The processes in a group and in the groups inside it, ascending."""
    found: set[int] = set()
    for path in subgroups(directory):
        found.update(map(int, read_or(path + "/cgroup.procs", "").split()))
    return sorted(found)


def remove_directory(directory: str, *, patience: float) -> bool:
    """Remove a group with the groups inside it; True if it is gone.

    A process leaves its group shortly after its death is seen: a busy group is tried again for ``patience``
    seconds.
    """
    deadline = time.monotonic() + patience
    pause = 0.0005
    while True:
        if _remove_now(directory):
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def _remove_now(directory: str) -> bool:
    try:
        os.rmdir(directory)
        return True
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
    gone = True
    for path in subgroups(directory):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise
            gone = False
    return gone


def signal_all(directory: str) -> bool:
    """Send SIGKILL to every process inside; False if there was none."""
    some = False
    for pid in process_ids(directory):
        some = True
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return some


def wait_for_event(directory: str, name: str, value: int, *, timeout: float) -> bool:
    """Wait until ``name`` of cgroup.events (version 2) has ``value``; False after ``timeout`` seconds.

    A group that is gone has no processes and is not frozen. The kernel tells of a change, but holds that back
    for 10 ms after the one before: the file is looked at in between.
    """
    deadline = time.monotonic() + timeout
    pause = 0.0005
    try:
        fd = os.open(directory + "/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return value == 0
    try:
        poller = select.poll()
        poller.register(fd, select.POLLPRI)
        while True:
            try:
                text = os.pread(fd, 4096, 0).decode()
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return value == 0
                raise
            if flat(text).get(name) == value:
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            poller.poll(min(left, pause) * 1000)
            pause = min(pause * 2, 0.1)
    finally:
        os.close(fd)
