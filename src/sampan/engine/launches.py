"""From a recorded container to what the runtime is told to run, and giving back what that took.

``prepare`` takes an address and a range of ids; ``release`` gives them back, any number of times.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sampan.engine import capabilities, cdi, endpoints, files, oci, propagation, runtimes, security, timeouts
from sampan.engine.endpoints import interfaces_of
from sampan.engine.killing import stop_signal
from sampan.engine.model import Container, HostConfig, MountPoint
from sampan.errors import InvalidArgument
from sampan.images.snapshots import part
from sampan.sandbox.messages import Launch, TimeLimit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sampan.engine.cdi import Edits
    from sampan.engine.egress import Egress
    from sampan.engine.endpoints import Places
    from sampan.engine.links import Links
    from sampan.engine.ports import Bridges, Catalog, SeccompFilters, Snapshots, Task, VolumeStore
    from sampan.engine.publishing import Publishing
    from sampan.engine.sandboxes import Sandboxes
    from sampan.engine.settings import Settings
    from sampan.engine.shipping import Shipping
    from sampan.engine.users import Users


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
        places: Places,
        egress: Egress,
        publishing: Publishing,
        users: Users,
        sandboxes: Sandboxes,
        shipping: Shipping,
        links: Links,
        settings: Settings,
    ) -> None:
        self._sources = sources
        self._links = links
        self._bridges = bridges
        self._places = places
        self._egress = egress
        self._publishing = publishing
        self._users = users
        self._sandboxes = sandboxes
        self._shipping = shipping
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
        joined = self._sandboxes.join(container)
        await self._shipping.connect(container)
        # Not by the image: a container outlives the removal of its image.
        root = sources.snapshots.mounts(container.id)
        names = ""
        places = [] if joined.network is not None else await self._places.take(container)
        plugs = interfaces_of(places, publishes=bool(host.port_bindings or host.publish_all_ports))
        images = _image_parts(container)
        parts = (container.id, *images.values())
        for point in container.mounts:
            _ensure_bind_source(point)
        volumes = {
            point.name: await sources.volumes.hold(point.name, container.id)
            for point in container.mounts
            if point.type == "volume"
        }
        container = _with_sources(container, volumes)
        largest = max(map(sources.snapshots.max_id, parts))
        id_map, reason = self._users.settle(container, joined, image=largest)
        if joined.network is None:
            container = endpoints.connected(with_ids(container, id_map, reason), places)
            linked = self._links.of(container)
            if linked.env:
                container = replace(container, network=replace(container.network, link_env=linked.env))
            await self._egress.hold(container, places, fresh=True)
            container = await self._publishing.publish(container, places)
            names = self._places.admit(container, places)
            placed = files.write(container, settings, plugs, names=bool(names), linked=linked.hosts)
            self._links.readdress(container)
        else:
            container = with_ids(files.sharing(container, joined.network), id_map, reason)
            placed = files.placed(container)
        edits = await _device_edits(host)
        spec = oci.build(
            _with_propagation(container, settings.paths.data),
            oci.Circumstances(
                sources=volumes,
                layers={place: sources.snapshots.layers(key) for place, key in images.items()},
                edits=edits,
                files=placed,
                cgroup_path=self._cgroup_path(container),
                ulimits=settings.options.ulimits,
                available=self._available,
                no_new_privileges=settings.options.no_new_privileges,
                id_map=id_map,
                joined=_joined_paths(joined.paths, id_map),
                ipc_of=joined.ipc.pid if joined.ipc else 0,
            ),
        )
        launch = Launch(
            id=container.id,
            bundle=settings.paths.bundle(container.id),
            state=settings.paths.container(container.id),
            spec=spec,
            root=root,
            user=container.config.user,
            group_add=(*(host.group_add or ()), *(map(str, edits.gids) if edits else ())),
            seccomp_filter=await self._filter(container, spec["process"]["capabilities"]["bounding"]),
            endpoint=plugs[0] if plugs else None,
            more=tuple(plugs[1:]),
            names=names,
            open_stdin=container.config.open_stdin,
            stdin_once=container.config.stdin_once,
            log=self._shipping.copy(container),
            init=bool(settings.options.init if host.init is None else host.init),
            console_size=host.console_size if any(host.console_size) else None,
            limit=self._limit(container),
            neighbours=joined.neighbours,
            host_ids_allowed=self._users.host_ids_allowed,
        )
        return await self._by_runtime(launch, host), container

    async def release(self, container_id: str) -> None:
        """Give the container's address and ids back. Idempotent."""
        self._places.part(container_id)
        await self._publishing.withdraw(container_id)
        await self._shipping.finish(container_id)
        self._users.release(container_id)
        await self._egress.release(container_id)
        await self._bridges.release(container_id)
        if self._sandboxes.outlived(container_id):
            # Its network namespace lives on: the interface would not go by itself.
            await self._bridges.sweep(container_id=container_id)
        await self._sources.volumes.release(container_id)

    def settled(self, container: Container, task: Task) -> Container:
        """The container as it was started, which may be with the host's ids instead of those prepared."""
        if not task.host_ids:
            return container
        self._users.release(container.id)
        return with_ids(container, None, task.host_ids)

    def _cgroup_path(self, container: Container) -> str:
        parent = container.host.cgroup_parent or self._settings.options.cgroup_parent
        return f"/{parent.strip('/')}/{container.id}"

    async def _filter(self, container: Container, held: list[str]) -> str | None:
        host = container.host
        profile = self._profile(host)
        if profile == security.UNCONFINED or host.runtime != runtimes.OURS:
            return None
        return await self._sources.filters.path(profile, frozenset(held))

    def _profile(self, host: HostConfig) -> str | None:
        """The text of the seccomp profile, None for the default one; ``unconfined``."""
        if host.privileged:
            return security.UNCONFINED
        options = security.parse(host.security_opt or ())
        return self._settings.options.seccomp_profile if options.seccomp is None else options.seccomp

    async def _by_runtime(self, launch: Launch, host: HostConfig) -> Launch:
        """The launch as the container's runtime takes it."""
        runtime = runtimes.find(host.runtime, self._settings.options)
        if runtime is None:
            return launch
        held = launch.spec["process"]["capabilities"]["bounding"]
        profile = self._profile(host)
        rules = None if profile == security.UNCONFINED else self._sources.filters.rules(profile, held)
        return runtimes.adapted(launch, runtime, rules)

    def _limit(self, container: Container) -> TimeLimit | None:
        if not container.host.annotations:
            return None
        seconds = container.config.stop_timeout
        if seconds is None:
            seconds = self._settings.options.stop_timeout
        grace = None if seconds < 0 else float(seconds)
        return timeouts.for_keeper(container, signal=stop_signal(container), grace=grace)


