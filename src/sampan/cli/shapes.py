"""Which parts of the API's documents are structs, maps or lists in Docker's client.

Its templates run over typed values first, and that shows: a struct prints as ``{a b}`` and a map as
``map[k:v]``; a key that a map lacks is ``<no value>``, a field that a struct lacks is an error; an absent
map or list prints empty. JSON alone cannot tell, so the names of maps and lists are listed here.
"""

from __future__ import annotations

from sampan.wire.template.values import NoList, NoMap, Number, Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAPS = frozenset(
    [
        "Annotations",
        "Containers",
        "Data",
        "DriverOpts",
        "Endpoints",
        "ExposedPorts",
        "Labels",
        "Networks",
        "Options",
        "PortBindings",
        "Ports",
        "Sandboxes",
        "Services",
        "Status",
        "StorageOpt",
        "Sysctls",
        "TLSMaterial",
        "Tmpfs",
        "Volumes",
    ]
)

LISTS = frozenset(
    [
        "Aliases",
        "Binds",
        "BlkioDeviceReadBps",
        "BlkioDeviceReadIOps",
        "BlkioDeviceWriteBps",
        "BlkioDeviceWriteIOps",
        "BlkioWeightDevice",
        "CapAdd",
        "CapDrop",
        "Capabilities",
        "Cmd",
        "DNSNames",
        "DeviceCgroupRules",
        "DeviceIDs",
        "DeviceRequests",
        "Devices",
        "Dns",
        "DnsOptions",
        "DnsSearch",
        "Entrypoint",
        "Env",
        "ExecIDs",
        "ExtraHosts",
        "GroupAdd",
        "Layers",
        "Links",
        "MaskedPaths",
        "Mounts",
        "OnBuild",
        "ReadonlyPaths",
        "RepoDigests",
        "RepoTags",
        "SecondaryIPAddresses",
        "SecondaryIPv6Addresses",
        "SecurityOpt",
        "Shell",
        "Test",
        "Ulimits",
        "VolumesFrom",
    ]
)

ALIASES = {
    "ID": "Id",
    "NanoCPUs": "NanoCpus",
    "CPUShares": "CpuShares",
    "CPUPeriod": "CpuPeriod",
    "CPUQuota": "CpuQuota",
    "CPURealtimePeriod": "CpuRealtimePeriod",
    "CPURealtimeRuntime": "CpuRealtimeRuntime",
    "CPUCount": "CpuCount",
    "CPUPercent": "CpuPercent",
    "DNS": "Dns",
    "DNSOptions": "DnsOptions",
    "DNSSearch": "DnsSearch",
    "HostIP": "HostIp",
    "StdinOnce": "StdinOnce",
}
"""Go's names of fields where the JSON key differs."""


_NOTHING: dict[str, Any] = {}

_ABSENT: dict[str, dict[str, Any]] = {
    "": {"SizeRw": None, "SizeRootFs": None, "ImageManifestDescriptor": None},
    "State": {"Health": None},
    "Config": {
        "ArgsEscaped": False,
        "ExposedPorts": NoMap(),
        "Healthcheck": None,
        "MacAddress": "",
        "NetworkDisabled": False,
        "Shell": NoList(),
        "StopSignal": "",
        "StopTimeout": None,
    },
    "HostConfig": {
        "Annotations": NoMap(),
        "Capabilities": NoList(),
        "DeviceRequests": NoList(),
        "Devices": NoList(),
        "Init": None,
        "IpcMode": "",
        "Isolation": "",
        "MemorySwappiness": None,
        "Mounts": NoList(),
        "OomKillDisable": None,
        "PidsLimit": None,
        "Runtime": "",
        "StorageOpt": NoMap(),
        "Sysctls": NoMap(),
        "Tmpfs": NoMap(),
        "Ulimits": NoList(),
    },
    "NetworkSettings": {"IPAddress": "", "Gateway": "", "MacAddress": ""},
    "Healthcheck": {
        "Test": NoList(),
        "Interval": 0,
        "Timeout": 0,
        "StartPeriod": 0,
        "StartInterval": 0,
        "Retries": 0,
    },
}
"""By a struct's key, the fields that a document leaves out when they have no value."""


def shaped(value: Any, name: str = "") -> Any:
    """``value`` with structs marked and absent maps and lists made empty. ``name``: its key."""
    if isinstance(value, dict):
        if name in MAPS or (name == "Config" and all(isinstance(one, str) for one in value.values())):
            return {key: shaped(item, "") for key, item in value.items()}
        fields = ((key, shaped(item, key)) for key, item in value.items())
        return Struct(fields, _ABSENT.get(name, _NOTHING))
    if isinstance(value, list):
        return [shaped(item, "") for item in value]
    if value is None:
        return NoMap() if name in MAPS else NoList() if name in LISTS else None
    if type(value) is int:
        return Number(value)
    return value
