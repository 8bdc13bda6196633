"""The engine's values, shared by use cases and api. Split by subject; import them from here."""

from sampan.engine.model.container import (
    Cause,
    Container,
    ContainerState,
    Created,
    ExitStatus,
    MountPoint,
    Pruned,
    Status,
    WaitCondition,
)
from sampan.engine.model.container_config import ContainerConfig, HealthConfig
from sampan.engine.model.events import Event, EventType
from sampan.engine.model.execs import Exec, ExecConfig
from sampan.engine.model.health import Health, HealthStatus, ProbeResult
from sampan.engine.model.host_config import (
    BindOptions,
    DeviceMapping,
    DeviceRequest,
    DriverConfig,
    HostConfig,
    ImageOptions,
    LogConfig,
    Mount,
    RestartPolicy,
    ThrottleDevice,
    TmpfsOptions,
    Ulimit,
    VolumeOptions,
    WeightDevice,
)
from sampan.engine.model.networking import (
    EndpointIPAMConfig,
    EndpointSettings,
    NetworkingConfig,
    NetworkSettings,
    PortBinding,
)
from sampan.engine.model.queries import Filters, ListQuery, LogQuery

__all__ = [
    "BindOptions",
    "Cause",
    "Container",
    "ContainerConfig",
    "ContainerState",
    "Created",
    "DeviceMapping",
    "DeviceRequest",
    "DriverConfig",
    "EndpointIPAMConfig",
    "EndpointSettings",
    "Event",
    "EventType",
    "Exec",
    "ExecConfig",
    "ExitStatus",
    "Filters",
    "Health",
    "HealthConfig",
    "HealthStatus",
    "HostConfig",
    "ImageOptions",
    "ListQuery",
    "LogConfig",
    "LogQuery",
    "Mount",
    "MountPoint",
    "NetworkSettings",
    "NetworkingConfig",
    "PortBinding",
    "ProbeResult",
    "Pruned",
    "RestartPolicy",
    "Status",
    "ThrottleDevice",
    "TmpfsOptions",
    "Ulimit",
    "VolumeOptions",
    "WaitCondition",
    "WeightDevice",
]
