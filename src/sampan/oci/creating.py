"""create and run: from a bundle to a first process.

Order: the id is reserved, the cgroup made, the process started up to the gate, its terminal given away, the
state written, the pid file last. Whoever finds a pid file finds the rest. When anything fails, all that was
made before is unmade, and nothing but the message is left.
"""

from __future__ import annotations

import json
import os
import select
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sampan.errors import Failure
from sampan.linux import process as p
from sampan.oci import config, console, filters, hooks, seal
from sampan.oci.container import VERSION, Container, write_whole
from sampan.oci.failure import Failed
from sampan.oci.starting import after_start, destroy
from sampan.sandbox import cgroups
from sampan.sandbox.launch import LaunchError, Stages, Started, start
from sampan.sandbox.messages import Launch, RootDirectory

if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.sandbox.cgroups import Cgroup
    from sampan.spec.runtime import Spec

_EARLY_HOOKS = ("prestart", "createRuntime", "createContainer")
_PERSONALITIES = {"LINUX": 0x0, "LINUX32": 0x8}
# Namespaces that the runtime enters itself, before it makes others: it may not be let in from those.
_ENTERED = {
    "network": p.CLONE_NEWNET,
    "ipc": p.CLONE_NEWIPC,
    "uts": p.CLONE_NEWUTS,
    "cgroup": p.CLONE_NEWCGROUP,
}


def create(root: str, given: dict[str, Any], container_id: str) -> int:
    """``create``: everything but the program's start, which waits for ``start``."""
    creation = Creation(root, given, container_id)
    if creation.terminal and not given.get("console-socket"):
        raise Failed("cannot allocate tty if runc will detach without setting console socket")
    creation.make(gate=True)
    return 0


def run(root: str, given: dict[str, Any], container_id: str, warn: Callable[[str], None]) -> int:
    """``run``: create and start; in the foreground unless ``--detach``, and deleted at the end then."""
    creation = Creation(root, given, container_id)
    detached = bool(given.get("detach"))
    if detached and creation.terminal and not given.get("console-socket"):
        raise Failed("cannot allocate tty if runc will detach without setting console socket")
    container, started = creation.make(gate=bool(hooks.of(creation.spec, "startContainer")))
    if os.path.exists(container.fifo):
        container.release()
    after_start(container, warn)
    if detached:
        return 0
    code = console.wait(started.pidfd, started.console)
    if not given.get("keep"):
        destroy(container, warn)
    return code