def with_ids(container: Container, id_map: tuple[int, int] | None, reason: str) -> Container:
    """The container with the ids that a start gives it: a range, or the host's for a reason."""
    base, span = id_map or (0, 0)
    state = replace(container.state, id_base=base, id_span=span, host_ids=reason)
    return replace(container, state=state)


def _joined_paths(paths: Mapping[str, str], id_map: tuple[int, int] | None) -> dict[str, str]:
    """The joined namespaces; not the user namespace of others for who has the host's ids."""
    return {kind: path for kind, path in paths.items() if kind != "user" or id_map is not None}


def disconnected(container: Container) -> Container:
    """The container without what a start had given it: the address, the ids."""
    state = replace(container.state, id_base=0, id_span=0)
    return endpoints.disconnected(replace(container, state=state))


def _with_sources(container: Container, volumes: Mapping[str, str]) -> Container:
    """The container with the directories of its volumes, which a plugin names when it mounts them."""
    points = tuple(
        replace(point, source=volumes[point.name]) if point.type == "volume" else point
        for point in container.mounts
    )
    return replace(container, mounts=points)


def _with_propagation(container: Container, daemon_root: str) -> Container:
    """The container with what its binds can pass on and take. InvalidArgument where that is not what was
    asked for."""
    points = container.mounts
    if all(point.propagation in ("", "rprivate", "private") for point in points):
        return container
    settled = (
        replace(point, propagation=propagation.settled(point, daemon_root=daemon_root)) for point in points
    )
    return replace(container, mounts=tuple(settled))


def _image_parts(container: Container) -> dict[str, str]:
    """The snapshots that hold the layers of images mounted elsewhere than at the root, by destination."""
    return {
        point.destination: part(container.id, number)
        for number, point in enumerate(container.mounts)
        if point.type == "image"
    }


async def _device_edits(host: HostConfig) -> Edits | None:
    if not host.device_requests:
        return None
    return await asyncio.to_thread(cdi.edits_for, host.device_requests, hooks=host.runtime != runtimes.OURS)


def _ensure_bind_source(point: MountPoint) -> None:
    """Make the missing source directory of a ``-v`` bind, as Docker does; ``--mount`` only if asked to."""
    source = point.source
    if point.type != "bind" or os.path.lexists(source):
        return
    if point.origin != "bind" and not point.create_source:
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
