"""From an OCI runtime specification to a plan: mounts to make outside, then steps to run inside.

Pure: nothing is opened or changed here, so a plan can be printed, tested and compared.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from sampan.linux import mount as m
from sampan.linux import process as p
from sampan.sandbox import mountopts, steps
from sampan.sandbox.hostmounts import (
    Bind,
    DeviceDirectory,
    DirectoryRoot,
    HostMount,
    LayersView,
    NeighboursMount,
    root_mount,
)
from sampan.sandbox.messages import RootDirectory, RootFilesystem

if TYPE_CHECKING:
    from sampan.sandbox.messages import Launch
    from sampan.spec.runtime import Device, Mount, Spec

_NAMESPACE_FLAGS = {
    "mount": p.CLONE_NEWNS,
    "pid": p.CLONE_NEWPID,
    "ipc": p.CLONE_NEWIPC,
    "uts": p.CLONE_NEWUTS,
    "network": p.CLONE_NEWNET,
    "cgroup": p.CLONE_NEWCGROUP,
    "user": p.CLONE_NEWUSER,
    "time": p.CLONE_NEWTIME,
}
_PROPAGATION = {
    "private": m.MS_PRIVATE,
    "rprivate": m.MS_PRIVATE,
    "shared": m.MS_SHARED,
    "rshared": m.MS_SHARED,
    "slave": m.MS_SLAVE,
    "rslave": m.MS_SLAVE,
    "unbindable": m.MS_UNBINDABLE,
}

# (directory name, file system type, options) of each mounted hierarchy; see steps.CgroupMounts.
Hierarchies = tuple[tuple[str, str, tuple[tuple[str, str | None], ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``flags`` are the namespaces to create (CLONE_NEW*), ``joins`` those to enter: (path, flag).

    ``early`` steps need nothing from outside; ``late`` ones follow once the host mounts are handed in.
    """

    flags: int
    joins: tuple[tuple[str, int], ...]
    host_mounts: tuple[HostMount, ...]
    early: tuple[steps.Step, ...]
    late: tuple[steps.Step, ...]


def compile_plan(launch: Launch, hierarchies: Hierarchies) -> Plan:
    spec = launch.spec
    linux = spec.get("linux", {})
    flags, joins = _namespaces(spec)
    root = launch.root
    host_mounts: list[HostMount] = [
        root_mount(root) if isinstance(root, RootFilesystem) else DirectoryRoot(path=root.path)
    ]
    propagation = _PROPAGATION.get(linux.get("rootfsPropagation", ""), m.MS_SLAVE)
    late: list[steps.Step] = (
        # What a mount passes on and takes is the mount's own; a shared root could not be entered.
        [steps.EnterRoot()]
        if isinstance(root, RootFilesystem)
        else _enter_directory(root, propagation, flags)
    )
    for mount in spec.get("mounts", ()):
        late.extend(_mount_steps(launch, mount, hierarchies, host_mounts))
    for name, device in _devices(launch)[1]:
        late.append(steps.PlacedDevice(name=name, destination=device["path"]))
    if spec["process"].get("terminal"):
        late.append(steps.Console(size=launch.console_size))
    if paths := linux.get("maskedPaths"):
        late.append(steps.MaskedPaths(paths=tuple(paths)))
    # As late as it can be: it is plugged in outside meanwhile, and sysctls may be about it.
    if flags & p.CLONE_NEWNET:
        late.append(steps.Network(endpoint=launch.endpoint, more=launch.more))
    if sysctls := linux.get("sysctl"):
        late.append(steps.Sysctls(values=tuple(sorted(sysctls.items()))))
    if paths := linux.get("readonlyPaths"):
        late.append(steps.ReadonlyPaths(paths=tuple(paths)))
    if spec.get("root", {}).get("readonly"):
        late.append(steps.ReadonlyRoot())
    if not isinstance(root, RootFilesystem) and propagation in (m.MS_SHARED, m.MS_UNBINDABLE):
        late.append(steps.RootPropagation(propagation=propagation))
    early: tuple[steps.Step, ...] = ()
    if flags & p.CLONE_NEWUTS:
        early = (steps.Hostname(name=spec.get("hostname", ""), domain=spec.get("domainname", "")),)
    return Plan(flags=flags, joins=joins, host_mounts=tuple(host_mounts), early=early, late=tuple(late))


def _enter_directory(root: RootDirectory, propagation: int, flags: int) -> list[steps.Step]:
    """Root in a new user namespace may not be let through to where the directory lies: hooks do without."""
    place = "" if flags & p.CLONE_NEWUSER or not root.hooks else root.path
    entering = steps.EnterRoot(propagation=propagation, place=place)
    return [steps.AwaitHooks(place=place), entering] if root.hooks else [entering]


def _namespaces(spec: Spec) -> tuple[int, tuple[tuple[str, int], ...]]:
    flags, joins = 0, []
    for namespace in spec.get("linux", {}).get("namespaces", ()):
        flag = _NAMESPACE_FLAGS[namespace["type"]]
        if path := namespace.get("path"):
            joins.append((path, flag))
        else:
            flags |= flag
    return flags, tuple(joins)


def _devices(launch: Launch) -> tuple[list[Device], list[tuple[str, Device]]]:
    """The devices of /dev, and those that are to be elsewhere, each with the name that it has there first."""
    inside: list[Device] = []
    elsewhere: list[tuple[str, Device]] = []
    for device in launch.spec.get("linux", {}).get("devices", ()):
        if posixpath.normpath(device["path"]).startswith("/dev/"):
            inside.append(device)
        else:
            elsewhere.append((f".sampan-{len(elsewhere)}", device))
    return inside, elsewhere


def _mount_steps(
    launch: Launch, mount: Mount, hierarchies: Hierarchies, host_mounts: list[HostMount]
) -> list[steps.Step]:
    destination, kind = mount["destination"], mount.get("type", "")
    words = mount.get("options", [])
    options = mountopts.parse(words)
    made_outside: HostMount | None = None
    if kind == "bind" or "bind" in words or "rbind" in words:
        made_outside = Bind(
            source=mount["source"],
            options=options,
            subpath=mount.get("subpath", ""),
            # Who gives a directory as the root has settled whose the files are, there and in what is bound.
            mapped=isinstance(launch.root, RootFilesystem) or "uidMappings" in mount,
        )
    elif kind == "overlay" and all(key != "upperdir" for key, _ in options.data):
        lowers = next(value for key, value in options.data if key == "lowerdir") or ""
        made_outside = LayersView(lowers=tuple(lowers.split(":")), subpath=mount.get("subpath", ""))
    elif kind == "neighbour":
        pid = int(mount["source"])
        neighbour = next(found for found in launch.neighbours if found.pid == pid)
        made_outside = NeighboursMount(neighbour=neighbour, place=destination)
    elif kind == "tmpfs" and destination == "/dev":
        inside, elsewhere = _devices(launch)
        hidden = (cast("Device", {**device, "path": f"/dev/{name}"}) for name, device in elsewhere)
        made_outside = DeviceDirectory(options=options, devices=(*inside, *hidden))
    if made_outside is not None:
        host_mounts.append(made_outside)
        index = len(host_mounts) - 1
        return [steps.AttachHostMount(index=index, source=mount.get("source", ""), destination=destination)]
    if kind in ("cgroup", "cgroup2"):
        return [steps.CgroupMounts(destination=destination, options=options, hierarchies=hierarchies)]
    source = mount.get("source") or kind
    return [steps.NewMount(fstype=kind, source=source, destination=destination, options=options)]
