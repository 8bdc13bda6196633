"""A container as an OCI runtime specification: pure, but for looking at the device nodes it is given.

Docker's rules: user mounts replace default ones at the same place and are made in the order of their depth;
``--privileged`` opens what the defaults close; the environment is PATH, HOSTNAME, TERM, what
links tell, then the container's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from sampan.engine import capabilities, defaults, devices, mounts, propagation, resources, security
from sampan.engine.model import Container, ExecConfig, HostConfig, MountPoint
from sampan.spec.runtime import ALL_CAPABILITIES, DEFAULT_PATH, default_spec

if TYPE_CHECKING:
    from sampan.engine.cdi import Edits
    from sampan.spec.runtime import (
        Capabilities,
        Device,
        DeviceRule,
        Mount,
        Namespace,
        NamespaceKind,
        Process,
        Spec,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What a start has that its container does not say.

    ``sources`` maps a volume's name to its directory; ``layers`` the destination of an image mount to the
    image's directories, topmost first; ``edits`` are those of CDI devices; ``files`` the engine's files
    to their places in the container; ``id_map`` is (host id of root, number of ids) or None without a user
    namespace. ``joined`` are the paths of other containers' namespaces by kind, ``ipc_of`` the pid of the one
    whose shared memory is joined.
    """

    sources: Mapping[str, str]
    files: Mapping[str, str]
    cgroup_path: str
    layers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    edits: Edits | None = None
    ulimits: Mapping[str, tuple[int, int]]
    available: frozenset[str] = frozenset(ALL_CAPABILITIES)
    no_new_privileges: bool = False
    id_map: tuple[int, int] | None = None
    joined: Mapping[str, str] = field(default_factory=dict)
    ipc_of: int = 0


