"""Containers that another OCI runtime of the host runs: runc, crun, runsc, or one that was registered.

The launcher makes what our own launch makes (the root, the network, places that need care) in a mount
namespace of its own, writes the same specification into a bundle and has the runtime create and start the
container. The keeper is then the parent of the container's first process, as with our own, because it is the
subreaper of what the runtime leaves behind. Laws:

- Everything a runtime keeps is below ``oci`` in the container's bundle, its own state included. What is
  mounted there is seen by nobody outside: it ends with the launcher and the container.
- On hybrid hosts the runtime is cloned into the container's version 2 group, where what it starts stays: so
  ``kill`` and ``freeze`` of ``cgroups`` reach everything at any moment.
- What this host does not allow (raising limits, lowering the OOM score) is cut to what it does, as with ours.
- ``clear`` removes whatever is left, after any death of anybody, and succeeds when there is nothing. It is
  called by who ends a container, and before each start: nobody clears what another start may be making.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sampan.linux import capabilities, tree
from sampan.linux import mount as m
from sampan.linux import process as p
from sampan.sandbox import accounts, cgroups_files, cgroups_v1, interfaces, mountopts, resolver
from sampan.sandbox.entering import failure_of
from sampan.sandbox.external_calls import (
    PATH,
    SETUP_FAILED,
    Caller,
    Place,
    command,
    console_socket,
    receive_console,
    wait,
    write,
)
from sampan.sandbox.hostmounts import Bind, LayersView, NeighboursMount, root_mount
from sampan.sandbox.launch import LaunchError, Started
from sampan.sandbox.messages import (
    Endpoint,
    ExternalRuntime,
    Launch,
    RootFilesystem,
    decode_runtime,
    encode,
)

if TYPE_CHECKING:
    from sampan.sandbox.cgroups import Cgroup, Hierarchy
    from sampan.sandbox.execs import Request
    from sampan.sandbox.messages import Keeping
    from sampan.spec.runtime import Mount, Process, Spec

_SHARED = frozenset({"shared", "rshared"})
_CAP_SYS_RESOURCE = 24


# -- start ------------------------------------------------------------------------------------------------


def start(
    launch: Launch, stdio: Sequence[int], hierarchy: Hierarchy, on_create: Callable[[int], None]
) -> Started:
    """As ``launch.start``, by ``launch.runtime``; the caller is short-lived and its parent a subreaper.

    ``on_create`` is told the first process's pid while it waits to be started. Raises LaunchError or OSError;
    nothing is left then.
    """
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    cgroup = hierarchy.group(launch.spec["linux"]["cgroupsPath"])
    clear(launch.bundle)  # of a start that was cut short
    try:
        return _start(launch, stdio, cgroup, on_create)
    except BaseException:
        # Out of the container's root, which is not to be removed.
        p.setns(home, p.CLONE_NEWNS)
        cgroup.kill()
        clear(launch.bundle)
        raise
    finally:
        os.close(home)


def _start(launch: Launch, stdio: Sequence[int], cgroup: Cgroup, on_create: Callable[[int], None]) -> Started:
    assert launch.runtime is not None
    spec, place = launch.spec, Place(launch.bundle)
    place.make(launch)
    if isinstance(cgroup, cgroups_v1.Group):
        cgroup.create({})  # the limits are the runtime's to set
    caller = Caller(launch.runtime, place, group_fd(cgroup))
    _see_alone(spec, launch.bundle)
    assert isinstance(launch.root, RootFilesystem)
    root = root_mount(launch.root).open(None)
    m.move_mount(root, place.root)
    os.close(root)
    spec["root"]["path"] = place.root
    _make_places(launch, place)
    process = spec["process"]
    _settle_process(process, launch.user, launch.group_add, lambda: os.chroot(place.root))
    if launch.console_size:
        process["consoleSize"] = {"height": launch.console_size[0], "width": launch.console_size[1]}
    names = (launch.names, launch.id) if launch.names else None
    held = _connect(spec, launch.endpoint, launch.more, names)
    write(f"{place.directory}/config.json", encode(spec))
    words = ("--bundle", place.directory, "--pid-file", place.pid)
    console = -1
    try:
        if process.get("terminal"):
            with console_socket(place) as (name, listener):
                caller.call("create", *words, "--console-socket", name, launch.id)
                console = receive_console(listener)
        else:
            caller.call("create", *words, launch.id, stdio=stdio)
        with open(place.pid) as file:
            pid = int(file.read())
        pidfd = os.pidfd_open(pid)
        on_create(pid)
        caller.call("start", launch.id)
    finally:
        if held >= 0:
            os.close(held)
    return Started(pid=pid, pidfd=pidfd, mounts=-1, console=console, at=time.time())


def group_fd(cgroup: Cgroup) -> int | None:
    """The version 2 side of a hybrid host, which these runtimes leave alone; None where there is none."""
    return cgroup.clone_fd() if isinstance(cgroup, cgroups_v1.Group) else None


def _see_alone(spec: Spec, bundle: str) -> None:
    """Enter a mount namespace in which the bundle's mounts are seen by nobody else.

    Binds that are to propagate outwards need the host's mounts as they are: then only the mount that holds
    the bundle stops to be shared.
    """
    p.unshare(p.CLONE_NEWNS)
    if any(not _SHARED.isdisjoint(mount.get("options", ())) for mount in spec["mounts"]):
        holder = os.path.realpath(bundle)
        while not os.path.ismount(holder):
            holder = os.path.dirname(holder)
        m.mount("", holder, "", m.MS_PRIVATE)
    else:
        m.mount("", "/", "", m.MS_REC | m.MS_SLAVE)


def _make_places(launch: Launch, place: Place) -> None:
    """Mount what no runtime can be told of by a path that is safe to follow, and name that mount."""
    for number, mount in enumerate(launch.spec["mounts"]):
        made = _needs_care(launch, mount)
        if made is None:
            continue
        fd = made.open(None)
        target = f"{place.mounts}/{number}"
        try:
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                os.mkdir(target)
            else:
                write(target, b"")
            m.move_mount(fd, target)
        finally:
            os.close(fd)
        mount.pop("subpath", None)
        options = [word for word in mount.get("options", ()) if not word.startswith("lowerdir=")]
        mount.update({"type": "bind", "source": target, "options": ["rbind", *options]})


def _needs_care(launch: Launch, mount: Mount) -> Bind | LayersView | NeighboursMount | None:
    if mount.get("type") == "neighbour":
        neighbour = next(found for found in launch.neighbours if found.pid == int(mount["source"]))
        return NeighboursMount(neighbour=neighbour, place=mount["destination"])
    options = mountopts.parse(mount.get("options", ()))
    subpath = mount.get("subpath", "")
    if mount.get("type") == "overlay":
        lowers = next((value for key, value in options.data if key == "lowerdir"), "") or ""
        return LayersView(lowers=tuple(lowers.split(":")), subpath=subpath)
    return Bind(source=mount["source"], options=options, subpath=subpath) if subpath else None


def _connect(
    spec: Spec, endpoint: Endpoint | None, more: Sequence[Endpoint], names: tuple[str, str] | None
) -> int:
    """Make the network namespace with its interfaces and name it in ``spec``; the descriptor that keeps it.

    ``names``: who wants its sockets for names, and the container's id.
    """
    own = [n for n in spec["linux"]["namespaces"] if n["type"] == "network" and not n.get("path")]
    if endpoint is None or not own:
        return -1
    ours, theirs = socket.socketpair()
    pid, pidfd = p.clone3(p.CLONE_NEWNET)
    if pid == 0:
        ours.close()
        theirs.recv(1)
        os._exit(0)
    theirs.close()
    try:
        made = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        for one in (endpoint, *more):
            interfaces.plug(one, pid)
        if names:
            resolver.offer(*names, pid)
        p.setns(made, p.CLONE_NEWNET)
        interfaces.configure(endpoint)
        for one in more:
            interfaces.configure(one, first=False)
        p.setns(home, p.CLONE_NEWNET)
        os.close(home)
    finally:
        ours.close()
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
    own[0]["path"] = f"/proc/{os.getpid()}/fd/{made}"
    return made


# -- exec -------------------------------------------------------------------------------------------------


def start_exec(
    container: Keeping, request: Request, stdio: Sequence[int], init: int, cgroup: Cgroup
) -> tuple[int, int, int]:
    """(pid, pidfd, console master or -1) of a further process, which becomes the caller's child.

    ``init`` is the pidfd of the first one; ``stdio`` is empty when a terminal is asked for. The container's
    filter applies to every process: these runtimes know no other way. Raises LaunchError.
    """
    assert container.runtime is not None
    place, process = Place(container.bundle), request.process
    joined = p.CLONE_NEWNS | (p.CLONE_NEWUSER if "user" in container.namespaces else 0)
    _settle_process(process, request.user, container.group_add, lambda: p.setns(init, joined))
    if request.console_size:
        process["consoleSize"] = {"height": request.console_size[0], "width": request.console_size[1]}
    own_group = group_fd(cgroup)
    caller = Caller(container.runtime, place, own_group)
    document, pid_file = f"{place.directory}/{request.id}.json", f"{place.directory}/{request.id}.pid"
    write(document, encode(process))
    words = ["exec", "--detach", "--process", document, "--pid-file", pid_file]
    console = -1
    p.set_child_subreaper()
    try:
        if process.get("terminal"):
            with console_socket(place) as (name, listener):
                caller.call(*words, "--console-socket", name, container.id)
                console = receive_console(listener)
        else:
            caller.call(*words, container.id, stdio=stdio)
        with open(pid_file) as file:
            pid = int(file.read())
        return pid, os.pidfd_open(pid), console
    finally:
        p.set_child_subreaper(on=False)
        if own_group is not None:
            os.close(own_group)
        for path in (document, pid_file):
            with suppress(FileNotFoundError):
                os.unlink(path)


def _settle_process(
    process: Process, user: str | None, group_add: Sequence[str], enter: Callable[[], None]
) -> None:
    if user is not None:
        account = _account(user, group_add, enter)
        process["user"] = {
            **process.get("user", {}),
            "uid": account["uid"],
            "gid": account["gid"],
            "additionalGids": account["groups"],
        }
        if not any(variable.startswith("HOME=") and variable != "HOME=" for variable in process["env"]):
            process["env"] = [v for v in process["env"] if v != "HOME="] + [f"HOME={account['home']}"]
    _cut_to_the_allowed(process)


def _account(user: str, group_add: Sequence[str], enter: Callable[[], None]) -> dict[str, Any]:
    """The account that ``user`` names inside, looked up by a child that has entered the container's root."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            enter()
            os.chdir("/")
            found = accounts.resolve(user, group_add=tuple(group_add))
            answer: dict[str, Any] = {"uid": found.uid, "gid": found.gid, "groups": list(found.groups)}
            answer["home"] = found.home
        except BaseException as error:
            answer = failure_of(error, setup_failed=SETUP_FAILED, what="look up the user")
        try:
            os.write(writing, encode(answer))
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    account: dict[str, Any] = json.loads(said or b'{"failed": "look up the user", "code": 128}')
    if "failed" in account:
        raise LaunchError(account["failed"], account["code"])
    return account


