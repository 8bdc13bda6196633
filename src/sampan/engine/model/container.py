"""A container as a value. Every change makes a new value, which replaces the old one in the store.

Times are nanoseconds since the epoch, 0 for "never"; the api renders them as Docker does.
"""

from __future__ import annotations

import enum

import msgspec

from sampan.engine.model.container_config import ContainerConfig
from sampan.engine.model.health import Health
from sampan.engine.model.host_config import HostConfig
from sampan.engine.model.networking import NetworkSettings

OWNER = "sampan.owner"
"""The label that says which group's something is, at the doors of groups (`api.confined`)."""


class Status(enum.StrEnum):
    """Docker's words for a container's state."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


class Cause(enum.StrEnum):
    """Why the engine itself ends a run, or has ended the last one."""

    NONE = ""
    UNHEALTHY = "unhealthy"
    TIMEOUT = "timeout"


class ContainerState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a container is in its life. ``pid`` is 0 unless it runs (or is paused).

    ``id_base`` is the host's id of the container's root while it runs in a user namespace of its own with
    ``id_span`` ids; 0 without one. ``host_ids`` says why it has, or will have, the ids of the host; empty
    if it has not.
    """

    status: Status = Status.CREATED
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: int = 0
    finished_at: int = 0
    id_base: int = 0
    id_span: int = 0
    host_ids: str = ""
    health: Health | None = None  # None until a container with a health check was started
    cause: Cause = Cause.NONE

    @property
    def running(self) -> bool:
        """It has a process. A paused container counts as running, as in Docker."""
        return self.status is Status.RUNNING or self.status is Status.PAUSED

    @property
    def active(self) -> bool:
        """It runs, or waits to be started again: what has to be stopped before it is removed."""
        return self.running or self.status is Status.RESTARTING

    @property
    def paused(self) -> bool:
        return self.status is Status.PAUSED


class MountPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One mount of a container, settled at create.

    ``type`` is bind, volume, tmpfs or image; ``name`` and ``driver`` are a volume's; ``mode`` are the options
    as the user gave them; ``propagation`` a bind's. ``origin`` says which flag asked for it: ``bind``
    (``-v``), ``mount`` (``--mount``), ``tmpfs`` (``--tmpfs``), ``image`` (a VOLUME of the image; also
    ``-v /path``) or ``from`` (``--volumes-from``). tmpfs mounts asked for by ``--tmpfs`` are not listed by
    inspect, as in Docker. ``subpath`` is below the source of a volume or an image; ``create_source``: a
    bind's missing source is made. The source of an image is its id, its name the reference as given.
    """

    type: str
    destination: str
    source: str = ""
    subpath: str = ""
    create_source: bool = False
    name: str = ""
    driver: str = ""
    mode: str = ""
    rw: bool = True
    propagation: str = ""
    origin: str = "bind"
    no_copy: bool = False
    non_recursive: bool = False
    read_only_non_recursive: bool = False
    anonymous: bool = False
    options: str = ""  # a tmpfs's mount options, comma-separated


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """A container. ``name`` has no leading slash; ``image_id`` is "sha256:…", ``config.image`` as asked."""

    id: str
    name: str
    created: int
    path: str
    args: tuple[str, ...]
    image_id: str
    config: ContainerConfig
    host: HostConfig
    state: ContainerState = ContainerState()
    network: NetworkSettings = NetworkSettings()
    mounts: tuple[MountPoint, ...] = ()
    restart_count: int = 0
    has_been_manually_stopped: bool = False
    hostname_path: str = ""
    hosts_path: str = ""
    resolv_conf_path: str = ""
    log_path: str = ""
    exec_ids: tuple[str, ...] = ()
    temporary: bool = False
    """Whether it is a step of a build: shown to nobody, and gone when the daemon starts."""
    platform: str = "linux"
    driver: str = "overlay2"


class Created(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to create."""

    id: str
    warnings: tuple[str, ...] = ()


class ExitStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to wait; ``error`` is empty unless waiting itself failed."""

    code: int
    error: str = ""


class WaitCondition(enum.StrEnum):
    NOT_RUNNING = "not-running"
    NEXT_EXIT = "next-exit"
    REMOVED = "removed"


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What a prune removed, and the bytes it freed."""

    ids: tuple[str, ...] = ()
    space_reclaimed: int = 0