def build(container: Container, given: Circumstances) -> Spec:
    """The whole specification of a container's start."""
    config, host = container.config, container.host
    spec = default_spec()
    nodes, rules = _devices(spec, host)
    process = _process(spec["process"], container, given)
    spec["process"] = process
    spec["root"] = {"path": "rootfs", "readonly": host.readonly_rootfs}
    spec["hostname"] = config.hostname
    if config.domainname:
        spec["domainname"] = config.domainname
    spec["mounts"] = _mounts(spec["mounts"], container, given)
    if host.annotations:
        spec["annotations"] = dict(host.annotations)
    linux = spec["linux"]
    linux["namespaces"] = namespaces(host, private_users=given.id_map is not None, joined=given.joined)
    linux["devices"] = nodes
    linux["resources"] = resources.linux_resources(host, rules)
    linux["cgroupsPath"] = given.cgroup_path
    linux["maskedPaths"] = list(host.masked_paths or ())
    linux["readonlyPaths"] = list(host.readonly_paths or ())
    if sysctls := _sysctls(host, given):
        linux["sysctl"] = sysctls
    propagations = {point.propagation for point in container.mounts}
    if not propagations.isdisjoint(propagation.SHARED):
        linux["rootfsPropagation"] = "shared"
    elif not propagations.isdisjoint(propagation.SLAVE):
        linux["rootfsPropagation"] = "slave"
    if given.id_map is not None:
        base, span = given.id_map
        linux["uidMappings"] = [{"containerID": 0, "hostID": base, "size": span}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": base, "size": span}]
    if given.edits is not None:
        _edit(spec, given.edits)
    return spec


def _edit(spec: Spec, edits: Edits) -> None:
    """Give the container its CDI devices: what they bring replaces what is there by the same name or path."""
    process, linux = spec["process"], spec["linux"]
    names = {variable.partition("=")[0] for variable in edits.env}
    process["env"] = [v for v in process["env"] if v.partition("=")[0] not in names] + edits.env
    paths = {node["path"] for node in edits.nodes}
    linux["devices"] = [node for node in linux["devices"] if node["path"] not in paths] + edits.nodes
    linux["resources"]["devices"] += edits.rules
    places = {mount["destination"] for mount in edits.mounts}
    kept = [mount for mount in spec["mounts"] if mount["destination"] not in places]
    spec["mounts"] = kept + sorted(edits.mounts, key=lambda mount: mount["destination"].count("/"))
    if edits.hooks:
        spec["hooks"] = edits.hooks


def _process(process: Process, container: Container, given: Circumstances) -> Process:
    config, host = container.config, container.host
    options = security.parse(host.security_opt or ())
    process["terminal"] = config.tty
    process["args"] = [*defaults.command(config)]
    process["env"] = environment(container)
    process["cwd"] = config.working_dir or "/"
    process["capabilities"] = capability_sets(container, given.available)
    process["noNewPrivileges"] = options.no_new_privileges or given.no_new_privileges
    process["oomScoreAdj"] = host.oom_score_adj
    if options.apparmor not in ("", security.UNCONFINED):
        process["apparmorProfile"] = options.apparmor
    if limits := resources.rlimits(host, dict(given.ulimits)):
        process["rlimits"] = limits
    return process


def capability_sets(container: Container, available: frozenset[str]) -> Capabilities:
    host = container.host
    held = capabilities.effective(
        privileged=host.privileged, add=host.cap_add or (), drop=host.cap_drop or (), available=available
    )
    return {
        "bounding": held,
        "effective": held,
        "permitted": held,
        "inheritable": [],
        "ambient": [],
    }


def environment(
    container: Container, extra: Iterable[str] = (), *, terminal: bool | None = None
) -> list[str]:
    """The variables of a process in the container; later ones replace earlier ones in their place.

    A name without "=" takes the variable away. HOME is added by the sandbox, which can read the account.
    """
    tty = container.config.tty if terminal is None else terminal
    variables = {"PATH": DEFAULT_PATH, "HOSTNAME": container.config.hostname}
    if tty:
        variables["TERM"] = "xterm"
    for variable in (*container.network.link_env, *(container.config.env or ()), *extra):
        name, equals, value = variable.partition("=")
        if equals:
            variables[name] = value
        else:
            variables.pop(name, None)
    return [f"{name}={value}" for name, value in variables.items()]


def namespaces(
    host: HostConfig, *, private_users: bool, joined: Mapping[str, str] = MappingProxyType({})
) -> list[Namespace]:
    """Those that the container gets of its own, and those that it joins, by their paths in ``joined``."""
    modes: tuple[tuple[NamespaceKind, str], ...] = (
        ("network", host.network_mode),
        ("uts", host.uts_mode),
        ("pid", host.pid_mode),
        ("ipc", host.ipc_mode),
        ("cgroup", host.cgroupns_mode),
        ("user", "private" if private_users else "host"),
    )
    result: list[Namespace] = [{"type": "mount"}]
    for kind, mode in modes:
        if kind in joined:
            result.append({"type": kind, "path": joined[kind]})
        elif mode != "host":
            result.append({"type": kind})
    return result


def _devices(spec: Spec, host: HostConfig) -> tuple[list[Device], list[DeviceRule]]:
    nodes = devices.host_devices() if host.privileged else list(spec["linux"]["devices"])
    rules = list(spec["linux"]["resources"]["devices"])
    for mapping in host.devices or ():
        for node, rule in devices.device(mapping):
            nodes = [known for known in nodes if known["path"] != node["path"]]
            nodes.append(node)
            rules.append(rule)
    if host.privileged:
        return nodes, [{"allow": True, "access": "rwm"}]
    rules.extend(devices.parse_device_rule(text) for text in host.device_cgroup_rules or ())
    return nodes, rules


def _sysctls(host: HostConfig, given: Circumstances) -> dict[str, str]:
    values: dict[str, str] = {}
    if host.network_mode != "host" and "network" not in given.joined:
        # As Docker since 20.10: ports below 1024 and ping need no capability.
        values["net.ipv4.ip_unprivileged_port_start"] = "0"
        last = given.id_map[1] - 1 if given.id_map else (1 << 31) - 1
        values["net.ipv4.ping_group_range"] = f"0 {last}"
    return values | (host.sysctls or {})


def _mounts(default: list[Mount], container: Container, given: Circumstances) -> list[Mount]:
    host = container.host
    own = [_mount(point, given) for point in container.mounts]
    places = {mount["destination"] for mount in own}
    files: list[Mount] = [
        {"destination": target, "type": "bind", "source": source, "options": ["rbind", "rprivate"]}
        for source, target in given.files.items()
        if target not in places
    ]
    kept = [mount for mount in default if not _replaced(mount["destination"], places)]
    system = [changed for mount in kept if (changed := _system_mount(mount, host, given)) is not None]
    ordered = sorted([*own, *files], key=lambda mount: mount["destination"].count("/"))
    return [*system, *ordered]


def _replaced(destination: str, places: set[str]) -> bool:
    return destination in places or ("/dev" in places and destination.startswith("/dev/"))


def _system_mount(mount: Mount, host: HostConfig, given: Circumstances) -> Mount | None:
    destination = mount["destination"]
    options = mount.get("options", [])
    if destination == "/dev/shm":
        if host.ipc_mode == "none":
            return None
        if host.ipc_mode == "host":
            return _host_bind(destination)
        if given.ipc_of:
            return {"destination": destination, "type": "neighbour", "source": str(given.ipc_of)}
        size = f"size={host.shm_size}"
        mount["options"] = [size if word.startswith("size=") else word for word in options]
    elif (host.privileged and destination in ("/sys", "/sys/fs/cgroup")) or (
        destination == "/sys/fs/cgroup" and security.parse(host.security_opt or ()).writable_cgroups
    ):
        mount["options"] = ["rw" if word == "ro" else word for word in options]
    return mount


def _host_bind(path: str) -> Mount:
    return {"destination": path, "type": "bind", "source": path, "options": ["rbind", "rprivate"]}


def _image_mount(point: MountPoint, layers: Sequence[str]) -> Mount:
    """One layer is bound, several are merged; either is read-only with all that is in it."""
    mount: Mount
    if len(layers) == 1:
        options = ["bind", "rprivate", "ro"]
        mount = {"destination": point.destination, "type": "bind", "source": layers[0], "options": options}
    else:
        options = [f"lowerdir={':'.join(layers)}", "ro"]
        mount = {"destination": point.destination, "type": "overlay", "source": "overlay", "options": options}
    if point.subpath:
        mount["subpath"] = point.subpath
    return mount


def _mount(point: MountPoint, given: Circumstances) -> Mount:
    if point.type == "image":
        return _image_mount(point, given.layers[point.destination])
    if point.type == "tmpfs":
        options = mounts.tmpfs_options(point.options)
        return {"destination": point.destination, "type": "tmpfs", "source": "tmpfs", "options": options}
    source = point.source
    if point.type == "volume":
        source = given.sources[point.name]
    options = ["bind" if point.non_recursive else "rbind", point.propagation or "rprivate"]
    if not point.rw:
        # Since Docker 25 a read-only bind is so with everything mounted below it.
        options.append("ro" if point.non_recursive or point.read_only_non_recursive else "rro")
    mount: Mount = {"destination": point.destination, "type": "bind", "source": source, "options": options}
    if point.subpath:
        mount["subpath"] = point.subpath
    return mount


def exec_process(container: Container, config: ExecConfig, available: frozenset[str]) -> Process:
    """The process of an exec: the container's environment and limits, its own command and directory."""
    host = container.host
    sets = capability_sets(container, available)
    if config.privileged and not host.privileged:
        everything = [name for name in ALL_CAPABILITIES if name in available]
        sets = {**sets, "bounding": everything, "effective": everything, "permitted": everything}
    options = security.parse(host.security_opt or ())
    process: Process = {
        "terminal": config.tty,
        "args": list(config.cmd or ()),
        "env": environment(container, config.env or (), terminal=config.tty),
        "cwd": config.working_dir or container.config.working_dir or "/",
        "capabilities": sets,
        "noNewPrivileges": options.no_new_privileges,
        "oomScoreAdj": host.oom_score_adj,
    }
    if options.apparmor not in ("", security.UNCONFINED):
        process["apparmorProfile"] = options.apparmor
    return process
