"""Whose user ids a container has: a range of its own, another container's, or the host's, and why the host's.

Every container has ids of its own unless there is a reason. What the user asks for may be one (a table: what
only the host's own root can do); so may what the host or the image is like, which is found out. Reasons are
texts without an end of sentence; the empty one means ids that are not the host's. The whole story is told in
docs/user-namespaces.md.

Law: an engine that forbids the host's ids (``--userns-fallback deny``) never starts a container with them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from sampan.engine import runtimes
from sampan.engine.model import HostConfig
from sampan.engine.model.container import OWNER
from sampan.errors import Forbidden, Unavailable

if TYPE_CHECKING:
    from sampan.engine.idranges import IdRanges
    from sampan.engine.model import Container
    from sampan.engine.sandboxes import Joined
    from sampan.engine.settings import Settings

# Capabilities that the kernel asks for in the host's own user namespace, for what they are mostly added for.
_HOSTS_CAPABILITIES = frozenset(
    f"CAP_{name}"
    for name in (
        *("AUDIT_CONTROL", "AUDIT_READ", "BLOCK_SUSPEND", "BPF", "IPC_LOCK", "LINUX_IMMUTABLE"),
        *("MAC_ADMIN", "MAC_OVERRIDE", "MKNOD", "PERFMON", "SYS_BOOT", "SYS_MODULE", "SYS_NICE"),
        *("SYS_PACCT", "SYS_RAWIO", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "SYSLOG"),
        *("WAKE_ALARM",),
    )
)

_LAST_ID = (1 << 31) - 1  # that a user or group may have

# What is asked for, and the flag that says it ("" if it was not).
_TABLE: tuple[Callable[[HostConfig], str], ...] = (
    lambda host: "--userns host" if host.userns_mode == "host" else "",
    lambda host: "--privileged" if host.privileged else "",
    lambda host: "--network host" if host.network_mode == "host" else "",
    lambda host: "--pid host" if host.pid_mode == "host" else "",
    lambda host: "--ipc host" if host.ipc_mode == "host" else "",
    lambda host: "--cgroupns host" if host.cgroupns_mode == "host" else "",
    lambda host: "--uts host with --cap-add SYS_ADMIN" if _renames_host(host) else "",
    lambda host: _hosts_capability(host),
    lambda host: f"--runtime {host.runtime}" if host.runtime not in ("", runtimes.OURS) else "",
)


def asked(host: HostConfig) -> str:
    """The flag by which the user asks for what needs the host's ids; the first one."""
    return next((flag for question in _TABLE if (flag := question(host))), "")


def _renames_host(host: HostConfig) -> bool:
    return host.uts_mode == "host" and "CAP_SYS_ADMIN" in (host.cap_add or ())


def _hosts_capability(host: HostConfig) -> str:
    added = host.cap_add or ()
    if "ALL" in added:
        return "--cap-add ALL"
    return next(
        (f"--cap-add {name.removeprefix('CAP_')}" for name in added if name in _HOSTS_CAPABILITIES), ""
    )


def largest_id(container: Container, *, image: int) -> int:
    """The largest id that the container is known to need; ``image`` is that of its image's files."""
    found = [image]
    for text in (*container.config.user.split(":"), *(container.host.group_add or ())):
        if text.isascii() and text.isdecimal() and int(text) <= _LAST_ID:  # others are refused at the start
            found.append(int(text))
    for point in container.mounts:
        if point.type == "bind" or (point.type == "volume" and point.source):
            try:
                seen = os.stat(point.source)
            except OSError:
                continue
            found += (seen.st_uid, seen.st_gid)
    return max(found)


class Users:
    """The rules of one engine, and the ranges that it gives."""

    def __init__(self, settings: Settings, ranges: IdRanges) -> None:
        self._settings = settings
        self._ranges = ranges

    def settle(
        self, container: Container, joined: Joined, *, image: int
    ) -> tuple[tuple[int, int] | None, str]:
        """(The range of ids that is leased for the run, why it has the host's): one of the two.

        ``image`` is the largest id of the image's files. Forbidden when there is a reason and that is so.
        """
        largest = largest_id(container, image=image)
        if joined.ids is None:
            reason = self._why(container.host) or joined.reason or self.found(container, largest)
        else:
            reason = asked(container.host) or self.found(container, largest, most=joined.ids[1])
        self.allow(reason, container)
        if reason:
            return None, reason
        if joined.ids is None:
            span = max(self._settings.options.id_range, largest + 1)
            return self._ranges.lease(container.id, span), ""
        if not self._ranges.claim(container.id, *joined.ids):
            raise Unavailable("the user ids of the container that it joins are not this engine's")
        return joined.ids, ""

    def likely(self, span: int) -> tuple[int, int]:
        """The range that would be leased to the next container that needs ``span`` ids."""
        return self._ranges.next(span)

    def release(self, container_id: str) -> None:
        """Give the container's range back. Idempotent."""
        self._ranges.release(container_id)

    def reason(self, container: Container, *, image: int) -> str:
        """Why the container has the host's ids, as far as can be told before it starts."""
        return self._why(container.host) or self.found(container, largest_id(container, image=image))

    def warnings(self, container: Container) -> list[str]:
        """What is said of a new container that has the host's ids though nobody asked for that."""
        reason = container.state.host_ids
        if not reason or reason == self._why(container.host):
            return []
        return [f"The container has the host's user ids: {reason}"]

    def found(self, container: Container, largest: int, *, most: int | None = None) -> str:
        """The reason that lies in the container's files and ids."""
        if largest >= (most or self._ranges.largest):
            return f"it has to do with user id {largest}, which no range of ids of its own would cover"
        refusal = self._settings.facts.idmaps.refusal
        sources = (point.source for point in container.mounts if point.type in ("bind", "volume"))
        return next((why for source in sources if (why := refusal(source))), "")

    def allow(self, reason: str, container: Container) -> None:
        """Raise Forbidden if there is a reason for the host's ids and this engine does not give them: to
        nobody, or not to the container of a group, which could bring it about by a user's number: to ask for
        them by name is not allowed at a group's door."""
        meant = ("", self._everybodys, asked(container.host))
        if reason not in meant and OWNER in (container.config.labels or {}):
            raise Forbidden(
                f"{reason}: this needs the host's user ids, which containers of a group do not get"
            )
        if reason and self._settings.options.userns == "private" and not self.host_ids_allowed:
            raise Forbidden(
                f"{reason}: this needs the host's user ids, which this engine does not give to containers "
                "(--userns-fallback deny); do without, or allow it in the daemon's options"
            )

    @property
    def _everybodys(self) -> str:
        """Why no container of this engine has ids of its own, if that is so."""
        return self._why(HostConfig())

    @property
    def host_ids_allowed(self) -> bool:
        return self._settings.options.userns_fallback == "allow"

    def _why(self, host: HostConfig) -> str:
        if flag := asked(host):
            return flag
        if self._settings.options.userns == "host" and host.userns_mode != "private":
            return "the engine's default"
        return self._settings.facts.idmaps.lacking
