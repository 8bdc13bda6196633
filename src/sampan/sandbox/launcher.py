"""The launcher: a short-lived child of the keeper that starts the container's first process.

It is forked because starting costs memory: everything that reading the specification and setting up a
container touches is copied from the zygote's pages and would stay with the keeper for the container's life.
The container becomes the keeper's child all the same (CLONE_PARENT), so that the keeper learns its exit.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from sampan.errors import Conflict, Failure
from sampan.sandbox import channel, expected, external, keeper_socket, lastwords
from sampan.sandbox.entering import REQUEST_FAILED
from sampan.sandbox.expected import EXPECT, Expected
from sampan.sandbox.hostmounts import DeviceDirectory
from sampan.sandbox.launch import CannotIdmap, LaunchError, Ready, Started, start
from sampan.sandbox.logfile import create
from sampan.sandbox.messages import (
    PROTOCOL,
    Keeping,
    Launch,
    LogFile,
    RootFilesystem,
    decode_keeping,
    decode_launch,
    encode,
)
from sampan.sandbox.plan import compile_plan
from sampan.sandbox.stdio import read_file
from sampan.spec.runtime import default_spec

if TYPE_CHECKING:
    from sampan.sandbox.cgroups import Cgroup, Hierarchy
    from sampan.spec.runtime import LinuxResources, Spec

_SETUP_FAILED = 128

_LIMITS_FAILED = "error setting cgroup config for procHooks process"  # what users of runc look for


def started_event(keeping: Keeping, started: Started) -> dict[str, object]:
    """What a daemon is told of a running container."""
    return {
        "event": "started",
        "pid": started.pid,
        "started_at": started.at,
        "protocol": PROTOCOL,
        "cgroup": keeping.cgroup,
        "state": keeping.state,
    }


class Launcher:
    """Descriptors: ``job`` brings the request and ``keeper`` leads to the keeper that forked it.

    ``control`` is the daemon's end of the keeper's control connection, ``listener`` the keeper's socket to
    be, ``stdio`` the process's standard streams.
    """

    def __init__(
        self,
        hierarchy: Hierarchy,
        *,
        job: int,
        keeper: int,
        control: int,
        listener: int,
        stdio: tuple[int, int, int],
    ) -> None:
        self._hierarchy = hierarchy
        self._job = job
        self._keeper = keeper
        self._control = control
        self._listener = listener
        self._stdio = stdio
        self._ready: Ready = ()
        self._encoded = b""
        self._status = 1  # no container runs
        self._expected: Expected | None = None
        self._superfluous: Expected | None = None  # another container was started
        self._corpses: tuple[int, ...] = ()  # its process, for the keeper to reap

    def run(self) -> NoReturn:
        """Wait for the job, do it, and end; the end of the job's socket without one is the end too.

        What is to be expected may be said before.
        """
        try:
            self._ready = rehearse()
            # Open until the end: by its end the zygote knows that the launcher is done.
            job = socket.socket(fileno=self._job)
            while (message := channel.receive_bytes(job)) is not None:
                if message[0] != EXPECT:
                    self._serve(*message)
                    break
                self._expect(message[1][0], job)
            else:
                self._let_go()
            self._clear_superfluous()
        except BaseException:
            if not self._bereft():
                lastwords.say("launcher", self._encoded)
        finally:
            os._exit(self._status)
        raise AssertionError("unreachable")

    def _expect(self, document: int, job: socket.socket) -> None:
        """Make the first process of a container that may be started next, unless a start waits already."""
        data = os.pread(document, os.fstat(document).st_size, 0)
        os.close(document)
        if self._expected is None and not expected.is_waiting(job):
            # What cannot be made ahead is made when it is needed, and fails then with words.
            with suppress(OSError, Failure, LaunchError):
                self._expected = expected.make(data, self._hierarchy)

    def _let_go(self) -> None:
        """Nothing is started: put down what was expected, which is to be cleared away then."""
        self._superfluous, self._expected = self._expected, None
        if self._superfluous is not None:
            self._superfluous.put_down()

    def _serve(self, keeping: bytes, fds: list[int]) -> None:
        document, asking, *clients = fds
        daemon = socket.socket(fileno=asking)
        try:
            self._start(keeping, document, clients, daemon)
        except LaunchError as error:
            self._fail(daemon, str(error), error.code)
        except Failure as error:
            self._fail(daemon, str(error), REQUEST_FAILED)
        except OSError as error:
            what = f"{error.filename}: " if error.filename else ""
            self._fail(daemon, f"{what}{error.strerror}", _SETUP_FAILED)

    def _fail(self, daemon: socket.socket, message: str, code: int) -> None:
        self._clear_superfluous()
        if self._bereft():
            return  # told nothing, the daemon tries again
        with suppress(OSError):
            channel.send(daemon, {"event": "failed", "message": message, "code": code})

    def _bereft(self) -> bool:
        """Whether the keeper was killed, perhaps while it stood by. What fails then says nothing of the
        container: a pipe is broken, or a process that was the keeper's child is gone."""
        ended = select.poll()
        ended.register(self._keeper, 0)
        return any(event & select.POLLHUP for _, event in ended.poll(0))

    def _clear_superfluous(self) -> None:
        """What was made for another container goes before the daemon hears of this one and may start that."""
        superfluous, self._superfluous = self._superfluous, None
        if superfluous is not None:
            superfluous.clear()

    def _start(self, encoded: bytes, document: int, clients: list[int], daemon: socket.socket) -> None:
        keeper = socket.socket(fileno=self._keeper)
        self._encoded = encoded
        try:
            keeper.send(encoded[:1])
        except OSError:  # it was killed while it stood by
            self._let_go()
            raise
        keeping = decode_keeping(encoded)
        data = os.pread(document, os.fstat(document).st_size, 0)
        launch = decode_launch(data)
        if self._expected is not None and not self._expected.fits(launch):
            self._give_up(self._expected, launch)
        if clients:
            channel.send(keeper, encode(launch.clients), clients)
        # Before anything else is made: what has a bundle is looked after when everybody is killed.
        os.makedirs(keeping.bundle, 0o711, exist_ok=True)
        if launch.runtime is not None:
            self._tell(keeping, keeper, daemon, self._start_by_runtime(keeping, launch, keeper))
            return
        cgroup = self._hierarchy.group(keeping.cgroup)
        if self._expected is None:
            try:
                _create(cgroup, launch.spec["linux"].get("resources", {}))
            except Failure as error:
                raise LaunchError(f"{_LIMITS_FAILED}: {error}", 128) from error
        _delegate(cgroup, launch.spec)
        stdio = () if keeping.terminal else self._streams(keeping)
        reason = ""
        try:
            if self._expected is not None:
                self._hand(self._expected, document, stdio, launch)
            try:
                started = self._start_in(cgroup, keeping, launch, stdio, keeper)
            except CannotIdmap as error:
                if not launch.host_ids_allowed:
                    raise
                reason = str(error)
                self._ready, self._expected = (), None  # used up
                launch = with_host_ids(launch)
                started = self._start_in(cgroup, keeping, launch, stdio, keeper, error.corpses)
        except BaseException:
            cgroup.remove()
            keeper_socket.remove(keeping.bundle)
            raise
        self._tell(keeping, keeper, daemon, started, reason)

    def _start_in(
        self,
        cgroup: Cgroup,
        keeping: Keeping,
        launch: Launch,
        stdio: Sequence[int],
        keeper: socket.socket,
        corpses: tuple[int, ...] = (),
    ) -> Started:
        return start(
            launch,
            stdio,
            cgroup,
            self._hierarchy.mounted(),
            read_file(launch.seccomp_filter) if launch.seccomp_filter and not self._expected else None,
            sibling=True,
            on_clone=lambda pid, dead: self._settle_in(keeping, keeper, pid, (*corpses, *dead)),
            ready=self._ready,
            expected=self._expected,
        )

    def _hand(self, waiting: Expected, document: int, stdio: Sequence[int], launch: Launch) -> None:
        path = launch.seccomp_filter
        seccomp = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if path else -1
        try:
            waiting.hand(document, stdio, seccomp)
        finally:
            if seccomp >= 0:
                os.close(seccomp)

    def _give_up(self, waiting: Expected, launch: Launch) -> None:
        """Another container is started. The group is removed meanwhile, or at once if that one needs it."""
        waiting.put_down()
        self._expected = None
        if waiting.in_way_of(launch):
            waiting.clear(bundle=False)
        else:
            self._superfluous = waiting
        self._corpses = (waiting.pid,)

    def _start_by_runtime(self, keeping: Keeping, launch: Launch, keeper: socket.socket) -> Started:
        keeper.recv(1)  # it is the subreaper now
        try:
            return external.start(
                launch,
                () if keeping.terminal else self._streams(keeping),
                self._hierarchy,
                lambda pid: self._settle_in(keeping, keeper, pid),
            )
        except BaseException:
            with suppress(OSError, Failure):
                self._hierarchy.group(keeping.cgroup).remove()
            keeper_socket.remove(keeping.bundle)
            raise

    def _tell(
        self,
        keeping: Keeping,
        keeper: socket.socket,
        daemon: socket.socket,
        started: Started,
        reason: str = "",
    ) -> None:
        if keeping.terminal:
            channel.send(keeper, {}, (started.console,))
        with suppress(OSError):  # a daemon that went away finds the container by itself
            event = started_event(keeping, started)
            if reason:
                event["host_ids"] = reason
            # The daemon lets others in by the pidfd; into a runtime's container only the runtime does.
            entrance = (started.pidfd,) if keeping.runtime is None else ()
            channel.send(daemon, event, (self._control, *entrance))
        keeper.send(f"{started.at!r}".encode())
        self._status = 0

    def _settle_in(
        self, keeping: Keeping, keeper: socket.socket, pid: int, dead: tuple[int, ...] = ()
    ) -> None:
        """What can be done while the process sets itself up."""
        keeper_socket.listen(self._listener, keeping.bundle)
        if keeping.log is not None:
            create(keeping.log)
        keeper.send(" ".join(map(str, (pid, *self._corpses, *dead))).encode())
        # It reads this when something happens; until then the packet holds the mounts' namespace, too.
        mounts: list[int] = []
        with suppress(OSError):  # the process may be over
            mounts.append(os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC))
        channel.send_bytes(keeper, self._encoded, mounts)
        self._clear_superfluous()

    def _streams(self, keeping: Keeping) -> tuple[int, int, int]:
        _, stdout, stderr = self._stdio
        if keeping.open_stdin:
            return self._stdio
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), stdout, stderr


