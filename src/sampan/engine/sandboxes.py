"""The namespaces that a container takes from others: ``--network|--pid|--ipc container:X``.

A sandbox is a user namespace with its range of ids and what belongs to it (network, pid, ipc, uts). The first
container makes it by running; who joins one of its namespaces joins its user namespace too, and then holds
the range as well: the range goes on being leased until the last member has ended. The namespaces themselves
live as long as a process is in them; what X alone gives (its interface and address, and its pid namespace,
with which everything in it ends) ends with X, as in Docker.

Laws: a mode names the full id of X once X has been found; X must run when the container starts; the answer is
true for the moment only, so the launcher proves each process by its cgroup.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sampan.engine.model import Status
from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.sandbox.messages import Neighbour

if TYPE_CHECKING:
    from sampan.engine.model import Container, ContainerConfig, HostConfig
    from sampan.engine.ports import Task
    from sampan.engine.store import ContainerStore, Instance

_PREFIX = "container:"
_PREFIXES = {
    "network": "",
    "pid": "cannot join PID of a non running container: {ref}: ",
    "ipc": "can't join IPC of container {ref}: ",
}

# A mode's field, its namespace in the specification, and its name in /proc/PID/ns.
_KINDS = (("network_mode", "network", "net"), ("pid_mode", "pid", "pid"), ("ipc_mode", "ipc", "ipc"))


# Docker's words for what goes with a network of another container's as little as with its own address.
_CONFLICTS: tuple[tuple[str, Callable[[ContainerConfig, HostConfig], object]], ...] = (
    ("hostname and the network mode", lambda config, _: config.hostname),
    (
        "container type network can't be used with links. This would result in undefined behavior",
        lambda _, host: host.links,
    ),
    ("dns and the network mode", lambda _, host: host.dns),
    ("custom host-to-IP mapping and the network mode", lambda _, host: host.extra_hosts),
    ("mac-address and the network mode", lambda config, _: config.mac_address),
    (
        "port publishing and the container type network mode",
        lambda _, host: host.port_bindings or host.publish_all_ports,
    ),
    ("port exposing and the container type network mode", lambda config, _: config.exposed_ports),
)


def check(config: ContainerConfig, host: HostConfig) -> None:
    """Raise InvalidArgument, in Docker's words, for what contradicts a network of another container's."""
    kind, _, ref = host.network_mode.partition(":")
    if kind != "container":
        return
    if not ref:
        raise InvalidArgument("Invalid network mode: invalid container format container:<name|id>")
    for words, conflicts in _CONFLICTS:
        if conflicts(config, host):
            raise InvalidArgument(f"conflicting options: {words}")


def target(mode: str) -> str | None:
    """X of ``container:X``; None for any other mode."""
    return mode.removeprefix(_PREFIX) if mode.startswith(_PREFIX) else None


def joins(host: HostConfig) -> bool:
    """Whether a namespace of another container is asked for."""
    return any(getattr(host, field).startswith(_PREFIX) for field, _, _ in _KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What a start takes from others. ``paths`` are those of the joined namespaces by their kind.

    ``network`` and ``ipc`` are the containers whose are joined, ``ids`` the range of the user namespace that
    is joined, None when there is none; then ``reason`` says why.
    """

    paths: dict[str, str]
    neighbours: tuple[Neighbour, ...]
    network: Container | None
    ipc: Neighbour | None
    ids: tuple[int, int] | None
    reason: str


NOBODY = Joined(paths={}, neighbours=(), network=None, ipc=None, ids=None, reason="")


class Sandboxes:
    """Finds what is to be joined."""

    def __init__(self, store: ContainerStore) -> None:
        self._store = store
        self._owners: set[str] | None = None  # whose networks others have joined; None until it is asked for

    def resolved(self, host: HostConfig) -> HostConfig:
        """The configuration with every container named by its id. InvalidArgument for one that there is not.

        Not for that of a network, which is missed at the start, as in Docker.
        """
        changes = {}
        for field, kind, _ in _KINDS:
            if ref := target(getattr(host, field)):
                try:
                    changes[field] = _PREFIX + self._store.find(ref).id
                except NotFound as error:
                    if kind != "network":  # not NotFound: a client would pull the image
                        raise InvalidArgument(str(error)) from error
        return replace(host, **changes) if changes else host

    def join(self, container: Container) -> Joined:
        """What the container joins. NotFound or Conflict, in Docker's words, when it cannot."""
        if not joins(container.host):
            return NOBODY
        paths: dict[str, str] = {}
        members: dict[str, Instance] = {}
        for field, kind, name in _KINDS:
            if (ref := target(getattr(container.host, field))) is not None:
                member = self._member(container, kind, ref)
                members[kind] = member
                paths[kind] = f"/proc/{member.state.pid}/ns/{name}"
        neighbours = {kind: _neighbour(member) for kind, member in members.items()}
        ranges = {(member.state.id_base, member.state.id_span) for member in members.values()}
        ids, reason = None, ""
        if len(ranges) > 1:
            reason = "it joins containers whose user ids differ"
        elif (shared := next(iter(ranges)))[1]:
            ids = shared
            paths["user"] = f"/proc/{next(iter(members.values())).state.pid}/ns/user"
        else:
            reason = f"container {next(iter(members.values())).id[:12]}, which it joins, has them"
        network = members.get("network")
        if network is not None:
            self._network_owners().add(network.id)
        return Joined(
            paths=paths,
            neighbours=tuple(dict.fromkeys(neighbours.values())),
            network=network.container if network is not None else None,
            ipc=neighbours.get("ipc"),
            ids=ids,
            reason=reason,
        )

    def outlived(self, container_id: str) -> bool:
        """Whether others may be in the network of this container, which has ended. Told once."""
        owners = self._network_owners()
        if container_id not in owners:
            return False
        owners.discard(container_id)
        return True

    def _network_owners(self) -> set[str]:
        if self._owners is None:
            modes = (one.container.host.network_mode for one in self._store if one.task is not None)
            self._owners = {owner for mode in modes if (owner := target(mode))}
        return self._owners

    def _member(self, container: Container, kind: str, ref: str) -> Instance:
        """The running container whose namespace is joined."""
        prefix = _PREFIXES[kind].format(ref=ref)
        if not ref:
            raise InvalidArgument(f'{prefix}invalid name or ID supplied: ""')
        try:
            member = self._store.find(ref)
        except NotFound as error:
            raise NotFound(f"{prefix}{error}") from error
        if member.id == container.id:
            raise InvalidArgument(
                "cannot join own network" if kind == "network" else f"{prefix}it is the same"
            )
        if member.state.status is Status.RESTARTING:
            raise Conflict(f"Container {member.id} is restarting, wait until the container is running")
        if not member.state.running or member.task is None:
            raise Conflict(_not_running(kind, member.id, prefix))
        if kind == "ipc" and not _shareable(member.container.host.ipc_mode):
            raise Conflict(f"{prefix}non-shareable IPC (hint: use IpcMode:shareable for the donor container)")
        return member


def _shareable(ipc_mode: str) -> bool:
    return ipc_mode in ("shareable", "host") or target(ipc_mode) is not None


def _not_running(kind: str, container_id: str, prefix: str) -> str:
    if kind == "network":
        return f"cannot join network of a non running container: {container_id}"
    if kind == "pid":
        return f"container {container_id} is not running"
    return f"{prefix}container {container_id} is not running"


def _neighbour(member: Instance) -> Neighbour:
    task: Task | None = member.task
    assert task is not None
    return Neighbour(pid=member.state.pid, cgroup=task.cgroup)
