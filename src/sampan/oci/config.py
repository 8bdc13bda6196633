"""A bundle's ``config.json``: read, checked, and completed with what a runtime has to add.

Law: nothing is started for a document with a wrong or unsupported setting; every refusal names it.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, cast

from sampan.oci import shapes
from sampan.oci.failure import Failed
from sampan.sandbox import cgroups_v2, mountopts
from sampan.spec.runtime import DEFAULT_DEVICE_RULES, DEFAULT_DEVICES, capability_number, device_rule

if TYPE_CHECKING:
    from typing import Any

    from sampan.sandbox.cgroups import Hierarchy
    from sampan.spec.runtime import Mount, Spec

_KINDS = frozenset({"pid", "network", "uts", "ipc", "mount", "user", "cgroup", "time"})
_PROPAGATIONS = frozenset(
    ("", *(r + word for r in ("", "r") for word in ("private", "shared", "slave")), "unbindable")
)
_RLIMITS = frozenset(
    "RLIMIT_" + name
    for name in (
        *("AS", "CORE", "CPU", "DATA", "FSIZE", "LOCKS", "MEMLOCK", "MSGQUEUE", "NICE", "NOFILE", "NPROC"),
        *("RSS", "RTPRIO", "RTTIME", "SIGPENDING", "STACK"),
    )
)
_IPC_SYSCTLS = frozenset(
    "kernel." + name
    for name in (*("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"),)
)
# Options that mean something in the user's own program only, or that are always so.
_NOT_MOUNTED = frozenset({"bind", "rbind", "z", "Z"})
_LONGEST_CONFIG = 16 << 20
_ANY_KIND = ("a", "b", "c", "u", "p", "")


def read(bundle: str) -> Spec:
    """The document as it is, of the right form. Raises Failed."""
    path = f"{bundle}/config.json"
    try:
        with open(path, "rb") as file:
            data = file.read(_LONGEST_CONFIG)
        spec: Spec = json.loads(data)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise Failed("JSON specification file config.json not found") from error
        raise Failed(f"open {path}: {(error.strerror or '').lower()}") from error
    except (ValueError, RecursionError) as error:
        raise Failed(f"config.json: {error}") from error
    shapes.check(spec, shapes.CONFIG)
    version = spec["ociVersion"]
    if not version.startswith("1."):
        raise Failed(f"config.json: ociVersion {version} is not supported; 1.x is")
    return spec


def settle(spec: Spec, bundle: str, container_id: str, hierarchy: Hierarchy) -> None:
    """Check what depends on the host and complete ``spec`` in place. Raises Failed."""
    if not spec.get("process"):
        raise Failed("process property must not be empty")
    if not spec.get("root"):
        raise Failed("root property must not be empty")
    linux = spec.setdefault("linux", {})
    check_process(spec["process"])
    _settle_root(spec, bundle)
    kinds = _check_namespaces(spec)
    _check_sysctls(linux.get("sysctl") or {}, kinds)
    if linux.get("rootfsPropagation", "") not in _PROPAGATIONS:
        raise Failed(f"rootfsPropagation={linux['rootfsPropagation']} is not supported")
    linux["cgroupsPath"] = _cgroup_path(linux.get("cgroupsPath") or "", container_id)
    _settle_resources(spec, hierarchy)
    _settle_devices(spec)
    linux["maskedPaths"] = linux.get("maskedPaths") or []
    linux["readonlyPaths"] = linux.get("readonlyPaths") or []
    mounts: list[Mount] = []
    for mount in spec.get("mounts") or ():
        mounts += _mounts(mount, bundle, spec, hierarchy, own_groups="cgroup" in kinds)
    spec["mounts"] = mounts


def check_process(process: Any) -> None:
    """Check a process of a container; lists that may be left out are there afterwards."""
    if not process.get("args"):
        raise Failed("args must not be empty")
    for name in ("args", "env"):
        process[name] = process.get(name) or []
    if not process["cwd"].startswith("/"):
        raise Failed("Cwd must be an absolute path")
    sets: dict[str, list[str] | None] = process.get("capabilities") or {}
    for names in sets.values():
        for name in names or ():
            try:
                capability_number(name)
            except KeyError:
                raise Failed(f"unknown capability {name!r}") from None
    process["capabilities"] = {kind: names or [] for kind, names in sets.items()}
    seen = set()
    for limit in process.get("rlimits") or ():
        if limit["type"] not in _RLIMITS:
            raise Failed(f"invalid rlimit type: {limit['type']}")
        if limit["type"] in seen:
            raise Failed(f"rlimit type {limit['type']} is given twice")
        seen.add(limit["type"])
    process["rlimits"] = process.get("rlimits") or []
    user = process.setdefault("user", {})
    user["additionalGids"] = user.get("additionalGids") or []
    if process.get("apparmorProfile") and not os.path.isdir("/sys/kernel/security/apparmor"):
        raise Failed("process.apparmorProfile: AppArmor is not enabled on this host")


def _settle_root(spec: Spec, bundle: str) -> None:
    path = os.path.join(bundle, spec["root"]["path"])
    if not os.path.isdir(path):
        raise Failed(f"invalid rootfs: stat {path}: no such directory")
    spec["root"]["path"] = os.path.realpath(path)


def _check_namespaces(spec: Spec) -> dict[str, str]:
    """The path of each namespace, empty for a new one."""
    linux = cast("dict[str, Any]", spec["linux"])
    kinds: dict[str, str] = {}
    for namespace in linux.get("namespaces") or ():
        kind, path = namespace["type"], namespace.get("path") or ""
        if kind not in _KINDS:
            raise Failed(f'namespace "{kind}" does not exist')
        if kind in kinds:
            raise Failed(f"malformed spec file: duplicated ns {namespace}")
        if path and not os.path.exists(path):
            raise Failed(f"{kind} namespace: stat {path}: no such file or directory")
        kinds[kind] = path
    if kinds.get("mount", "path"):
        raise Failed("linux.namespaces: a new mount namespace is needed")
    mappings = [*(linux.get("uidMappings") or ()), *(linux.get("gidMappings") or ())]
    if kinds.get("user") == "":
        for name in ("uidMappings", "gidMappings"):
            if all(mapping["containerID"] != 0 for mapping in linux.get(name) or ()):
                raise Failed(f"linux.{name}: the user namespace needs a root")
    elif mappings and "user" not in kinds:
        raise Failed("user namespace mappings specified, but user namespace isn't enabled in the config")
    if linux.get("timeOffsets") and kinds.get("time", "path"):
        raise Failed("time namespace offsets specified, but no new time namespace is")
    if spec.get("hostname") and "uts" not in kinds:
        raise Failed("unable to set hostname without a private UTS namespace")
    return kinds


def _check_sysctls(sysctls: dict[str, str], kinds: dict[str, str]) -> None:
    for name in sysctls:
        dotted = name.replace("/", ".")
        if ".." in dotted:
            raise Failed(f'sysctl "{name}" is invalid')
        if dotted in _IPC_SYSCTLS or dotted.startswith("fs.mqueue."):
            needed = "ipc"
        elif dotted.startswith("net."):
            needed = "network"
        elif dotted == "kernel.domainname":
            needed = "uts"
        else:
            raise Failed(f'sysctl "{name}" is not in a separate kernel namespace')
        if needed not in kinds:
            raise Failed(f'sysctl "{name}" is not allowed in the hosts {needed} namespace')


def _cgroup_path(path: str, container_id: str) -> str:
    if ":" in path:
        raise Failed(f"linux.cgroupsPath: {path}: systemd's slices are not supported; give a path")
    return os.path.normpath("/" + (path or container_id).strip("/"))


def _settle_resources(spec: Spec, hierarchy: Hierarchy) -> None:
    resources = spec["linux"].setdefault("resources", {})
    loose = cast("dict[str, Any]", resources)
    for name in ("devices", "hugepageLimits"):
        loose[name] = loose.get(name) or []
    for name in ("memory", "cpu", "blockIO", "unified"):
        loose[name] = loose.get(name) or {}
    if resources.get("pids") is None:
        resources.pop("pids", None)
    if resources["unified"] and hierarchy.version == 1:
        raise Failed("linux.resources.unified: cgroup v2 is needed")
    for rule in resources["devices"]:
        if rule.get("type", "a") not in _ANY_KIND:
            raise Failed(f"invalid cgroup device type: {rule['type']}")
        if not frozenset(rule.get("access") or "rwm") <= frozenset("rwm"):
            raise Failed(f"invalid cgroup device access: {rule['access']}")
        rule["type"] = rule.get("type") or "a"
        rule["access"] = rule.get("access") or "rwm"
    if resources["devices"]:
        # What every container has, whatever its document says.
        resources["devices"] += [device_rule(*one) for one in DEFAULT_DEVICE_RULES]


def _settle_devices(spec: Spec) -> None:
    devices = spec["linux"].get("devices") or []
    named = {device["path"] for device in devices}
    for device in devices:
        if device["type"] not in ("c", "b", "u", "p"):
            raise Failed(f"invalid device type: {device['type']}")
        if not device["path"].startswith("/"):
            raise Failed(f"invalid device path: {device['path']}")
    for path, major, minor in DEFAULT_DEVICES:
        if path not in named:
            devices.append({"type": "c", "path": path, "major": major, "minor": minor, "fileMode": 0o666})
    spec["linux"]["devices"] = devices


def _mounts(mount: Mount, bundle: str, spec: Spec, hierarchy: Hierarchy, *, own_groups: bool) -> list[Mount]:
    """A mount as the sandbox takes it; one of cgroups in the host's namespace becomes several."""
    options = mount["options"] = mount.get("options") or []
    mount["destination"] = os.path.normpath("/" + mount["destination"].lstrip("/"))
    kind = mount["type"] = mount.get("type") or ""
    loose, linux = cast("dict[str, Any]", mount), cast("dict[str, Any]", spec["linux"])
    for key in ("uidMappings", "gidMappings"):
        if not loose.get(key):
            loose.pop(key, None)
        elif loose[key] != linux.get(key):
            raise Failed(f"mounts[{mount['destination']}].{key}: only the container's own map is supported")
    if kind == "bind" or not _NOT_MOUNTED.isdisjoint(options):
        if not mount.get("source"):
            raise Failed(f"mounts[{mount['destination']}].source: must be given")
        mount["source"] = os.path.join(bundle, mount["source"])
        if not _NOT_MOUNTED.isdisjoint(options) or kind == "bind":
            _check_bind(mount)
        return [mount]
    if not kind:
        raise Failed(f"mounts[{mount['destination']}].type: must be given")
    _check_words(mount)
    if kind in ("cgroup", "cgroup2") and not own_groups:
        return _host_groups(mount, spec, hierarchy)
    return [mount]


