"""What a container may use, and what it has used: one interface over cgroups version 1, hybrid and version 2.

``detect()`` finds out which of them the host has and gives a ``Hierarchy``; ``hierarchy.group(path)`` is a
value that names a group and costs nothing. A group:

- ``create(resources)``: make it, with its parents, and set its limits. One that a start cut short has left
  behind is made anew; one with processes is a ``Conflict``, or taken as it is if it may be ``shared``. On
  failure nothing is left.
- ``update(resources)``: change the limits that ``resources`` mentions.
- ``delegate(gid)``: let that group of users make groups inside it; its own limits stay out of their reach.
- ``clone_fd()``: a descriptor (the caller's) for ``CLONE_INTO_CGROUP`` of clone3, or None where the host has
  no version 2 tree at all.
- ``join(cloned=…)``: move the calling process, which has one thread, into the group. On version 1 and hybrid
  hosts it is needed even after cloning, and is cheap then (``cloned=True``); without cloning it waits 10 ms
  and more on a hybrid host.
- ``entrances()``: the same for who cannot name the group any more: descriptors (the caller's) to each of
  which a process that was cloned into the group writes 0.
- ``freeze()``, ``thaw()``, ``frozen()``: stop and go on; True once all processes have.
- ``kill(timeout)``: SIGKILL to everything inside, frozen or not; True once the group is empty. With timeout 0
  it only sends.
- ``pids()``: the processes in it and in groups that the container made inside it.
- ``oom_killed()``: whether the kernel killed something inside for want of memory.
- ``stats()``: see ``Stats``.
- ``remove()``: remove it with the groups inside; a group that is gone is success, one with processes is a
  ``Conflict`` after a moment's patience.

A hierarchy also houses the engine itself: ``shelter(path)`` moves the calling process, which has one thread,
into a group that it makes if need be; ``leave(path)`` moves it to the root of every tree and removes the
group, unless others are in it.

Limits that the host lacks are passed over without a word here: ``hierarchy.features`` says beforehand what it
has, so that the user can be told when a container is created.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.errors import Unavailable
from sampan.linux import kernel
from sampan.sandbox import cgroups_files as files
from sampan.sandbox import cgroups_v1, cgroups_v2
from sampan.sandbox.cgroups_files import BlockIo, Features, Stats

if TYPE_CHECKING:
    from typing import Protocol

    from sampan.spec.runtime import LinuxResources

    class Cgroup(Protocol):
        path: str

        def create(self, resources: LinuxResources, *, shared: bool = False) -> None: ...
        def update(self, resources: LinuxResources) -> None: ...
        def delegate(self, gid: int) -> None: ...
        def clone_fd(self) -> int | None: ...
        def join(self, *, cloned: bool = False) -> None: ...
        def entrances(self) -> list[int]: ...
        def freeze(self, *, timeout: float = 10.0) -> bool: ...
        def thaw(self, *, timeout: float = 10.0) -> bool: ...
        def frozen(self) -> bool: ...
        def kill(self, *, timeout: float = 10.0) -> bool: ...
        def pids(self) -> list[int]: ...
        def oom_killed(self) -> bool: ...
        def stats(self) -> Stats: ...
        def remove(self, *, patience: float = 2.0) -> None: ...

    Hierarchy = cgroups_v1.Hierarchy | cgroups_v2.Hierarchy

# cgroup.kill came with this version of Linux; without it a hybrid host gains nothing by its version 2 tree.
_CGROUP_KILL = (5, 14)

__all__ = ["BlockIo", "Features", "Stats", "detect", "engine_group", "parse_mounts"]


def engine_group(parent: str) -> str:
    """The group of the engine's own processes beside the containers' groups in ``parent``."""
    return f"{parent.rstrip('/')}/engine"


def detect() -> Hierarchy:
    """The hierarchy of this host. Raises ``Unavailable`` where no cgroup tree is mounted writable."""
    controllers, unified = parse_mounts(files.read("/proc/self/mountinfo"))
    if any(not name.startswith("name=") for name in controllers):
        usable = unified if unified is not None and kernel.version() >= _CGROUP_KILL else None
        return cgroups_v1.Hierarchy(controllers, usable)
    if unified is not None:
        return cgroups_v2.Hierarchy(unified)
    raise Unavailable("cgroups: cgroup mountpoint does not exist")


def parse_mounts(mountinfo: str) -> tuple[dict[str, str], str | None]:
    """The writable cgroup mounts: mount point by version 1 controller, and that of version 2."""
    controllers: dict[str, str] = {}
    unified: str | None = None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, end = before.split(" "), after.split(" ")
        if end[0] not in ("cgroup", "cgroup2") or len(fields) < 6 or "rw" not in fields[5].split(","):
            continue
        mount = _unescape(fields[4])
        if end[0] == "cgroup2":
            unified = unified or mount
            continue
        for option in end[-1].split(","):
            if option in cgroups_v1.CONTROLLERS:
                controllers.setdefault(option, mount)
    return controllers, unified


def _unescape(text: str) -> str:
    for code in (" ", "\t", "\n", "\\"):
        text = text.replace(f"\\{ord(code):03o}", code)
    return text