def _create(cgroup: Cgroup, resources: LinuxResources) -> None:
    try:
        cgroup.create(resources)
    except Conflict:
        # What a launcher made ahead that was killed then: it ends by itself, but not yet.
        cgroup.kill()
        cgroup.remove()
        cgroup.create(resources)


def _delegate(cgroup: Cgroup, spec: Spec) -> None:
    """Give the container's root the group, if it may write to it and is not the host's root."""
    linux = spec["linux"]
    if not linux.get("uidMappings"):
        return
    for mount in spec["mounts"]:
        if mount.get("type") == "cgroup" and "ro" not in mount.get("options", ()):
            cgroup.delegate(linux["gidMappings"][0]["hostID"])


def with_host_ids(launch: Launch) -> Launch:
    """The launch without a user namespace."""
    linux: Any = {
        key: value for key, value in launch.spec["linux"].items() if key not in ("uidMappings", "gidMappings")
    }
    linux["namespaces"] = [found for found in linux["namespaces"] if found["type"] != "user"]
    spec: Any = {**launch.spec, "linux": linux}
    return replace(launch, spec=spec)


def rehearse() -> Ready:
    """Do with a container that is never started what is to be done with one.

    The pages that this writes to are copied from the zygote's now, while nobody waits. Gives the device
    directory of a container that asks for nothing special.
    """
    launch = Launch(
        id="",
        bundle="",
        state="",
        spec=default_spec(),
        root=RootFilesystem(base="", lowers=("",), upper="", work=""),
        log=LogFile(path=""),
    )
    launch.spec["linux"]["cgroupsPath"] = ""
    decode_keeping(Keeping.of(launch).encode())
    plan = compile_plan(decode_launch(encode(launch)), (("", "cgroup2", ()),))
    return [(mount, mount.open(None)) for mount in plan.host_mounts if isinstance(mount, DeviceDirectory)]