def _check_bind(mount: Mount) -> None:
    _check_words(mount)
    unknown = [key for key, _ in mountopts.parse(mount["options"]).data]
    if unknown:
        raise Failed(f"mounts[{mount['destination']}].options: {unknown[0]} means nothing for a bind mount")
    if not os.path.exists(mount["source"]):
        raise Failed(
            f'error mounting "{mount["source"]}" to rootfs at "{mount["destination"]}": '
            f"stat {mount['source']}: no such file or directory"
        )
    if "rbind" not in mount["options"] and "bind" not in mount["options"]:
        mount["options"].append("rbind")


# Recursive forms of attributes, beside "rro", and forms of an id map of a mount's own.
_UNSUPPORTED = frozenset(
    (
        *("rrw", "rnosuid", "rsuid", "rnodev", "rdev", "rnoexec", "rexec", "rnodiratime", "rdiratime"),
        *("rrelatime", "rnorelatime", "rnoatime", "ratime", "rstrictatime", "rnostrictatime"),
        *("rnosymfollow", "rsymfollow", "nosymfollow", "idmap", "ridmap", "remount", "tmpcopyup"),
    )
)


def _check_words(mount: Mount) -> None:
    for word in mount["options"]:
        if word in _UNSUPPORTED or word.startswith(("idmap=", "ridmap=")):
            raise Failed(f"mounts[{mount['destination']}].options: {word} is not supported")


def _host_groups(mount: Mount, spec: Spec, hierarchy: Hierarchy) -> list[Mount]:
    """The container's own groups, bound one by one: a new cgroup mount would show those of the whole host."""
    place, path = mount["destination"], spec["linux"]["cgroupsPath"]
    options = [word for word in mount["options"] if word in ("ro", "nosuid", "nodev", "noexec")]
    if isinstance(hierarchy, cgroups_v2.Hierarchy):
        source = hierarchy.mount + path
        return [{"destination": place, "type": "bind", "source": source, "options": ["rbind", *options]}]
    tmpfs = [*(word for word in options if word != "ro"), "mode=755", "size=65536"]
    found: list[Mount] = [{"destination": place, "type": "tmpfs", "source": "tmpfs", "options": tmpfs}]
    for tree in dict.fromkeys(hierarchy.mounts.values()):
        found.append(
            {
                "destination": f"{place}/{os.path.basename(tree)}",
                "type": "bind",
                "source": tree + path,
                "options": ["rbind", *options],
            }
        )
    if "ro" in options:
        spec["linux"]["readonlyPaths"].append(place)
    return found
