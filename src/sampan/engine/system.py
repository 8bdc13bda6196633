"""The engine as a whole: what it is, what it has, what it takes of the disk."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from sampan import __version__
from sampan.engine import runtimes
from sampan.engine.model import Container, Event, EventType, Status
from sampan.engine.security import UNCONFINED
from sampan.errors import Unavailable
from sampan.linux import landlock
from sampan.linux.diskspace import Space
from sampan.sandbox import cgroups
from sampan.sandbox.cgroups import Features

if TYPE_CHECKING:
    from sampan.engine.events import Events
    from sampan.engine.ports import Snapshots
    from sampan.engine.settings import Settings
    from sampan.engine.store import ContainerStore
    from sampan.images.drivers import Driver

API_VERSION = "1.56"
MINIMUM_API_VERSION = "1.24"


class SystemInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What ``info`` tells, apart from what is the same for every engine of this kind. Sizes are bytes."""

    id: str
    name: str
    containers: int
    containers_running: int
    containers_paused: int
    containers_stopped: int
    images: int
    driver: str
    root_dir: str
    events_listeners: int
    system_time_ns: int
    kernel_version: str
    operating_system: str
    os_version: str
    architecture: str
    cpu_count: int
    memory_total: int
    server_version: str
    cgroup_driver: str
    cgroup_version: str
    logging_driver: str
    default_runtime: str
    runtimes: dict[str, tuple[str, ...]]
    security_options: tuple[str, ...]
    features: Features
    driver_status: tuple[tuple[str, str], ...]
    ip_forwarding: bool
    debug: bool
    labels: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class SystemVersion(msgspec.Struct, frozen=True, kw_only=True):
    """What ``version`` tells."""

    version: str
    api_version: str
    minimum_api_version: str
    python_version: str
    kernel_version: str
    architecture: str
    os: str = "linux"


class ContainerUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What a container's writable layer takes of the disk."""

    container: Container
    space: Space


def detected() -> Features:
    """What the host's cgroups can do; nothing where it has none."""
    try:
        return cgroups.detect().features
    except Unavailable:
        return Features()


def lacking(features: Features, cgroup_version: str) -> Iterator[str]:
    """The limits that the host cannot set, in dockerd's words and order."""
    first_version = cgroup_version == "1"
    for has, what in (
        (features.memory_limit, "memory limit"),
        (features.swap_limit, "swap limit"),
        (features.oom_kill_disable or not first_version, "oom kill disable"),
        (features.cpu_quota, "cpu cfs quota"),
        (features.cpu_quota, "cpu cfs period"),
        (features.cpu_shares, "cpu shares"),
        (features.cpuset, "cpuset"),
        (features.pids_limit, "pids limit"),
        (features.blkio_throttle, "blkio throttle"),
        (features.devices, "device access"),
    ):
        if not has:
            yield what


class System:
    """Answers about the engine."""

    def __init__(
        self,
        *,
        store: ContainerStore,
        snapshots: Snapshots,
        events: Events,
        count_images: Callable[[], int],
        driver: Driver,
        settings: Settings,
        features: Callable[[], Features] = detected,
        shortcomings: Callable[[], Iterable[str]] = tuple,
        low_disk: Callable[[], str] = str,
    ) -> None:
        self._low_disk = low_disk
        self._features = features
        self._shortcomings = shortcomings
        self._driver = driver
        self._store = store
        self._snapshots = snapshots
        self._events = events
        self._count_images = count_images
        self._settings = settings

    def info(self) -> SystemInfo:
        settings = self._settings
        facts, options = settings.facts, settings.options
        statuses = self.statuses()
        running, paused = statuses.count(Status.RUNNING), statuses.count(Status.PAUSED)
        return SystemInfo(
            id=self.identity(),
            name=facts.hostname,
            containers=len(statuses),
            containers_running=running,
            containers_paused=paused,
            containers_stopped=len(statuses) - running - paused,
            images=self._count_images(),
            driver=self._driver.name,
            root_dir=settings.paths.data,
            events_listeners=self._events.subscribers,
            system_time_ns=settings.now(),
            kernel_version=facts.kernel_version,
            operating_system=facts.operating_system,
            os_version=facts.os_version,
            architecture=facts.architecture,
            cpu_count=facts.cpu_count,
            memory_total=facts.memory_total,
            server_version=__version__,
            cgroup_driver="cgroupfs",
            cgroup_version=facts.cgroup_version,
            logging_driver=options.log_driver,
            default_runtime=options.default_runtime,
            runtimes=runtimes.listed(options),
            security_options=self._security_options(),
            features=self._features(),
            driver_status=self._driver.status(),
            ip_forwarding=facts.ip_forwarding(),
            debug=options.debug,
            labels=options.labels,
            warnings=self._warnings(),
        )

    def version(self) -> SystemVersion:
        facts = self._settings.facts
        return SystemVersion(
            version=__version__,
            api_version=API_VERSION,
            minimum_api_version=MINIMUM_API_VERSION,
            python_version=platform.python_version(),
            kernel_version=facts.kernel_version,
            architecture=facts.architecture,
        )

    def identity(self) -> str:
        """An id of this engine that stays: from the machine's and the data root."""
        try:
            with open("/etc/machine-id", encoding="ascii") as file:
                machine = file.read().strip()
        except OSError:
            machine = os.uname().nodename
        digest = hashlib.sha256(f"{machine}:{self._settings.paths.data}".encode()).hexdigest()
        return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"

    def reloaded(self, settings: Mapping[str, object]) -> Event:
        """The event that tells of a reload; ``settings`` are those of the daemon by name."""
        spelled = {key: msgspec.json.encode(value).decode().strip('"') for key, value in settings.items()}
        return Event(
            type=EventType.DAEMON,
            action="reload",
            actor_id=self.identity(),
            attributes={"name": self._settings.facts.hostname, **spelled},
        )

    def containers(self) -> list[Container]:
        """Every container there is, in no order."""
        return [instance.container for instance in self._store]

    def statuses(self) -> list[Status]:
        """The state of every container, in no order."""
        return [instance.state.status for instance in self._store]

    async def container_usage(self, containers: Iterable[Container] | None = None) -> list[ContainerUsage]:
        """Containers, by default all there are, with the space of their writable layers."""
        wanted = self.containers() if containers is None else list(containers)
        spaces = await self._snapshots.usage(found.id for found in wanted)
        return [ContainerUsage(container=found, space=spaces[found.id]) for found in wanted]

    def _warnings(self) -> tuple[str, ...]:
        facts, features = self._settings.facts, self._features()
        found = [f"WARNING: No {what} support" for what in lacking(features, facts.cgroup_version)]
        if not landlock.usable():
            found.append("WARNING: No landlock support")
        if not facts.ip_forwarding():
            found.append("WARNING: IPv4 forwarding is disabled")
        if self._settings.options.userns == "private" and facts.idmaps.lacking:
            found.append(f"WARNING: Containers have the host's user ids: {facts.idmaps.lacking}")
        found += [f"WARNING: {what}" for what in self._shortcomings()]
        if low := self._low_disk():
            found.append(f"WARNING: {low}")
        return tuple(found)

    def _security_options(self) -> tuple[str, ...]:
        options = self._settings.options
        profile = options.seccomp_profile
        shown = "builtin" if profile is None else profile if profile == UNCONFINED else "custom"
        found = [f"name=seccomp,profile={shown}"]
        if options.no_new_privileges:
            found.append("name=no-new-privileges")
        if options.userns == "private" and not self._settings.facts.idmaps.lacking:
            found.append("name=userns")
        found.append("name=cgroupns")
        return tuple(found)
