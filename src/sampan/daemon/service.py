"""What passes between systemd and the daemon: sockets handed over, and word of how it is.

Sources: sd_listen_fds(3), sd_notify(3). Law: what systemd put into the environment is for this process alone,
and is taken out of it before anything is started.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from contextlib import suppress

from sampan.errors import InvalidArgument

_FIRST = 3  # the first descriptor that systemd passes


class Service:
    """The daemon as a systemd service; of no effect when it is none.

    ``sockets`` are the descriptors of the listening sockets that it was started with, in the unit's order.
    """

    def __init__(self, *, sockets: tuple[int, ...], notify: str) -> None:
        self.sockets = sockets
        self._notify = notify

    @classmethod
    def take(cls, environment: MutableMapping[str, str]) -> Service:
        """What the environment says, removed from it."""
        given = {
            name: environment.pop(name, "")
            for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID", "NOTIFY_SOCKET")
        }
        return cls(sockets=_passed(given), notify=given["NOTIFY_SOCKET"])

    def listeners(self, host: str) -> list[socket.socket]:
        """The sockets that ``fd://`` (all) or ``fd://N`` (one) means. InvalidArgument without any."""
        which = host.removeprefix("fd://").strip("/*")
        wanted = [fd for fd in self.sockets if not which or str(fd) == which]
        if not wanted:
            raise InvalidArgument(f"no sockets found via socket activation for {host}: start it by systemd")
        found = []
        for fd in wanted:
            listener = socket.socket(fileno=os.dup(fd))
            if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise InvalidArgument(f"the descriptor {fd} of {host} is not a listening socket")
            found.append(listener)
        return found

    def ready(self) -> None:
        self._tell(f"READY=1\nMAINPID={os.getpid()}")

    def reloading(self) -> None:
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def _tell(self, message: str) -> None:
        if not self._notify:
            return
        address = "\0" + self._notify[1:] if self._notify.startswith("@") else self._notify
        # A manager that does not listen is no reason to stop.
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
        ):
            sock.connect(address)
            sock.send(message.encode())


def _passed(given: Mapping[str, str]) -> tuple[int, ...]:
    if given["LISTEN_PID"] != str(os.getpid()) or not given["LISTEN_FDS"].isdecimal():
        return ()
    found = tuple(range(_FIRST, _FIRST + int(given["LISTEN_FDS"])))
    for fd in found:
        os.set_inheritable(fd, False)
    return found
