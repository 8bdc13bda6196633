"""Another container whose namespaces are joined: found by its first process's pid, and proved by its cgroup.

A pid may have gone to somebody else by the time that it is used. Law: nothing of a process is joined unless
it is in the cgroup that was named with it, seen through one descriptor of its directory in /proc, which goes
on to mean that very process.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sampan.linux import mount as m
from sampan.linux import process as p
from sampan.sandbox.messages import Neighbour

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def _process(neighbour: Neighbour) -> Iterator[int]:
    """A descriptor of /proc/PID. OSError ESRCH when the process is gone."""
    try:
        directory = os.open(f"/proc/{neighbour.pid}", _DIRECTORY)
    except FileNotFoundError:
        raise _gone(neighbour) from None
    try:
        if neighbour.cgroup not in _cgroups(directory):
            raise _gone(neighbour)
        yield directory
    finally:
        os.close(directory)


def _cgroups(directory: int) -> set[str]:
    fd = os.open("cgroup", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    with open(fd) as file:
        return {line.rstrip("\n").split(":", 2)[2] for line in file}


def _gone(neighbour: Neighbour) -> OSError:
    return OSError(errno.ESRCH, os.strerror(errno.ESRCH), f"container of process {neighbour.pid}")


def open_namespaces(neighbours: Iterable[Neighbour], joins: Iterable[tuple[str, int]]) -> dict[int, int]:
    """The namespaces of a plan's ``joins`` as descriptors by their flag; those of neighbours are proved."""
    opened: dict[int, int] = {}
    known = {f"/proc/{neighbour.pid}/": neighbour for neighbour in neighbours}
    try:
        for path, flag in joins:
            for prefix, neighbour in known.items():
                if path.startswith(prefix):
                    with _process(neighbour) as directory:
                        opened[flag] = _open(path.removeprefix(prefix), directory)
                    break
            else:
                opened[flag] = _open(path, None)
    except BaseException:
        for fd in opened.values():
            os.close(fd)
        raise
    return opened


def _open(path: str, directory: int | None) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)


def open_tree_of(neighbour: Neighbour, place: str) -> int:
    """A copy of the mount at ``place``, a directory of the neighbour's own tree.

    Visits its mount namespace, whose paths lead nowhere but into its own tree: for a process of one thread.
    """
    with _process(neighbour) as directory:
        there = _open("ns/mnt", directory)
    home = _open("/proc/self/ns/mnt", None)
    try:
        p.setns(there, p.CLONE_NEWNS)
        try:
            pinned = os.open(place, _DIRECTORY | os.O_NOFOLLOW)
            try:
                return m.open_tree("", dir_fd=pinned)
            finally:
                os.close(pinned)
        finally:
            p.setns(home, p.CLONE_NEWNS)
    finally:
        os.close(there)
        os.close(home)
