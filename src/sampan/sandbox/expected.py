"""A container's first process, made ahead of need for the container that is expected next.

The daemon tells what it expects: a container's id, which no other will get, the range of ids that it would
lease, and a specification like that of the last one. The ``starter`` makes the cgroup and has the launcher of
the keeper that stands by clone a process into it and into namespaces of its own. That process becomes root
there, makes the mounts of the kernel's file systems, has its copies of the pages that a start writes to, and
waits. A start that comes as expected finds all of this done; what is particular to it (root, binds, network,
identity, program) is not.

Laws:
- ``fits`` knows everything that the waiting process could not make good. What does not fit is put down, and
  the container is started as if nothing had been expected.
- The process has nothing of any container, and ends with the starter's end of its socket.
- The bundle is made before the cgroup: when everybody is killed, the next daemon finds what is left by it.
"""

from __future__ import annotations

import errno
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
from sampan.sandbox.hostmounts import DeviceDirectory
from sampan.sandbox.launch import Child, LaunchError, Stages, execute, id_map, owner, put_down
from sampan.sandbox.messages import decode_launch
from sampan.sandbox.plan import compile_plan
from sampan.sandbox.program import Program
from sampan.sandbox.steps import Step

if TYPE_CHECKING:
    from sampan.sandbox.cgroups import Cgroup, Hierarchy
    from sampan.sandbox.hostmounts import IdMap
    from sampan.sandbox.launch import Ready
    from sampan.sandbox.messages import Launch
    from sampan.sandbox.plan import Plan
    from sampan.sandbox.steps import Context

EXPECT = b"\xff"
"""What a message begins with that brings an expectation: a launch, as its first descriptor."""

_SETUP_FAILED = 128
_SAME = ("cgroupsPath", "resources", "namespaces", "uidMappings", "gidMappings")
_FILTERED, _UNFILTERED = b"f", b"-"


class Expected:
    """The waiting process: ``sock`` leads to it, ``ids`` are those of its user namespace; ``ready`` are host
    mounts that were made for it."""

    def __init__(
        self,
        launch: Launch,
        cgroup: Cgroup,
        sock: socket.socket,
        pid: int,
        pidfd: int,
        ids: IdMap,
        ready: Ready,
    ) -> None:
        self.sock = sock
        self.pid = pid
        self.pidfd = pidfd
        self.ids = ids
        self.ready = ready
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

    def clear(self) -> None:
        """Remove the group and the bundle of one that was put down."""
        await_death(self.pidfd)
        with suppress(Exception):
            self._cgroup.remove()
        keeper_socket.remove(self._launch.bundle)


def make(document: int, stem: socket.socket, hierarchy: Hierarchy) -> Expected:
    """Make the process for the launch in ``document`` by the launcher at ``stem``.

    Raises OSError, LaunchError or a Failure, and leaves nothing then.
    """
    launch = read_launch(document)
    plan = compile_plan(launch, hierarchy.mounted())
    cgroup = hierarchy.group(launch.spec["linux"]["cgroupsPath"])
    os.makedirs(launch.bundle, 0o711, exist_ok=True)
    try:
        cgroup.create(launch.spec["linux"].get("resources", {}))
        try:
            os.stat(launch.bundle)  # gone: another is expected by now, and this has been cleared away
            return _make(document, launch, plan, cgroup, stem)
        except BaseException:
            cgroup.remove()
            raise
    except BaseException:
        keeper_socket.remove(launch.bundle)
        raise


def read_launch(document: int) -> Launch:
    """The launch in an anonymous file."""
    return decode_launch(os.pread(document, os.fstat(document).st_size, 0))