class Creation:
    """One container in the making."""

    def __init__(self, root: str, given: dict[str, Any], container_id: str) -> None:
        if os.geteuid() != 0:
            raise Failed("must be run as root")
        self._given = given
        self._root = root
        self._id = container_id
        self.bundle = os.path.realpath(given.get("bundle") or ".")
        self.spec = config.read(self.bundle)
        seal.against(self.spec)
        if self._given.get("pidfd-socket"):
            raise Failed("--pidfd-socket is not supported")
        if self._given.get("no-pivot"):
            raise Failed("--no-pivot is not supported: the root is always entered by pivot_root")
        self._preserve = _preserved(given.get("preserve-fds") or "0")
        if given.get("console-socket") and not self.terminal:
            raise Failed("cannot use console socket if runc will not detach or allocate tty")

    @property
    def terminal(self) -> bool:
        return bool((self.spec.get("process") or {}).get("terminal"))

    def make(self, *, gate: bool) -> tuple[Container, Started]:
        """The container and its first process, which waits if there is a ``gate``. Raises Failed."""
        hierarchy = cgroups.detect()
        annotations = self.spec.get("annotations") or {}
        config.settle(self.spec, self.bundle, self._id, hierarchy)
        container = Container.reserve(self._root, self._id)
        group = hierarchy.group(self.spec["linux"]["cgroupsPath"])
        try:
            container.note(group.path)
            # Who calls us may have made it, and be in it.
            group.create(self.spec["linux"].get("resources", {}), shared=True)
            try:
                started = self._start(container, group, hierarchy.mounted(), gate=gate)
                try:
                    self._tell(container, started, annotations)
                except BaseException:
                    _kill(started.pidfd)
                    raise
            except BaseException:
                with suppress(Failure):
                    group.remove(patience=0.2)
                raise
        except BaseException as error:
            container.remove()
            if isinstance(error, LaunchError):
                raise Failed(f"unable to start container process: {error}") from error
            if isinstance(error, Failure):
                raise Failed(f"unable to apply cgroup configuration: {error}") from error
            raise
        return container, started

    def _start(self, container: Container, group: Cgroup, hierarchies: Any, *, gate: bool) -> Started:
        spec = self.spec
        process = spec["process"]
        size: Any = process.get("consoleSize") or {}
        launch = Launch(
            id=self._id,
            bundle=self.bundle,
            state="",
            spec=spec,
            root=RootDirectory(
                path=spec["root"]["path"], hooks=any(hooks.of(spec, kind) for kind in _EARLY_HOOKS)
            ),
            console_size=(size["height"], size["width"]) if size.get("height") else None,
        )
        program = filters.compiled(spec["linux"].get("seccomp"), self._root)
        home = {
            kind: os.open(f"/proc/self/ns/{_FILES[kind]}", os.O_RDONLY | os.O_CLOEXEC) for kind in _ENTERED
        }
        stages = Ceremony(
            self._state(annotations=spec.get("annotations") or {}),
            spec,
            home,
            gate=container.make_fifo() if gate else -1,
            preserve=self._preserve,
        )
        self._prepare_self(spec)
        stdio = () if process.get("terminal") else (0, 1, 2)
        return start(launch, stdio, group, hierarchies, program, stages=stages)

    def _prepare_self(self, spec: Spec) -> None:
        """What the child is to inherit; we do little else afterwards."""
        # Nothing inside may look into what is still us.
        p.set_dumpable(dumpable=False)
        linux: Any = spec["linux"]
        personality = linux.get("personality")
        if personality:
            if personality.get("flags") or personality.get("domain") not in _PERSONALITIES:
                raise Failed(f"linux.personality: {json.dumps(personality)} is not supported")
            p.personality(_PERSONALITIES[personality["domain"]])
        kept = []
        for namespace in linux.get("namespaces") or ():
            kind = namespace["type"]
            path = namespace.get("path")
            if kind == "time":
                self._make_time(path, linux.get("timeOffsets") or {})
            elif path and kind in _ENTERED:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    p.setns(fd, _ENTERED[kind])
                except OSError as error:
                    raise Failed(f"{kind} namespace {path}: {(error.strerror or '').lower()}") from error
                finally:
                    os.close(fd)
            else:
                kept.append(namespace)
        linux["namespaces"] = kept

    @staticmethod
    def _make_time(path: str | None, offsets: Any) -> None:
        """Children are put into a time namespace; it takes its offsets before the first of them."""
        if path:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            p.setns(fd, p.CLONE_NEWTIME)
            os.close(fd)
            return
        p.unshare(p.CLONE_NEWTIME)
        for clock, value in (offsets or {}).items():
            with open("/proc/self/timens_offsets", "w") as file:
                file.write(f"{clock} {value.get('secs') or 0} {value.get('nanosecs') or 0}\n")

    def _state(self, annotations: dict[str, str]) -> dict[str, Any]:
        return {
            "ociVersion": VERSION,
            "id": self._id,
            "pid": 0,
            "status": "creating",
            "bundle": self.bundle,
            "annotations": annotations,
        }

    def _tell(self, container: Container, started: Started, annotations: dict[str, str]) -> None:
        """Let everybody know of the first process who is to know."""
        given = self._given
        if started.console >= 0 and given.get("console-socket"):
            console.give(given["console-socket"], started.console)
        container.save(self.spec, self.bundle, started.pid, annotations)
        if path := given.get("pid-file"):
            write_whole(path, str(started.pid).encode(), 0o644)


# The names of the kernel for what the specification calls otherwise.
_FILES = {"network": "net", "ipc": "ipc", "uts": "uts", "cgroup": "cgroup"}


class Ceremony(Stages):
    """The hooks between the namespaces and the program. ``home`` are the runtime's own namespaces."""

    def __init__(
        self, state: dict[str, Any], spec: Spec, home: dict[str, int], *, gate: int, preserve: int
    ) -> None:
        super().__init__(gate=gate, preserve=preserve)
        self._state = state
        self._spec = spec
        self._home = home

    def placed(self, pid: int) -> None:
        state = {**self._state, "pid": pid}
        try:
            for kind in ("prestart", "createRuntime"):
                hooks.run_all(hooks.of(self._spec, kind), kind, state, self._go_home)
            inside = hooks.of(self._spec, "createContainer")
            if inside:
                hooks.run_all(inside, "createContainer", state, lambda: _enter(pid))
        except Failed as error:
            raise LaunchError(f"error during container init: {error}", 1) from error

    def released(self) -> None:
        state = {**self._state, "pid": os.getpid(), "status": "created"}
        try:
            hooks.run_all(hooks.of(self._spec, "startContainer"), "startContainer", state)
        except Failed as error:
            raise LaunchError(str(error), 1) from error

    def _go_home(self) -> None:
        for kind, fd in self._home.items():
            with suppress(OSError):
                p.setns(fd, _ENTERED[kind])


def _enter(pid: int) -> None:
    """Join the namespaces of a process whose root is still the host's."""
    pidfd = os.pidfd_open(pid)
    p.setns(pidfd, p.CLONE_NEWNS | p.CLONE_NEWNET | p.CLONE_NEWIPC | p.CLONE_NEWUTS)


def _preserved(text: str) -> int:
    """How many descriptors after standard error the program gets. Raises Failed unless all are open."""
    if not text.isdigit():
        raise Failed(f"invalid value {text!r} for flag -preserve-fds")
    for fd in range(3, 3 + int(text)):
        try:
            os.fstat(fd)
        except OSError:
            raise Failed(f"--preserve-fds {text}: descriptor {fd} is not open") from None
    return int(text)


def _kill(pidfd: int) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    dead = select.poll()
    dead.register(pidfd, select.POLLIN)
    dead.poll()
