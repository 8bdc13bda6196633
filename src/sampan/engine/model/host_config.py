"""How a container should run on this host: Docker's HostConfig, in Docker's field order.

Defaults are those of an empty Go struct; what Docker fills in at create (shm size, log driver, cgroup
namespace, masked paths …) is filled in by ``engine.defaults``. Sizes are bytes, CPU periods and quotas
microseconds, ``nano_cpus`` billionths of a core.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from sampan.engine.model.networking import PortBinding


class LogConfig(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    type: str = ""
    config: dict[str, str] | None = None


class RestartPolicy(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    name: str = ""
    maximum_retry_count: int = 0


class WeightDevice(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    path: str = ""
    weight: int = 0


class ThrottleDevice(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    path: str = ""
    rate: int = 0


class DeviceMapping(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class DeviceRequest(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    driver: str = ""
    count: int = 0
    device_ids: tuple[str, ...] | None = msgspec.field(default=None, name="DeviceIDs")
    capabilities: tuple[tuple[str, ...], ...] | None = None
    options: dict[str, str] | None = None


class Ulimit(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    name: str = ""
    hard: int = 0
    soft: int = 0


class BindOptions(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class DriverConfig(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    name: str = ""
    options: dict[str, str] | None = None


class VolumeOptions(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    no_copy: bool = False
    labels: dict[str, str] | None = None
    driver_config: DriverConfig | None = None
    subpath: str = ""


class ImageOptions(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    subpath: str = ""


class TmpfsOptions(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    size_bytes: int = 0
    mode: int = 0  # permission bits as a number, 0 for the default 1777
    options: tuple[tuple[str, ...], ...] | None = None


class Mount(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    """One ``--mount``: type bind, volume, tmpfs (image, npipe, cluster are refused)."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    image_options: ImageOptions | None = None
    tmpfs_options: TmpfsOptions | None = None


class HostConfig(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """Docker's HostConfig, API v1.24 to v1.56."""

    OMITTED_WHEN_EMPTY: ClassVar[frozenset[str]] = frozenset(
        {
            "Annotations",
            "StorageOpt",
            "Tmpfs",
            "Sysctls",
            "Runtime",
            "KernelMemory",
            "KernelMemoryTCP",
            "Mounts",
            "Init",
        }
    )

    binds: tuple[str, ...] | None = None
    container_id_file: str = msgspec.field(default="", name="ContainerIDFile")
    log_config: LogConfig = LogConfig()
    network_mode: str = ""
    port_bindings: dict[str, tuple[PortBinding, ...] | None] | None = None
    restart_policy: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: tuple[str, ...] | None = None
    console_size: tuple[int, int] = (0, 0)  # height, width
    annotations: dict[str, str] | None = None
    cap_add: tuple[str, ...] | None = None
    cap_drop: tuple[str, ...] | None = None
    cgroupns_mode: str = ""
    dns: tuple[str, ...] | None = None
    dns_options: tuple[str, ...] | None = None
    dns_search: tuple[str, ...] | None = None
    extra_hosts: tuple[str, ...] | None = None
    group_add: tuple[str, ...] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: tuple[str, ...] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: tuple[str, ...] | None = None
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = msgspec.field(default="", name="UTSMode")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: tuple[WeightDevice, ...] | None = None
    blkio_device_read_bps: tuple[ThrottleDevice, ...] | None = None
    blkio_device_write_bps: tuple[ThrottleDevice, ...] | None = None
    blkio_device_read_iops: tuple[ThrottleDevice, ...] | None = msgspec.field(
        default=None, name="BlkioDeviceReadIOps"
    )
    blkio_device_write_iops: tuple[ThrottleDevice, ...] | None = msgspec.field(
        default=None, name="BlkioDeviceWriteIOps"
    )
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: tuple[DeviceMapping, ...] | None = None
    device_cgroup_rules: tuple[str, ...] | None = None
    device_requests: tuple[DeviceRequest, ...] | None = None
    kernel_memory: int = 0
    kernel_memory_tcp: int = msgspec.field(default=0, name="KernelMemoryTCP")
    memory_reservation: int = 0
    memory_swap: int = 0  # memory + swap; -1: unlimited
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: tuple[Ulimit, ...] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = msgspec.field(default=0, name="IOMaximumIOps")
    io_maximum_bandwidth: int = msgspec.field(default=0, name="IOMaximumBandwidth")
    mounts: tuple[Mount, ...] | None = None
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    init: bool | None = None
