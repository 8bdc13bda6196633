"""From a recorded container to what the runtime is told to run, and giving back what that took.

``prepare`` takes an address and a range of ids; ``release`` gives them back, any number of times.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sampan.engine import capabilities, files, oci, security
from sampan.engine.logfiles import log_file_limits
from sampan.engine.model import Container, EndpointSettings, HostConfig, NetworkSettings
from sampan.engine.validation import OWN_NETWORKS
from sampan.errors import InvalidArgument, NotFound
from sampan.sandbox.messages import Endpoint, Launch, LogFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.engine.idranges import IdRanges
    from sampan.engine.ports import Bridges, Catalog, SeccompFilters, Snapshots, VolumeStore
    from sampan.engine.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where a container's parts come from."""

    catalog: Catalog
    snapshots: Snapshots
    volumes: VolumeStore
    filters: SeccompFilters


class Launches:
    """Makes launch requests."""

    def __init__(
        self,
        *,
        sources: Sources,
        bridges: Bridges,
        network_id: Callable[[str], str],
        id_ranges: IdRanges,
        settings: Settings,
    ) -> None:
        self._sources = sources
        self._bridges = bridges
        self._network_id = network_id
        self._id_ranges = id_ranges
        self._settings = settings
        self._available = capabilities.held_by_daemon()

    @property
    def available(self) -> frozenset[str]:
        """The capabilities that this engine can give."""
        return self._available

    async def prepare(self, container: Container) -> tuple[Launch, Container]:
        """The request, and the container with the network and ids that it has while it runs.

        On any failure everything taken is given back.
        """
        try:
            return await self._prepare(container)
        except BaseException:
            await self.release(container.id)
            raise

    async def _prepare(self, container: Container) -> tuple[Launch, Container]:
        sources, settings = self._sources, self._settings
        host = container.host
        if host.network_mode not in OWN_NETWORKS:
            raise NotFound(f"failed to set up container networking: network {host.network_mode} not found")
        # Not by the image: a container outlives the removal of its image.
        root = sources.snapshots.mounts(container.id)
        endpoint = await self._connect(container)
        id_map = self._id_map(container, largest=sources.snapshots.max_id(container.id))
        network_id = self._network_id(host.network_mode)
        container = connected(container, endpoint, network_id, id_map)
        placed = files.write(container, settings, endpoint)
        for point in container.mounts:
            _ensure_bind_source(point.type, point.source, point.origin)
        spec = oci.build(
            container,
            oci.Circumstances(
                sources={
                    point.name: sources.volumes.mount_source(point.name)
                    for point in container.mounts
                    if point.type == "volume"
                },
                files=placed,
                cgroup_path=self._cgroup_path(container),
                ulimits=settings.options.ulimits,
                available=self._available,
                no_new_privileges=settings.options.no_new_privileges,
                id_map=id_map,
            ),
        )
        launch = Launch(
            id=container.id,
            bundle=settings.paths.bundle(container.id),
            state=settings.paths.container(container.id),
            spec=spec,
            root=root,
            user=container.config.user,
            group_add=host.group_add or (),
            seccomp_filter=await self._filter(container, spec["process"]["capabilities"]["bounding"]),
            endpoint=endpoint,
            open_stdin=container.config.open_stdin,
            stdin_once=container.config.stdin_once,
            log=self._log(container),
            init=bool(settings.options.init if host.init is None else host.init),
            console_size=host.console_size if any(host.console_size) else None,
        )
        return launch, container

    async def release(self, container_id: str) -> None:
        """Give the container's address and ids back. Idempotent."""
        self._id_ranges.release(container_id)
        await self._bridges.release(container_id)

    async def _connect(self, container: Container) -> Endpoint | None:
        if container.host.network_mode != "bridge" or container.config.network_disabled:
            return None
        asked = container.network.networks.get("bridge")
        given_mac = container.config.mac_address or _requested_mac(asked)
        return await self._bridges.connect(container.id, mac=given_mac or None)

    def _id_map(self, container: Container, *, largest: int) -> tuple[int, int] | None:
        if not private_users(container.host, default=self._settings.options.userns):
            return None
        span = max(self._settings.options.id_range, largest + 1)
        return self._id_ranges.lease(container.id, span)

    def _cgroup_path(self, container: Container) -> str:
        parent = container.host.cgroup_parent or self._settings.options.cgroup_parent
        return f"/{parent.strip('/')}/{container.id}"

    async def _filter(self, container: Container, held: list[str]) -> str | None:
        host = container.host
        options = security.parse(host.security_opt or (), apparmor_enabled=True)
        profile = self._settings.options.seccomp_profile if options.seccomp is None else options.seccomp
        if host.privileged or profile == security.UNCONFINED:
            return None
        return await self._sources.filters.path(profile, frozenset(held))

    def _log(self, container: Container) -> LogFile | None:
        limits = log_file_limits(container.host.log_config, self._settings.options.log_options)
        if limits is None:
            return None
        return LogFile(path=container.log_path, max_size=limits[0], max_files=limits[1])


