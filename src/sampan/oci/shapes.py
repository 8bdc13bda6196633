"""The form of ``config.json``: which fields there are, of what type, and which are not carried out here.

Law: what the specification does not know is passed over, as it demands; what it knows and is not carried out
here is refused by name as soon as it says anything. Source: the schemas of opencontainers/runtime-spec.
"""

from __future__ import annotations

from sampan.oci.failure import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TEXT, NUMBER, COUNT, TRUTH = "a string", "an integer", "a non-negative integer", "true or false"
REFUSED = "refused"

# A type by its name; an object as its fields; a list of one element as a list of that; ("any", type) as an
# object with any names.
Shape = "str | dict[str, Any] | list[Any] | tuple[str, Any]"

_IDS = [{"containerID": COUNT, "hostID": COUNT, "size": COUNT}]
_HOOKS = [{"path": TEXT, "args": [TEXT], "env": [TEXT], "timeout": COUNT}]
_OFFSETS = {"secs": NUMBER, "nanosecs": COUNT}
_RATES = [{"major": NUMBER, "minor": NUMBER, "rate": COUNT}]

PROCESS: dict[str, Any] = {
    "args": [TEXT],
    "commandLine": REFUSED,
    "consoleSize": {"height": COUNT, "width": COUNT},
    "cwd": TEXT,
    "env": [TEXT],
    "terminal": TRUTH,
    "user": {"uid": COUNT, "gid": COUNT, "umask": COUNT, "additionalGids": [COUNT], "username": TEXT},
    "capabilities": {
        name: [TEXT] for name in ("bounding", "permitted", "effective", "inheritable", "ambient")
    },
    "apparmorProfile": TEXT,
    "oomScoreAdj": NUMBER,
    "selinuxLabel": REFUSED,
    "ioPriority": REFUSED,
    "noNewPrivileges": TRUTH,
    "rlimits": [{"type": TEXT, "hard": COUNT, "soft": COUNT}],
    "scheduler": REFUSED,
    "execCPUAffinity": REFUSED,
}

RESOURCES: dict[str, Any] = {
    "unified": ("any", TEXT),
    "devices": [{"allow": TRUTH, "type": TEXT, "major": NUMBER, "minor": NUMBER, "access": TEXT}],
    "pids": {"limit": NUMBER},
    "blockIO": {
        "weight": COUNT,
        "leafWeight": REFUSED,
        "throttleReadBpsDevice": _RATES,
        "throttleWriteBpsDevice": _RATES,
        "throttleReadIOPSDevice": _RATES,
        "throttleWriteIOPSDevice": _RATES,
        "weightDevice": [{"major": NUMBER, "minor": NUMBER, "weight": COUNT, "leafWeight": REFUSED}],
    },
    "cpu": {
        "cpus": TEXT,
        "mems": TEXT,
        "period": COUNT,
        "quota": NUMBER,
        "burst": COUNT,
        "realtimePeriod": COUNT,
        "realtimeRuntime": NUMBER,
        "shares": COUNT,
        "idle": NUMBER,
    },
    "hugepageLimits": [{"pageSize": TEXT, "limit": COUNT}],
    "memory": {
        "kernel": NUMBER,  # the kernel has no such limit any more; runc passes it over as well
        "kernelTCP": NUMBER,
        "limit": NUMBER,
        "reservation": NUMBER,
        "swap": NUMBER,
        "swappiness": COUNT,
        "disableOOMKiller": TRUTH,
        "useHierarchy": TRUTH,
        "checkBeforeUpdate": REFUSED,
    },
    "network": REFUSED,
    "rdma": REFUSED,
}

