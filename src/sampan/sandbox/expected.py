"""A container's first process, made ahead of need for the container that is expected next.

The daemon tells a launcher that stands by what it expects: a container's id, which no other will get, the
range of ids that it would lease, and a specification like that of the last one. The launcher makes the cgroup
and clones a process into it and into namespaces of its own. That process becomes root there, makes the mounts
of the kernel's file systems, has its copies of the pages that a start writes to, and waits. A start that
comes as expected finds all of this done; what is particular to it (root, binds, network, identity, program)
is not.

Laws:
- ``fits`` knows everything that the waiting process could not make good. What does not fit is put down, and
  the container is started as if nothing had been expected.
- The process has nothing of any container, and ends with the launcher's end of its socket.
- The bundle is made before the cgroup: when everybody is killed, the next daemon finds what is left by it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from sampan.linux import process as p
from sampan.sandbox import channel, keeper_socket
from sampan.sandbox.clones import await_death, owning_users
from sampan.sandbox.entering import failure_of
from sampan.sandbox.launch import Child, LaunchError, Stages, execute, id_map, owner, put_down
from sampan.sandbox.messages import decode_launch, encode
from sampan.sandbox.plan import compile_plan
from sampan.sandbox.program import Program, bequeath
from sampan.sandbox.steps import Step

if TYPE_CHECKING:
    from sampan.sandbox.cgroups import Cgroup, Hierarchy
    from sampan.sandbox.hostmounts import IdMap
    from sampan.sandbox.messages import Launch
    from sampan.sandbox.plan import Plan
    from sampan.sandbox.steps import Context

EXPECT = b"\xff"
"""What a message to the zygote begins with that brings an expectation: a launch, as its one descriptor."""

_SETUP_FAILED = 128
_SAME = ("cgroupsPath", "resources", "namespaces", "uidMappings", "gidMappings")
_FILTERED, _UNFILTERED = b"f", b"-"


class Expected:
    """The waiting process: ``sock`` leads to it, ``ids`` are those of its user namespace."""

    def __init__(
        self, launch: Launch, cgroup: Cgroup, sock: socket.socket, pid: int, pidfd: int, ids: IdMap
    ) -> None:
        self.sock = sock
        self.pid = pid
        self.pidfd = pidfd
        self.ids = ids
        self._launch = launch
        self._cgroup = cgroup

    def fits(self, launch: Launch) -> bool:
        """Whether ``launch`` can be what the process becomes. One that was killed becomes nothing."""
        mine, other = self._launch.spec, launch.spec
        return (
            launch.bundle == self._launch.bundle
            and launch.runtime is None
            and not launch.neighbours
            and all(mine["linux"].get(key) == other["linux"].get(key) for key in _SAME)
            and mine["process"].get("oomScoreAdj") == other["process"].get("oomScoreAdj")
            and not other["process"].get("rlimits")
            and not is_waiting(self.sock)
        )

    def in_way_of(self, launch: Launch) -> bool:
        """Whether the container that is started instead needs the same group."""
        return launch.bundle == self._launch.bundle

    def hand(self, document: int, stdio: Sequence[int], seccomp: int) -> None:
        """Give the process its launch, and a descriptor of its filter or -1. It goes on at once."""
        filters = () if seccomp < 0 else (seccomp,)
        with suppress(BrokenPipeError):  # it was killed: who waits for it will see
            channel.send_bytes(self.sock, _FILTERED if filters else _UNFILTERED, (document, *filters, *stdio))

    def put_down(self) -> None:
        """Kill it; it is left to its parent, the keeper."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        self.sock.close()

    def clear(self, *, bundle: bool = True) -> None:
        """Remove the group of one that was put down, and its bundle unless that is another's by now."""
        await_death(self.pidfd)
        with suppress(Exception):
            self._cgroup.remove()
        if bundle:
            keeper_socket.remove(self._launch.bundle)


def make(data: bytes, hierarchy: Hierarchy) -> Expected:
    """Make the process for the launch that is encoded in ``data``. Raises OSError, LaunchError or a Failure,
    and leaves nothing then."""
    launch = decode_launch(data)
    plan = replace(compile_plan(launch, hierarchy.mounted()), early=())
    cgroup = hierarchy.group(launch.spec["linux"]["cgroupsPath"])
    os.makedirs(launch.bundle, 0o711, exist_ok=True)
    try:
        cgroup.create(launch.spec["linux"].get("resources", {}))
        try:
            os.stat(launch.bundle)  # gone: another is expected by now, and this has been cleared away
            return _clone(launch, plan, cgroup, hierarchy)
        except BaseException:
            cgroup.remove()
            raise
    except BaseException:
        keeper_socket.remove(launch.bundle)
        raise