def private_users(host: HostConfig, *, default: str) -> bool:
    """Whether the container gets a user namespace of its own.

    Sharing one of the host's namespaces or being privileged means the host's ids, as in Docker.
    """
    if host.userns_mode in ("host", "private"):
        mode = host.userns_mode
    else:
        mode = default
    shares_host = "host" in (host.network_mode, host.pid_mode, host.ipc_mode, host.uts_mode)
    return mode == "private" and not host.privileged and not shares_host


def _requested_mac(asked: EndpointSettings | None) -> str:
    # What a former start was given is no request; an endpoint id marks it.
    return asked.mac_address if asked is not None and not asked.endpoint_id else ""


def connected(
    container: Container, endpoint: Endpoint | None, network_id: str, id_map: tuple[int, int] | None
) -> Container:
    """The container with what a start gives it; see ``disconnected``."""
    base, span = id_map or (0, 0)
    container = replace(container, state=replace(container.state, id_base=base, id_span=span))
    mode = container.host.network_mode
    if container.config.network_disabled:
        return container
    settings = replace(container.network.networks.get(mode) or EndpointSettings(), network_id=network_id)
    if endpoint is not None:
        address, _, prefix = (endpoint.addresses[0] if endpoint.addresses else "").partition("/")
        settings = replace(
            settings,
            mac_address=endpoint.mac,
            gateway=endpoint.gateway or "",
            ip_address=address,
            ip_prefix_len=int(prefix or 0),
            endpoint_id=container.id[::-1],
        )
    network = NetworkSettings(
        sandbox_id=container.id, networks={mode: settings}, ports=container.network.ports
    )
    return replace(container, network=network)


def disconnected(container: Container) -> Container:
    """The container without what a start had given it: the address, the ids."""
    mode = container.host.network_mode
    settings = container.network.networks.get(mode)
    state = replace(container.state, id_base=0, id_span=0)
    if settings is None:
        return replace(container, state=state)
    bare = replace(
        settings,
        mac_address="" if settings.endpoint_id else settings.mac_address,
        gateway="",
        ip_address="",
        ip_prefix_len=0,
        endpoint_id="",
    )
    return replace(container, state=state, network=NetworkSettings(networks={mode: bare}))


def _ensure_bind_source(kind: str, source: str, origin: str) -> None:
    """Make the missing source directory of a ``-v`` bind, as Docker does; ``--mount`` never creates one."""
    if kind != "bind" or os.path.lexists(source):
        return
    if origin != "bind":
        raise InvalidArgument(
            f'invalid mount config for type "bind": bind source path does not exist: {source}'
        )
    try:
        os.makedirs(source, mode=0o755, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InvalidArgument(
            f"error while creating mount source path '{source}': mkdir {source}: {reason}"
        ) from error
