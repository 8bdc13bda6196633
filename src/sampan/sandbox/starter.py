"""The starter: a launcher that lasts, for the containers that were expected.

A launcher is forked for each start, and most of what it does is to copy pages that it shares with others,
when it first writes to them. The starter is forked once from the zygote, when something is expected for the
first time, and forks nothing: its pages are its own after the first start. It makes what can be made ahead
(``expected``), does the start in place of the launcher of the keeper that stands by, with that launcher's
descriptors, and tells it when to end.

Laws:
- It has one start in hand at a time. What it waits for may never come (a mount of a dead server): meanwhile
  the zygote gives every other job to a launcher.
- What was expected and is not what comes is cleared away before the launcher is given the job: the daemon
  counts on it when it hears of that start.
- It keeps nothing of a job: its descriptors from the first free one on are closed after each, whoever made
  them. A job that left it in another namespace than before is its last, and so is the last of many.
- When it is killed, the zygote closes the launcher's socket, and the daemon's ends: both know what to do.
- It ends when the zygote has closed its end, and when nobody has started anything for a while, with what it
  has made: an idle engine has better uses for 8 MB. An order that it does not take any more is one that was
  killed with it.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from sampan.errors import Failure
from sampan.linux.process import set_title
from sampan.sandbox import channel, expected, lastwords
from sampan.sandbox.expected import EXPECT, read_launch
from sampan.sandbox.launch import CannotIdmap, LaunchError
from sampan.sandbox.launcher import FAILED, RESUME, STARTED, Launcher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.sandbox.cgroups import Hierarchy
    from sampan.sandbox.expected import Expected
    from sampan.sandbox.messages import Launch

DROP = b"\xfb"
"""Said by the zygote: nobody is left to start what was expected."""
DONE, LAST = b".", b"!"
"""Said to the zygote after a job; with the last one the starter ends."""
_ORDERS = 3
_JOBS = 500
"""What a job leaves in memory is not looked for: after so many another starter begins anew."""
_PATIENCE = 10_000
"""Milliseconds without an order after which it ends."""


def serve(orders: int, hierarchy: Hierarchy) -> NoReturn:
    """Be the starter: serve ``orders``, the only descriptor that is kept, until its other end is closed."""
    try:
        if orders != _ORDERS:
            os.dup2(orders, _ORDERS, inheritable=False)
        os.closerange(_ORDERS + 1, 1 << 20)
        with open("/proc/self/cmdline") as file:
            set_title("sampan-starter " + file.read().rstrip("\0").partition(" ")[2])
        _Starter(socket.socket(fileno=_ORDERS), hierarchy).run()
    except BaseException:
        lastwords.say("starter")
    finally:
        os._exit(0)
    raise AssertionError("unreachable")


class _Starter:
    def __init__(self, orders: socket.socket, hierarchy: Hierarchy) -> None:
        self._orders = orders
        self._hierarchy = hierarchy
        self._launcher: InPlace | None = None
        self._jobs = 0
        self._home = _namespaces()

    def run(self) -> None:
        while expected.is_waiting(self._orders, _PATIENCE):
            if (message := channel.receive_bytes(self._orders)) is None:
                break
            said, fds = message
            if said == EXPECT:
                self._let_go(fds)
                self._launcher = InPlace(self._hierarchy, fds)
            elif said == DROP:
                self._let_go()
            elif not self._do(said, fds):
                return
        self._let_go()

    def _do(self, keeping: bytes, fds: list[int]) -> bool:
        """Do a job, and say so; whether there is to be another."""
        if self._launcher is not None:
            self._launcher.do(keeping, fds)
        self._forget()
        self._jobs += 1
        lasts = self._jobs < _JOBS and _namespaces() == self._home
        with suppress(BrokenPipeError):  # nobody needs another
            self._orders.send(DONE if lasts else LAST)
        return lasts

    def _let_go(self, kept: Sequence[int] = ()) -> None:
        if self._launcher is not None:
            self._launcher.let_go()
            self._forget(kept)

    def _forget(self, kept: Sequence[int] = ()) -> None:
        self._launcher = None
        first = _ORDERS + 1
        for fd in (*sorted(kept), 1 << 20):
            os.closerange(first, fd)
            first = fd + 1


def _namespaces() -> tuple[str, str]:
    """Those that a job may move its launcher to."""
    return os.readlink("/proc/self/ns/mnt"), os.readlink("/proc/self/ns/net")


class InPlace(Launcher):
    """In the place of a launcher, to whom ``stem`` leads: what it was told to expect, and its start."""

    def __init__(self, hierarchy: Hierarchy, fds: list[int]) -> None:
        document, job, keeper, control, stdin, stdout, stderr, listener = fds
        super().__init__(
            hierarchy,
            job=job,
            keeper=keeper,
            control=control,
            listener=listener,
            stdio=(stdin, stdout, stderr),
        )
        self._stem = socket.socket(fileno=job)
        self._passed_on = self._handed = False
        # What cannot be made ahead is made when it is needed, and fails then with words.
        with suppress(OSError, Failure, LaunchError):
            self._expected = expected.make(document, self._stem, hierarchy)
            self._ready = self._expected.ready

    def do(self, keeping: bytes, fds: list[int]) -> None:
        """Start the container, or have the launcher start it if it is not the one that was expected."""
        waiting = self._expected
        if waiting is None or not waiting.fits(read_launch(fds[0])):
            self.let_go()
            self._pass(keeping, fds)
            return
        self._serve(keeping, fds)
        if not self._passed_on:
            self._pass(FAILED if self._status else STARTED)

    def _start(
        self, encoded: bytes, document: int, clients: list[int], daemon: socket.socket, *, resumed: bool
    ) -> None:
        try:
            super()._start(encoded, document, clients, daemon, resumed=resumed)
        except BaseException as error:
            if not self._handed:
                self.let_go()
            if not isinstance(error, CannotIdmap):
                raise
            # It is started with the host's ids, or not at all: by the launcher, which can clone it.
            self._passed_on = True
            self._pass(RESUME + encoded, (document, daemon.fileno(), *clients))

    def _hand(self, waiting: Expected, document: int, stdio: Sequence[int], launch: Launch) -> None:
        super()._hand(waiting, document, stdio, launch)
        self._handed = True  # whoever fails from now on has put it down

    def let_go(self) -> None:
        """Put down what nobody starts."""
        waiting, self._expected = self._expected, None
        if waiting is not None:
            waiting.put_down()
            waiting.clear()

    def _pass(self, said: bytes, fds: Sequence[int] = ()) -> None:
        """Say something to the launcher, if it lives."""
        with suppress(OSError):
            channel.send_bytes(self._stem, said, fds)