def _make(document: int, launch: Launch, plan: Plan, cgroup: Cgroup, stem: socket.socket) -> Expected:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with theirs:
            pid, pidfd = _order(document, launch, plan, cgroup, stem, theirs)
        try:
            _spare(pid, launch)
            ids = id_map(launch, plan, pid)
            assert ids is not None
            channel.send(ours, "mapped")
            ready = [
                (mount, mount.open(None)) for mount in plan.host_mounts if type(mount) is DeviceDirectory
            ]
            message = channel.receive(ours)
            if message is None or "failed" in message[0]:
                raise LaunchError("the process that was to wait has ended", _SETUP_FAILED)
        except BaseException:
            put_down(pidfd)
            os.close(pidfd)
            raise
    except BaseException:
        ours.close()
        raise
    return Expected(launch, cgroup, ours, pid, pidfd, ids, ready)


def _order(
    document: int, launch: Launch, plan: Plan, cgroup: Cgroup, stem: socket.socket, theirs: socket.socket
) -> tuple[int, int]:
    """Have the launcher clone: the pid, and a descriptor of it."""
    flags = plan.flags & ~(p.CLONE_NEWCGROUP | p.CLONE_NEWIPC)
    group = cgroup.clone_fd()
    fds = (document, theirs.fileno(), *(() if group is None else (group,)))
    try:
        channel.send_bytes(stem, b"%s%d %d" % (EXPECT, flags, owner(launch, plan) or 0), fds)
    finally:
        if group is not None:
            os.close(group)
    answer = channel.receive_bytes(stem)
    if answer is None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
    number, found = int(answer[0]), answer[1]
    if not found:
        raise OSError(number, os.strerror(number))
    return number, found[0]


def _spare(pid: int, launch: Launch) -> None:
    """Give it the container's score for running out of memory; it has its parent's."""
    if (score := launch.spec["process"].get("oomScoreAdj")) is not None:
        with open(f"/proc/{pid}/oom_score_adj", "w") as file:
            file.write(str(score))


def clone(order: bytes, fds: list[int], stem: socket.socket, hierarchy: Hierarchy) -> tuple[int, ...]:
    """The launcher's part: clone the process as the keeper's child, and tell the starter; its pid, if it came
    to be."""
    document, sock, *group = fds
    flags, root = map(int, order[1:].split())
    try:
        with owning_users(root or None):
            pid, pidfd = p.clone3(flags, cgroup_fd=group[0] if group else None, sibling=True)
            if pid == 0:
                _Waiting.be(document, socket.socket(fileno=sock), hierarchy, cloned=bool(group))
    except OSError as error:
        channel.send_bytes(stem, b"%d" % (error.errno or 0))
        return ()
    finally:
        for fd in fds:
            os.close(fd)
    channel.send_bytes(stem, b"%d" % pid, (pidfd,))
    os.close(pidfd)
    return (pid,)


def is_waiting(sock: socket.socket, patience: int = 0) -> bool:
    """Whether a message is there to be received, or the end, now or in so many milliseconds."""
    ready = select.poll()
    ready.register(sock, select.POLLIN)
    return bool(ready.poll(patience))


class _Waiting(Child):
    """The process itself."""

    @classmethod
    def be(cls, document: int, parent: socket.socket, hierarchy: Hierarchy, *, cloned: bool) -> NoReturn:
        """Be the process that waits for the like of the launch in ``document``."""
        try:
            launch = read_launch(document)
            plan = replace(compile_plan(launch, hierarchy.mounted()), early=())
            process = cls(parent, plan, Program(process=launch.spec["process"], user=None), (), {}, Stages())
            process.wait(hierarchy.group(launch.spec["linux"]["cgroupsPath"]), hierarchy, cloned=cloned)
        finally:
            os._exit(_SETUP_FAILED)
        raise AssertionError("unreachable")

    def wait(self, cgroup: Cgroup, hierarchy: Hierarchy, *, cloned: bool) -> NoReturn:
        """Do what can be done, wait for the launch and become its program; report what fails and exit."""
        try:
            self._let_go_of_others()
            self._enter(cgroup, cloned=cloned)
            context = self.context()
            self._settle_in(context)
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
        launch = read_launch(document)
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
