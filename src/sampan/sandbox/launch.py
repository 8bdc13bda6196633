"""Start a container's first process: needs neither daemon nor keeper, only a caller with one thread.

The caller (the parent) clones a child into new namespaces. While the child joins its cgroup, the parent makes
what only the host's root can: id maps, the veth pair, the mounts of the root, the devices and the binds. It
sends these mounts as descriptors; the child attaches them, lets go of the host and becomes the program. The
socket between the two closes by itself when the program is executed, which is how success is known.

Law: when ``start`` raises, the child is dead and reaped, and nothing was left but the cgroup, which the
caller owns.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from sampan.linux import process as p
from sampan.sandbox import channel, interfaces, neighbours, pid1
from sampan.sandbox.clones import await_death, clone_within, owning_users
from sampan.sandbox.entering import become_root, failure_of, keep_only, make_controlling_terminal
from sampan.sandbox.hostmounts import HostMount, IdMap, IdmapError, idmap
from sampan.sandbox.plan import Plan, compile_plan
from sampan.sandbox.program import Program, ProgramError, bequeath, run
from sampan.sandbox.steps import Context, Step

if TYPE_CHECKING:
    from sampan.sandbox.cgroups import Cgroup
    from sampan.sandbox.expected import Expected
    from sampan.sandbox.messages import Launch
    from sampan.sandbox.plan import Hierarchies
    from sampan.spec.runtime import IdMapping

_SETUP_FAILED = 128
# A cgroup namespace is rooted where its maker is, and the message queues of an ipc namespace belong to its
# maker: so the child makes them, once it is in its cgroup and is who it is to be.
_MADE_BY_CHILD = p.CLONE_NEWCGROUP | p.CLONE_NEWIPC
# Host mounts that exist already, each with its descriptor, which goes to the container that takes it.
Ready = Sequence[tuple[HostMount, int]]


class LaunchError(Exception):
    """The container could not be started; ``code`` is the exit code that Docker gives the case."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class CannotIdmap(LaunchError):
    """A mount of the container cannot be given its ids: it could start with the host's ids only.

    ``corpses`` are the pids of what was started for it, all dead; as the caller's siblings they are for the
    caller's parent to reap.
    """

    def __init__(self, message: str, corpses: tuple[int, ...]) -> None:
        super().__init__(message, _SETUP_FAILED)
        self.corpses = corpses


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A first process that runs since ``at`` (seconds since the epoch). The descriptors are the caller's.

    ``console`` is the terminal's master, or -1.

    ``mounts`` keeps the mount namespace: it is torn down when the last process and the last descriptor are
    gone, which takes milliseconds that need not delay the report of the exit. -1 when it was gone already.
    """

    pid: int
    pidfd: int
    mounts: int
    console: int
    at: float


class Stages:
    """What a start waits for on the way, as the OCI lifecycle has it.

    ``gate``: a descriptor from which the child reads a byte before it becomes the program, when all else is
    done; -1: it does not wait. ``preserve``: how many descriptors after standard error the program gets.
    """

    def __init__(self, *, gate: int = -1, preserve: int = 0) -> None:
        self.gate = gate
        self.preserve = preserve

    def placed(self, pid: int) -> None:
        """The namespaces of ``pid`` exist, its root is not entered yet; of a root with hooks."""

    def released(self) -> None:
        """Called in the child after the gate: the program is all that is left. Raises LaunchError."""


def start(
    launch: Launch,
    stdio: Sequence[int],
    cgroup: Cgroup,
    hierarchies: Hierarchies,
    seccomp: bytes | None,
    *,
    sibling: bool = False,
    on_clone: Callable[[int, tuple[int, ...]], None] = lambda _pid, _between: None,
    ready: Ready = (),
    stages: Stages | None = None,
    expected: Expected | None = None,
) -> Started:
    """Start ``launch`` in ``cgroup``, with descriptors for standard input, output and error.

    ``stdio`` is empty when the specification asks for a terminal. The process becomes the caller's child, or
    its ``sibling``. ``on_clone`` is told its pid while it sets itself up, and the pids of siblings that stood
    between and are dead, for the parent to reap. ``ready`` are host mounts that were made ahead of need.
    Raises LaunchError. With a gate in ``stages`` it returns when the child waits there. ``expected`` is a
    first process that was made for it ahead of need and has the launch in hand.

    The caller takes the container's OOM score and limits for itself, and should be short-lived.
    """
    plan = compile_plan(launch, hierarchies)
    if expected is not None:
        ours, pid, pidfd = expected.sock, expected.pid, expected.pidfd
        return _see_through(
            ours, launch, plan, stdio, pid, pidfd, on_clone, (), ready, Stages(), expected.ids
        )
    program = Program(
        process=launch.spec["process"], user=launch.user, group_add=launch.group_add, filter=seccomp
    )
    try:
        bequeath(launch.spec["process"])
    except ProgramError as error:
        raise LaunchError(str(error), error.code) from error
    cgroup_fd = cgroup.clone_fd()
    namespaces = neighbours.open_namespaces(launch.neighbours, plan.joins)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    between: tuple[int, ...] = ()

    def run_child() -> NoReturn:
        ours.close()
        child = Child(theirs, plan, program, stdio, namespaces, stages or Stages())
        child.run(cgroup, cloned=cgroup_fd is not None, init=launch.init)

    try:
        flags = plan.flags & ~_MADE_BY_CHILD
        if p.CLONE_NEWUSER in namespaces:
            pid, pidfd, between = clone_within(flags, namespaces, run_child, cgroup_fd, sibling=sibling)
        else:
            if p.CLONE_NEWPID in namespaces:
                p.setns(namespaces[p.CLONE_NEWPID], p.CLONE_NEWPID)
            with owning_users(owner(launch, plan)):
                pid, pidfd = p.clone3(flags, cgroup_fd=cgroup_fd, sibling=sibling)
                if pid == 0:
                    run_child()
    except OSError as error:
        ours.close()
        raise LaunchError(f"cannot create namespaces: {error.strerror}", _SETUP_FAILED) from error
    finally:
        theirs.close()
        for fd in (*namespaces.values(), *(() if cgroup_fd is None else (cgroup_fd,))):
            os.close(fd)
    return _see_through(ours, launch, plan, stdio, pid, pidfd, on_clone, between, ready, stages or Stages())


def owner(launch: Launch, plan: Plan) -> int | None:
    """The root, on the host, of the user namespace that is made; None when none is."""
    if not plan.flags & p.CLONE_NEWUSER:
        return None
    return _host_root(launch.spec["linux"]["uidMappings"])


def _see_through(
    ours: socket.socket,
    launch: Launch,
    plan: Plan,
    stdio: Sequence[int],
    pid: int,
    pidfd: int,
    on_clone: Callable[[int, tuple[int, ...]], None],
    between: tuple[int, ...],
    ready: Ready,
    stages: Stages,
    ids: IdMap | None = None,
) -> Started:
    """Hand the child what it needs and wait until its program runs; it has its ``ids`` if they are given."""
    console = mounts = -1
    try:
        with ours:
            try:
                mounts = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
                _hand_over(ours, launch, plan, stdio, pid, ready, ids)
                on_clone(pid, between)
            except OSError:
                _last_words(ours)
                raise
            while (message := _hear(ours)) is not None:
                document, fds = message
                if "failed" in document:
                    raise LaunchError(document["failed"], document["code"])
                if "placed" in document:
                    stages.placed(pid)
                    channel.send(ours, "go")
                elif "ready" in document:
                    break
                else:
                    (console,) = fds
        return Started(pid=pid, pidfd=pidfd, console=console, mounts=mounts, at=time.time())
    except BaseException as error:
        put_down(pidfd)
        for fd in (pidfd, console, mounts):
            if fd >= 0:
                os.close(fd)
        if isinstance(error, IdmapError):
            raise CannotIdmap(str(error), (pid, *between)) from error
        if isinstance(error, OSError):
            what = error.filename or "set up the container"
            raise LaunchError(f"{what}: {error.strerror}", _SETUP_FAILED) from error
        raise


def _hear(ours: socket.socket) -> tuple[Any, list[int]] | None:
    """The child's next message. One that ended with messages of ours unread resets the socket first."""
    try:
        return channel.receive(ours)
    except ConnectionResetError:
        return channel.receive(ours)


