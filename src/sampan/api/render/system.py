"""The engine as a whole: version, info, disk usage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sampan.api.render import container as render_container
from sampan.api.render import image as render_image
from sampan.api.render.times import rfc3339
from sampan.registry import proxies

if TYPE_CHECKING:
    from sampan.engine.buildusage import CacheRecord
    from sampan.engine.images import ImagesUsage
    from sampan.engine.model.volumes import VolumeUsage
    from sampan.engine.system import ContainerUsage, SystemInfo, SystemVersion

JSONObject = dict[str, Any]
Version = tuple[int, int]

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}

_NO_SWARM: JSONObject = {
    "NodeID": "",
    "NodeAddr": "",
    "LocalNodeState": "inactive",
    "ControlAvailable": False,
    "Error": "",
    "RemoteManagers": None,
}
_REGISTRIES: JSONObject = {
    "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"],
    "IndexConfigs": {
        "docker.io": {"Name": "docker.io", "Mirrors": [], "Secure": True, "Official": True},
    },
    "Mirrors": None,
}
_PLUGINS: JSONObject = {
    "Volume": ["local"],
    "Network": ["bridge", "host", "null"],
    "Authorization": None,
    "Log": ["json-file", "none"],
}
_NO_COMMIT = {"ID": ""}


def version(found: SystemVersion) -> JSONObject:
    """GET /version. The fields about Go tell the Python that runs the engine."""
    architecture = _ARCHITECTURES.get(found.architecture, found.architecture)
    language = f"python{found.python_version}"
    return {
        "Platform": {"Name": "Sampan"},
        "Components": [
            {
                "Name": "Engine",
                "Version": found.version,
                "Details": {
                    "ApiVersion": found.api_version,
                    "Arch": architecture,
                    "BuildTime": "",
                    "Experimental": "false",
                    "GitCommit": "",
                    "GoVersion": language,
                    "KernelVersion": found.kernel_version,
                    "MinAPIVersion": found.minimum_api_version,
                    "Os": found.os,
                },
            }
        ],
        "Version": found.version,
        "ApiVersion": found.api_version,
        "MinAPIVersion": found.minimum_api_version,
        "GitCommit": "",
        "GoVersion": language,
        "Os": found.os,
        "Arch": architecture,
        "KernelVersion": found.kernel_version,
        "BuildTime": "",
    }


def info(found: SystemInfo, version: Version, *, descriptors: int) -> JSONObject:
    """GET /info; ``descriptors`` is how many this process has open."""
    features = found.features
    http_proxy, https_proxy, no_proxy = proxies.shown()
    shown: JSONObject = {
        "ID": found.id,
        "Containers": found.containers,
        "ContainersRunning": found.containers_running,
        "ContainersPaused": found.containers_paused,
        "ContainersStopped": found.containers_stopped,
        "Images": found.images,
        "Driver": found.driver,
        "DriverStatus": found.driver_status,
        "Plugins": _PLUGINS,
        "MemoryLimit": features.memory_limit,
        "SwapLimit": features.swap_limit,
        "CpuCfsPeriod": features.cpu_quota,
        "CpuCfsQuota": features.cpu_quota,
        "CPUShares": features.cpu_shares,
        "CPUSet": features.cpuset,
        "PidsLimit": features.pids_limit,
        "IPv4Forwarding": found.ip_forwarding,
        "Debug": found.debug,
        "NFd": descriptors,
        "OomKillDisable": features.oom_kill_disable,
        "NGoroutines": 0,
        "SystemTime": rfc3339(found.system_time_ns),
        "LoggingDriver": found.logging_driver,
        "CgroupDriver": found.cgroup_driver,
        "CgroupVersion": found.cgroup_version,
        "NEventsListener": found.events_listeners,
        "KernelVersion": found.kernel_version,
        "OperatingSystem": found.operating_system,
        "OSVersion": found.os_version,
        "OSType": "linux",
        "Architecture": found.architecture,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": _REGISTRIES,
        "NCPU": found.cpu_count,
        "MemTotal": found.memory_total,
        "GenericResources": None,
        "DockerRootDir": found.root_dir,
        "HttpProxy": http_proxy,
        "HttpsProxy": https_proxy,
        "NoProxy": no_proxy,
        "Name": found.name,
        "Labels": found.labels,
        "ExperimentalBuild": False,
        "ServerVersion": found.server_version,
        "Runtimes": {name: _runtime(*words) for name, words in found.runtimes.items()},
        "DefaultRuntime": found.default_runtime,
        "Swarm": _NO_SWARM,
        "LiveRestoreEnabled": True,
        "Isolation": "",
        "InitBinary": "",
        "ContainerdCommit": _NO_COMMIT,
        "RuncCommit": _NO_COMMIT,
        "InitCommit": _NO_COMMIT,
        "SecurityOptions": found.security_options,
        "CDISpecDirs": None,
        "Warnings": found.warnings or None,
    }
    if version < (1, 42):
        shown["KernelMemory"] = shown["KernelMemoryTCP"] = False
        shown["SystemStatus"] = None
    if version < (1, 50):
        shown["BridgeNfIptables"] = shown["BridgeNfIp6tables"] = False
    return shown


def _runtime(path: str, *arguments: str) -> JSONObject:
    return {"path": path, "runtimeArgs": arguments} if arguments else {"path": path}


def disk_usage(
    *,
    images: ImagesUsage | None,
    containers: Sequence[ContainerUsage] | None,
    volumes: Sequence[VolumeUsage] | None,
    build_cache: Sequence[CacheRecord] | None,
    now: int,
    version: Version,
    verbose: bool,
) -> JSONObject:
    """GET /system/df. None for what was not asked for; ``verbose`` counts from 1.52 on."""
    parts: dict[str, tuple[JSONObject, list[JSONObject]]] = {}
    if images is not None:
        parts["Image"] = _images(images, version)
    if containers is not None:
        parts["Container"] = _containers(containers, now, version)
    if volumes is not None:
        parts["Volume"] = _volumes(volumes)
    if build_cache is not None:
        parts["BuildCache"] = _build_cache(build_cache)
    if version >= (1, 52):
        return {
            f"{name}Usage": {**usage, "Items": items} if verbose and items else usage
            for name, (usage, items) in parts.items()
        }
    shown: JSONObject = {}
    if "Image" in parts:
        shown["LayersSize"] = parts["Image"][0]["TotalSize"]
    plural = {"Image": "Images", "Container": "Containers", "Volume": "Volumes", "BuildCache": "BuildCache"}
    shown.update({plural[name]: items for name, (_, items) in parts.items()})
    if version < (1, 42):
        shown["BuilderSize"] = 0
    return shown


def _build_cache(records: Sequence[CacheRecord]) -> tuple[JSONObject, list[JSONObject]]:
    items: list[JSONObject] = [
        {
            "ID": record.identity,
            "Type": record.kind,
            "Description": record.words,
            "InUse": record.in_use,
            "Shared": record.shared,
            "Size": record.size,
            "CreatedAt": rfc3339(record.created_ns),
            "LastUsedAt": rfc3339(record.used_ns),
            "UsageCount": 1,
        }
        for record in records
    ]
    own = [record for record in records if not record.shared]
    usage = _usage(
        active=sum(record.in_use for record in records),
        total=len(items),
        size=sum(record.size for record in own),
        reclaimable=sum(record.size for record in own if not record.in_use),
    )
    return usage, items


def _usage(*, active: int, total: int, size: int, reclaimable: int) -> JSONObject:
    return {"ActiveCount": active, "TotalCount": total, "TotalSize": size, "Reclaimable": reclaimable}


def _images(found: ImagesUsage, version: Version) -> tuple[JSONObject, list[JSONObject]]:
    items = [render_image.summary(one, version) for one in found.summaries]
    active = sum(1 for one in found.summaries if one.containers > 0)
    usage = _usage(
        active=active,
        total=len(items),
        size=found.total,
        reclaimable=found.total - found.held,
    )
    return usage, items


def _containers(
    found: Sequence[ContainerUsage], now: int, version: Version
) -> tuple[JSONObject, list[JSONObject]]:
    items = []
    for one in found:
        item = render_container.summary(one.container, now, version)
        item["SizeRw"] = one.space.occupied
        items.append(item)
    running = [one for one in found if one.container.state.running]
    total = sum(one.space.occupied for one in found)
    usage = _usage(
        active=len(running),
        total=len(found),
        size=total,
        reclaimable=total - sum(one.space.occupied for one in running),
    )
    return usage, items


def _volumes(found: Sequence[VolumeUsage]) -> tuple[JSONObject, list[JSONObject]]:
    items = [
        {
            "CreatedAt": rfc3339(one.volume.created_ns),
            "Driver": one.volume.driver,
            "Labels": one.volume.labels,
            "Mountpoint": one.volume.mountpoint,
            "Name": one.volume.name,
            "Options": None,
            "Scope": "local",
            "UsageData": {"RefCount": one.references, "Size": one.size},
        }
        for one in found
    ]
    used = [one for one in found if one.references]
    total = sum(one.size for one in found)
    return _usage(
        active=len(used), total=len(found), size=total, reclaimable=total - sum(one.size for one in used)
    ), items
