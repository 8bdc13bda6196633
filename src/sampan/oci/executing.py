"""exec: a further process in a container, in its namespaces and its cgroup."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any

from sampan.linux import process as p
from sampan.oci import config, console, filters, seal, shapes
from sampan.oci.container import Container, write_whole
from sampan.oci.failure import Failed
from sampan.sandbox import channel
from sampan.sandbox.joining import JOINED, Joiner
from sampan.sandbox.program import Program

if TYPE_CHECKING:
    from sampan.spec.runtime import Process

_ABSENT = ("pidfd-socket", "process-label", "cgroup", "preserve-fds")


def execute(root: str, given: dict[str, Any], container_id: str, words: list[str]) -> int:
    """Run a process; its exit code, or 0 with ``--detach``."""
    for name in _ABSENT:
        if given.get(name) and given[name] != "0":
            raise Failed(f"--{name} is not supported")
    container = Container.load(root, container_id)
    seal.against(container.spec)
    status = container.status()
    if status == "stopped":
        raise Failed("cannot exec in a stopped container")
    if status == "paused" and not given.get("ignore-paused"):
        raise Failed("cannot exec in a paused container (use --ignore-paused to override)")
    process = _process(container, given, words)
    config.check_process(process)
    detached = bool(given.get("detach"))
    terminal = bool(process.get("terminal"))
    socket_path = given.get("console-socket")
    if terminal and detached and not socket_path:
        raise Failed("cannot allocate tty if runc will detach without setting console socket")
    if socket_path and not terminal:
        raise Failed("cannot use console socket if runc will not detach or allocate tty")
    pid, pidfd, master = _clone(root, container, process)
    if master >= 0 and socket_path:
        console.give(socket_path, master)
    if path := given.get("pid-file"):
        write_whole(path, str(pid).encode(), 0o644)
    if detached:
        return 0
    return console.wait(pidfd, -1 if socket_path else master)


def _process(container: Container, given: dict[str, Any], words: list[str]) -> Process:
    """The process asked for: a whole document, or the container's own with what the flags say."""
    if path := given.get("process"):
        try:
            with open(path, "rb") as file:
                document: Process = json.loads(file.read())
        except OSError as error:
            raise Failed(f"open {path}: {(error.strerror or '').lower()}") from error
        except ValueError as error:
            raise Failed(f"{path}: {error}") from error
        shapes.check(document, shapes.PROCESS, "process")
        return document
    process = container.spec["process"]
    if not words:
        raise Failed("process args cannot be empty")
    process["args"] = words
    process["terminal"] = bool(given.get("tty"))
    process["env"] = [*process["env"], *given.get("env", ())]
    process["noNewPrivileges"] = bool(given.get("no-new-privs") or process.get("noNewPrivileges"))
    if given.get("cwd"):
        process["cwd"] = given["cwd"]
    if given.get("apparmor"):
        process["apparmorProfile"] = given["apparmor"]
    if given.get("user"):
        process["user"] = {**process.get("user", {}), **_user(given["user"])}  # type: ignore[typeddict-item]
    process["user"]["additionalGids"] = [*process["user"].get("additionalGids", ()), *_groups(given)]
    for name in given.get("cap", ()):
        for kind in ("bounding", "effective", "permitted"):
            held = process["capabilities"].setdefault(kind, [])  # type: ignore[misc]
            if name not in held:
                held.append(name)
    return process


def _user(text: str) -> dict[str, int]:
    uid, _, gid = text.partition(":")
    if not uid.isdigit() or (gid and not gid.isdigit()):
        raise Failed(f"invalid user {text!r}: give numbers, UID or UID:GID")
    return {"uid": int(uid), **({"gid": int(gid)} if gid else {})}


def _groups(given: dict[str, Any]) -> list[int]:
    found = []
    for text in given.get("additional-gids", ()):
        for gid in text.split(","):
            if not gid.isdigit():
                raise Failed(f"invalid group {gid!r}: give numbers")
            found.append(int(gid))
    return found


def _clone(root: str, container: Container, process: Process) -> tuple[int, int, int]:
    """(pid, pidfd, console master or -1) of the program, once it runs."""
    linux = container.spec["linux"]
    size = process.get("consoleSize")
    program = Program(
        process=process, filter=filters.compiled(linux.get("seccomp"), root), make_directory=False
    )
    init = os.pidfd_open(container.pid)
    # Again, now that nobody else can get this pid any more.
    if not container.alive():
        raise Failed("cannot exec in a stopped container")
    flags = _namespaces(container)
    cgroup = container.cgroup
    group = cgroup.clone_fd()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    p.set_dumpable(dumpable=False)
    try:
        if os.readlink(f"/proc/{container.pid}/ns/pid") != os.readlink("/proc/self/ns/pid"):
            p.setns(init, p.CLONE_NEWPID)  # for children only
        pid, pidfd = p.clone3(cgroup_fd=group)
    except OSError as error:
        raise Failed(f"cannot join the container: {(error.strerror or '').lower()}") from error
    if pid == 0:
        ours.close()
        joiner = Joiner(theirs, program, (0, 1, 2), (size["height"], size["width"]) if size else None)
        joiner.run(init, flags, cgroup.entrances())
    theirs.close()
    master = -1
    with ours:
        while (message := channel.receive(ours)) is not None:
            document, fds = message
            if "failed" in document:
                os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
                raise Failed(
                    f"exec failed: unable to start container process: {document['failed']}", document["code"]
                )
            (master,) = fds
    return pid, pidfd, master


# The kernel's names of namespaces that the specification calls otherwise.
_FILES = {"network": "net", "mount": "mnt"}


def _namespaces(container: Container) -> int:
    """Those of the first process that are not ours already."""
    flags = 0
    for kind, flag in JOINED.items():
        name = _FILES.get(kind, kind)
        if os.readlink(f"/proc/{container.pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"):
            flags |= flag
    return flags