def _last_words(ours: socket.socket) -> None:
    """Raise what a child said that is gone, and its namespaces with it, while it was being served."""
    ours.setblocking(False)
    with suppress(BlockingIOError):
        message = _hear(ours)
        if message is not None and "failed" in message[0]:
            raise LaunchError(message[0]["failed"], message[0]["code"])


def put_down(pidfd: int) -> None:
    """Kill a child or sibling and wait until it is dead; a sibling is reaped by its parent."""
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    await_death(pidfd)


def _hand_over(
    ours: socket.socket,
    launch: Launch,
    plan: Plan,
    stdio: Sequence[int],
    pid: int,
    ready: Ready,
    ids: IdMap | None,
) -> None:
    """In the order in which the child waits for it: its ids, its mounts, its network."""
    given, ids = ids is not None, ids or id_map(launch, plan, pid)
    if ids is not None:
        _give_streams(stdio, ids)
    fds: list[int] = []
    # A broken pipe means that the child failed: what it said is still to be received.
    try:
        with suppress(BrokenPipeError):
            if plan.flags & p.CLONE_NEWUSER and not given:
                channel.send(ours, "mapped")
            for host_mount in plan.host_mounts:
                fds.append(make(host_mount, ids, ready))
            channel.send(ours, "mounts", fds)
            if launch.endpoint is not None and plan.flags & p.CLONE_NEWNET:
                for endpoint in (launch.endpoint, *launch.more):
                    interfaces.plug(endpoint, pid)
                if launch.names:
                    _offer_names(launch, pid)
                channel.send(ours, "plugged")
    finally:
        for fd in fds:
            os.close(fd)
        if ids is not None:
            os.close(ids.userns_fd)