def _clone(launch: Launch, plan: Plan, cgroup: Cgroup, hierarchy: Hierarchy) -> Expected:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    cgroup_fd = cgroup.clone_fd()
    flags = plan.flags & ~(p.CLONE_NEWCGROUP | p.CLONE_NEWIPC)
    bequeath(launch.spec["process"])
    try:
        with owning_users(owner(launch, plan)):
            pid, pidfd = p.clone3(flags, cgroup_fd=cgroup_fd, sibling=True)
            if pid == 0:
                process = _Waiting(
                    theirs, plan, Program(process=launch.spec["process"], user=None), (), {}, Stages()
                )
                process.wait(launch, cgroup, hierarchy, cloned=cgroup_fd is not None)
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
        if cgroup_fd is not None:
            os.close(cgroup_fd)
    try:
        ids = id_map(launch, plan, pid)
        assert ids is not None
        channel.send(ours, "mapped")
        _rehearse(launch, hierarchy)
        message = channel.receive(ours)
        if message is None or "failed" in message[0]:
            raise LaunchError("the process that was to wait has ended", _SETUP_FAILED)
    except BaseException:
        put_down(pidfd)
        os.close(pidfd)
        ours.close()
        raise
    return Expected(launch, cgroup, ours, pid, pidfd, ids)


def _rehearse(launch: Launch, hierarchy: Hierarchy) -> None:
    """Write to the pages that a start writes to, so that they need not be copied then."""
    compile_plan(decode_launch(encode(launch)), hierarchy.mounted())


def is_waiting(sock: socket.socket) -> bool:
    """Whether a message is there to be received, or the end."""
    ready = select.poll()
    ready.register(sock, select.POLLIN)
    return bool(ready.poll(0))


class _Waiting(Child):
    """The process itself."""

    def wait(self, launch: Launch, cgroup: Cgroup, hierarchy: Hierarchy, *, cloned: bool) -> NoReturn:
        """Do what can be done, wait for the launch and become its program; report what fails and exit."""
        try:
            self._let_go_of_others()
            self._enter(cgroup, cloned=cloned)
            context = self.context()
            self._settle_in(context)
            _rehearse(launch, hierarchy)
            channel.send(self.parent, {"waiting": True})
            self._become(context, init=self._take_up(context, hierarchy))
        except BaseException as error:
            self._report(failure_of(error, setup_failed=_SETUP_FAILED, what="set up the container"))
        finally:
            os._exit(_SETUP_FAILED)
        raise AssertionError("unreachable")

    def _let_go_of_others(self) -> None:
        """Close what was the launcher's: others look out for the end of it."""
        kept = self.parent.fileno()
        os.closerange(3, kept)
        os.closerange(kept + 1, 1 << 20)

    def _take_up(self, context: Context, hierarchy: Hierarchy) -> bool:
        """Be the process of the launch that comes; whether it wants an init."""
        message = channel.receive_bytes(self.parent)
        if message is None:
            os._exit(0)
        kind, (document, *fds) = message
        launch = decode_launch(os.pread(document, os.fstat(document).st_size, 0))
        seccomp = None
        if kind == _FILTERED:
            found = fds.pop(0)
            seccomp = os.pread(found, os.fstat(found).st_size, 0)
        self.stdio = fds
        self.program = Program(
            process=launch.spec["process"], user=launch.user, group_add=launch.group_add, filter=seccomp
        )
        made = [step for step in self.plan.late if type(step).prepare is not Step.prepare]
        self.plan = compile_plan(launch, hierarchy.mounted())
        for step in self.plan.early:
            execute(step, context)
        for step in self.plan.late:
            if type(step).prepare is Step.prepare:
                continue
            twin = next((found for found in made if found == step), None)
            if twin is None:
                self.prepare(step, context)
                continue
            made.remove(twin)
            if id(twin) in context.prepared:
                context.prepared[id(step)] = context.prepared.pop(id(twin))
        return launch.init