LINUX: dict[str, Any] = {
    "devices": [
        {
            "type": TEXT,
            "path": TEXT,
            "major": NUMBER,
            "minor": NUMBER,
            "fileMode": COUNT,
            "uid": COUNT,
            "gid": COUNT,
        }
    ],
    "netDevices": REFUSED,
    "uidMappings": _IDS,
    "gidMappings": _IDS,
    "namespaces": [{"type": TEXT, "path": TEXT}],
    "resources": RESOURCES,
    "cgroupsPath": TEXT,
    "rootfsPropagation": TEXT,
    "seccomp": {
        "defaultAction": TEXT,
        "defaultErrnoRet": COUNT,
        "flags": [TEXT],
        "listenerPath": REFUSED,
        "listenerMetadata": REFUSED,
        "architectures": [TEXT],
        "syscalls": [
            {
                "names": [TEXT],
                "action": TEXT,
                "errnoRet": COUNT,
                "args": [{"index": COUNT, "value": COUNT, "valueTwo": COUNT, "op": TEXT}],
            }
        ],
    },
    "sysctl": ("any", TEXT),
    "maskedPaths": [TEXT],
    "readonlyPaths": [TEXT],
    "mountLabel": REFUSED,
    "intelRdt": REFUSED,
    "memoryPolicy": REFUSED,
    "personality": {"domain": TEXT, "flags": [TEXT]},
    "timeOffsets": {"boottime": _OFFSETS, "monotonic": _OFFSETS},
}

CONFIG: dict[str, Any] = {
    "ociVersion": TEXT,
    "hooks": dict.fromkeys(
        (*("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"),),
        _HOOKS,
    ),
    "annotations": ("any", TEXT),
    "hostname": TEXT,
    "domainname": TEXT,
    "mounts": [
        {
            "source": TEXT,
            "destination": TEXT,
            "options": [TEXT],
            "type": TEXT,
            "uidMappings": _IDS,
            "gidMappings": _IDS,
        }
    ],
    "root": {"path": TEXT, "readonly": TRUTH},
    "process": PROCESS,
    "linux": LINUX,
    "solaris": REFUSED,
    "windows": REFUSED,
    "vm": REFUSED,
    "zos": REFUSED,
    "freebsd": REFUSED,
}

_REQUIRED = {
    "": ("ociVersion",),
    "root": ("path",),
    "process": ("cwd",),
    "mounts": ("destination",),
    "linux.namespaces": ("type",),
    "linux.devices": ("type", "path"),
    "linux.uidMappings": ("containerID", "hostID", "size"),
    "linux.gidMappings": ("containerID", "hostID", "size"),
    "process.rlimits": ("type", "hard", "soft"),
    "linux.seccomp": ("defaultAction",),
    "linux.resources.pids": ("limit",),
    "linux.resources.devices": ("allow",),
}


def check(value: Any, shape: Any, where: str = "") -> None:
    """Raise Failed, which names the place, for a document of another form or that asks for the impossible."""
    if isinstance(shape, str):
        _check_word(value, shape, where)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise Failed(f"config.json: {where}: must be an array")
        for item in value:
            check(item, shape[0], where)
    elif not isinstance(value, dict):
        raise Failed(f"config.json: {where or 'it'}: must be an object")
    elif isinstance(shape, tuple):
        for name, item in value.items():
            check(item, shape[1], f"{where}[{name}]")
    else:
        for name in _REQUIRED.get(where, ()):
            if value.get(name) is None:
                raise Failed(f"config.json: {where + '.' if where else ''}{name}: must be given")
        for name, item in value.items():
            inner = shape.get(name)
            if inner is not None and item is not None:
                check(item, inner, f"{where}.{name}" if where else name)


def _check_word(value: Any, shape: str, where: str) -> None:
    if shape == REFUSED:
        if value:
            raise Failed(f"config.json: {where} is not supported")
    elif shape == TEXT:
        if not isinstance(value, str) or "\0" in value:
            raise Failed(f"config.json: {where}: must be {shape}")
    elif shape == TRUTH:
        if not isinstance(value, bool):
            raise Failed(f"config.json: {where}: must be {shape}")
    elif isinstance(value, bool) or not isinstance(value, int) or (shape == COUNT and value < 0):
        raise Failed(f"config.json: {where}: must be {shape}")