def _offer_names(launch: Launch, pid: int) -> None:
    from sampan.sandbox import resolver  # only containers on user-defined networks ask for names

    resolver.offer(launch.names, launch.id, pid)


def make(host_mount: HostMount, ids: IdMap | None, ready: Ready) -> int:
    made = next((fd for mount, fd in ready if mount == host_mount), None)
    if made is None:
        return host_mount.open(ids)
    if ids is not None:
        try:
            idmap(made, ids, "the device directory")
        except IdmapError:  # tmpfs can be idmapped since Linux 6.3
            return host_mount.open(ids)
    return made


def id_map(launch: Launch, plan: Plan, pid: int) -> IdMap | None:
    """The ids of the child's user namespace, which are given to it first if it is new."""
    linux = launch.spec["linux"]
    if plan.flags & p.CLONE_NEWUSER:
        uids, gids = linux["uidMappings"], linux["gidMappings"]
        for name, mappings in (("uid_map", uids), ("gid_map", gids)):
            lines = "".join(f"{m['containerID']} {m['hostID']} {m['size']}\n" for m in mappings)
            with open(f"/proc/{pid}/{name}", "w") as file:
                file.write(lines)
        root_uid, root_gid = _host_root(uids), _host_root(gids)
    elif any(flag == p.CLONE_NEWUSER for _, flag in plan.joins):
        root_uid, root_gid = (_root_in(f"/proc/{pid}/{name}") for name in ("uid_map", "gid_map"))
    else:
        return None
    userns_fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    return IdMap(userns_fd=userns_fd, root_uid=root_uid, root_gid=root_gid)


def _give_streams(stdio: Sequence[int], ids: IdMap) -> None:
    """So that the container may open /dev/stdout again by name."""
    for fd in stdio:
        if not os.isatty(fd) and os.fstat(fd).st_uid == 0 and not _is_device(fd):
            os.fchown(fd, ids.root_uid, ids.root_gid)


def _root_in(path: str) -> int:
    with open(path) as file:
        for line in file:
            inside, outside, _ = map(int, line.split())
            if inside == 0:
                return outside
    raise LaunchError("the id map has no root", _SETUP_FAILED)


def _host_root(mappings: list[IdMapping]) -> int:
    for mapping in mappings:
        if mapping["containerID"] == 0:
            return mapping["hostID"]
    raise LaunchError("the id map has no root", _SETUP_FAILED)


def _is_device(fd: int) -> bool:
    return os.fstat(fd).st_rdev != 0