def _cut_to_the_allowed(process: Process) -> None:
    """Without CAP_SYS_RESOURCE hard limits cannot be raised nor the OOM score lowered: ask for no more."""
    if capabilities.capget()[0] >> _CAP_SYS_RESOURCE & 1:
        return
    for limit in process.get("rlimits", ()):
        ceiling = resource.getrlimit(getattr(resource, limit["type"]))[1]
        if ceiling != resource.RLIM_INFINITY:
            limit["hard"] = min(limit["hard"], ceiling) if limit["hard"] >= 0 else ceiling
            limit["soft"] = min(limit["soft"], limit["hard"]) if limit["soft"] >= 0 else limit["hard"]
    if "oomScoreAdj" in process:
        with open("/proc/self/oom_score_adj") as file:
            process["oomScoreAdj"] = max(process["oomScoreAdj"], int(file.read()))


# -- end --------------------------------------------------------------------------------------------------


def clear(bundle: str) -> None:
    """Have the runtime of a dead container forget it, and remove what it kept. Idempotent, never raises.

    Does nothing for a container of ours. Must not be called where the container's root is mounted. Safe in a
    process with threads.
    """
    place = Place(bundle)
    try:
        with open(place.runtime, "rb") as file:
            named = json.loads(file.read())
        _delete(decode_runtime(named["runtime"]), place, named["id"])
        _remove_groups(named["group"])
    except (OSError, ValueError, TypeError, KeyError):
        pass  # ours; or it was killed before it could do anything
    with suppress(FileNotFoundError):
        fd = os.open(place.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _remove_files(place, fd)
        finally:
            os.close(fd)


def _delete(runtime: ExternalRuntime, place: Place, container_id: str) -> None:
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, null, target) for target in range(3)]
        argv = command(runtime, place, ("delete", "--force", container_id))
        pid = os.posix_spawn(runtime.path, argv, {"PATH": PATH}, file_actions=actions, setsigmask=())
        wait(os.pidfd_open(pid))
    finally:
        os.close(null)


def _remove_files(place: Place, fd: int) -> None:
    """Everything but what is mounted, should something be: it may be somebody's data."""
    with suppress(OSError):
        tree.remove_tree(fd, "state")
    for directory in (place.mounts, place.directory):
        with suppress(FileNotFoundError), os.scandir(directory) as entries:
            for entry in entries:
                with suppress(OSError):
                    (os.rmdir if entry.is_dir(follow_symlinks=False) else os.unlink)(entry.path)
        with suppress(OSError):
            os.rmdir(directory)


def _remove_groups(path: str) -> None:
    """Runtimes make groups in trees that ours has no use for, and leave the parents that they made."""
    for mount in cgroups_files.mount_points():
        for group in (path, os.path.dirname(path)):
            if group.strip("/"):
                with suppress(OSError):
                    os.rmdir(mount + group)