class Child:
    """The cloned child, from its first instruction to the program."""

    def __init__(
        self,
        parent: socket.socket,
        plan: Plan,
        program: Program,
        stdio: Sequence[int],
        namespaces: dict[int, int],
        stages: Stages,
    ) -> None:
        self.parent = parent
        self.plan = plan
        self.program = program
        self.stdio = stdio
        self.namespaces = namespaces
        self.stages = stages

    def run(self, cgroup: Cgroup, *, cloned: bool, init: bool) -> NoReturn:
        """Set up and become the program; report what fails and exit."""
        try:
            self._enter(cgroup, cloned=cloned)
            context = self.context()
            self._settle_in(context)
            self._become(context, init=init)
        except BaseException as error:  # the child must never return into the parent's code
            failure = failure_of(error, setup_failed=_SETUP_FAILED, what="set up the container")
            self._report(failure)
        finally:
            os._exit(_SETUP_FAILED)
        raise AssertionError("unreachable")

    def _enter(self, cgroup: Cgroup, *, cloned: bool) -> None:
        cgroup.join(cloned=cloned)
        if self.plan.flags & p.CLONE_NEWCGROUP:
            p.unshare(p.CLONE_NEWCGROUP)

    def _become(self, context: Context, *, init: bool) -> None:
        context.host_mounts = self._await_parent()
        for step in self.plan.late:
            execute(step, context)
        os.setsid()
        self._take_stdio(context)
        if init:
            pid1.run_as_init(self.program, self.parent)
        run(self.program, None if self.stages.gate < 0 else self._wait_at_gate)

    def _report(self, failure: dict[str, object]) -> None:
        try:
            channel.send(self.parent, failure)
        except OSError:  # nobody listens any more after the gate
            os.write(2, f"{failure['failed']}\n".encode())

    def _wait_at_gate(self) -> None:
        channel.send(self.parent, {"ready": True})
        if not os.read(self.stages.gate, 1):
            os._exit(_SETUP_FAILED)
        self.stages.released()

    def context(self) -> Context:
        return Context(
            await_parent=self._await_parent,
            tell_parent=lambda what: channel.send(self.parent, {what: True}),
        )

    def _settle_in(self, context: Context) -> None:
        """All that can be done before the mounts of the host are handed in."""
        # What others are in must not look into us, who hold more than they may have.
        if self.namespaces:
            p.set_dumpable(dumpable=False)
        for flag in (p.CLONE_NEWNET, p.CLONE_NEWIPC, p.CLONE_NEWUTS, p.CLONE_NEWCGROUP):
            if flag in self.namespaces:
                p.setns(self.namespaces[flag], flag)
        for step in self.plan.early:
            execute(step, context)
        if self.plan.flags & p.CLONE_NEWUSER:
            self._await_parent()
            become_root()
        elif p.CLONE_NEWUSER in self.namespaces:
            become_root()
            p.set_dumpable(dumpable=False)  # a change of identity makes a process dumpable again
        if self.plan.flags & p.CLONE_NEWIPC:
            p.unshare(p.CLONE_NEWIPC)
        for step in self.plan.late:
            self.prepare(step, context)

    @staticmethod
    def prepare(step: Step, context: Context) -> None:
        _run(step, step.prepare, context)

    def _await_parent(self) -> list[int]:
        """The descriptors of the parent's next message; the end of the child when there is none."""
        message = channel.receive(self.parent)
        if message is None:
            os._exit(_SETUP_FAILED)
        return message[1]

    def _take_stdio(self, context: Context) -> None:
        if context.console_slave >= 0:
            channel.send(self.parent, {"console": True}, (context.console_master,))
            stdio: Sequence[int] = (context.console_slave,) * 3
            make_controlling_terminal(context.console_slave)
        else:
            stdio = self.stdio
        if self.stages.gate < 0 and not self.stages.preserve:
            self.parent = keep_only(stdio, self.parent)
            return
        for target, fd in enumerate(stdio):
            os.dup2(fd, target)
        place = 3 + self.stages.preserve
        for kept in sorted(fd for fd in (self.parent.fileno(), self.stages.gate) if fd >= place):
            os.closerange(place, kept)
            place = kept + 1
        os.closerange(place, 1 << 20)


def execute(step: Step, context: Context) -> None:
    _run(step, step.execute, context)


def _run(step: Step, action: Callable[[Context], None], context: Context) -> None:
    try:
        action(context)
    except OSError as error:
        detail = f" ({error.filename})" if error.filename else ""
        raise OSError(error.errno, error.strerror, step.describe() + detail) from error
