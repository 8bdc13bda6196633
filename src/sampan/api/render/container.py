"""Containers: the full document of inspect and the short one of listings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sampan.api.render.structs import render_struct
from sampan.api.render.times import human_duration, rfc3339
from sampan.api.responses import encode
from sampan.engine.model import (
    Container,
    EndpointSettings,
    Health,
    HealthStatus,
    HostConfig,
    MountPoint,
    Status,
)

JSONObject = dict[str, Any]

_DEFAULT_BRIDGE = "bridge"
_NO_ENDPOINT = EndpointSettings()
_HEALTH_WORDS = {status: str(status) for status in HealthStatus} | {HealthStatus.STARTING: "health: starting"}


def inspect(container: Container, version: tuple[int, int]) -> JSONObject:
    """GET /containers/{id}/json."""
    started = bool(container.state.started_at)  # Docker tells of the files once it has made them
    shown = {
        "Id": container.id,
        "Created": rfc3339(container.created),
        "Path": container.path,
        "Args": container.args,
        "State": _state(container),
        "Image": container.image_id,
        "ResolvConfPath": container.resolv_conf_path if started else "",
        "HostnamePath": container.hostname_path if started else "",
        "HostsPath": container.hosts_path if started else "",
        "LogPath": container.log_path if started else "",
        "Name": "/" + container.name,
        "RestartCount": container.restart_count,
        "Driver": container.driver,
        "Platform": container.platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": container.exec_ids or None,
        "UserNamespace": _user_namespace(container),
        "HostConfig": _host_config(container.host, version),
        "Mounts": _mounts(container),
        "Config": render_struct(container.config),
        "NetworkSettings": _network_settings(container, version),
    }
    if version >= (1, 52):
        shown["Storage"] = {"RootFS": {"Snapshot": {"Name": container.driver}}}
    else:
        shown["GraphDriver"] = {"Data": None, "Name": container.driver}
    return shown


_INSPECTED: dict[str, tuple[Container, tuple[int, int], bytes]] = {}
_MOST_INSPECTED = 16
"""Documents of containers as they are, by id: whoever waits for a change inspects the same one many times."""


def inspected(container: Container, version: tuple[int, int]) -> bytes:
    """``inspect`` as JSON."""
    kept = _INSPECTED.get(container.id)
    if kept is not None and kept[1] == version and (kept[0] is container or kept[0] == container):
        return kept[2]
    if len(_INSPECTED) >= _MOST_INSPECTED:
        _INSPECTED.clear()
    document = encode(inspect(container, version))
    _INSPECTED[container.id] = (container, version, document)
    return document


def _user_namespace(container: Container) -> JSONObject:
    """Whose user ids the container has, which Docker does not tell: its own, or the host's and why."""
    state = container.state
    if state.host_ids:
        return {"Mode": "host", "Reason": state.host_ids}
    shown: JSONObject = {"Mode": "private"}
    if state.id_span:
        shown |= {"FirstHostID": state.id_base, "Size": state.id_span}
    return shown


def _state(container: Container) -> JSONObject:
    state = container.state
    status = state.status
    shown = {
        "Status": status,
        "Running": state.active,
        "Paused": status is Status.PAUSED,
        "Restarting": status is Status.RESTARTING,
        "OOMKilled": state.oom_killed,
        "Dead": status is Status.DEAD,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": rfc3339(state.started_at),
        "FinishedAt": rfc3339(state.finished_at),
    }
    if state.health is not None:
        shown["Health"] = _health(state.health)
    return shown


def _health(health: Health) -> JSONObject:
    return {
        "Status": health.status,
        "FailingStreak": health.failing_streak,
        "Log": [
            {
                "Start": rfc3339(result.start),
                "End": rfc3339(result.end),
                "ExitCode": result.exit_code,
                "Output": result.output,
            }
            for result in health.log
        ]
        or None,
    }


def _host_config(host: HostConfig, version: tuple[int, int]) -> JSONObject:
    shown = render_struct(host)
    if version < (1, 42):  # dropped when kernel memory limits went
        shown.setdefault("KernelMemory", 0)
        shown.setdefault("KernelMemoryTCP", 0)
    return shown


def _mounts(container: Container) -> list[JSONObject]:
    return [_mount(point) for point in container.mounts if point.origin != "tmpfs"]


def _mount(point: MountPoint) -> JSONObject:
    shown: JSONObject = {"Type": point.type}
    if point.name:
        shown["Name"] = point.name
    shown["Source"] = point.source
    shown["Destination"] = point.destination
    if point.driver:
        shown["Driver"] = point.driver
    shown["Mode"] = point.mode
    shown["RW"] = point.rw
    shown["Propagation"] = point.propagation
    return shown


def _network_settings(container: Container, version: tuple[int, int]) -> JSONObject:
    network = container.network
    if version >= (1, 52):
        return {
            "SandboxID": network.sandbox_id,
            "SandboxKey": network.sandbox_key,
            "Ports": network.ports,
            "Networks": network.networks,
        }
    # Up to 1.51 the default bridge's endpoint was repeated at this level.
    endpoint = network.networks.get(_DEFAULT_BRIDGE, _NO_ENDPOINT)
    return {
        "Bridge": "",
        "SandboxID": network.sandbox_id,
        "SandboxKey": network.sandbox_key,
        "Ports": network.ports,
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": endpoint.endpoint_id,
        "Gateway": endpoint.gateway,
        "GlobalIPv6Address": endpoint.global_ipv6_address,
        "GlobalIPv6PrefixLen": endpoint.global_ipv6_prefix_len,
        "IPAddress": endpoint.ip_address,
        "IPPrefixLen": endpoint.ip_prefix_len,
        "IPv6Gateway": endpoint.ipv6_gateway,
        "MacAddress": endpoint.mac_address,
        "Networks": network.networks,
    }


_KEPT: dict[str, tuple[Container, tuple[int, int], JSONObject]] = {}
_MOST_KEPT = 4096
_SPARE = 64
"""Summaries of containers as they are, which is what they were the last time as long as the value is the
same object; clients that poll find all but the age of a container ready. Of others than those of a list, as
many are kept, and ``_SPARE``."""


def summaries(containers: Sequence[Container], now: int, version: tuple[int, int]) -> list[JSONObject]:
    """The entries of GET /containers/json. The documents are the caller's own."""
    shown = [summary(container, now, version) for container in containers]
    if len(_KEPT) > 2 * len(containers) + _SPARE:
        for gone in _KEPT.keys() - {container.id for container in containers}:
            del _KEPT[gone]
    return shown


def summary(container: Container, now: int, version: tuple[int, int]) -> JSONObject:
    """One entry of GET /containers/json; ``now`` in nanoseconds, for "3 minutes ago". The caller's own."""
    kept = _KEPT.get(container.id)
    if kept is None or kept[0] is not container or kept[1] != version:
        kept = (container, version, _summary(container, version))
        if len(_KEPT) < _MOST_KEPT:
            _KEPT[container.id] = kept
    shown = kept[2].copy()
    shown["Status"] = status_text(container, now)
    return shown


def _summary(container: Container, version: tuple[int, int]) -> JSONObject:
    host: JSONObject = {"NetworkMode": container.host.network_mode}
    if version >= (1, 46) and container.host.annotations:
        host["Annotations"] = container.host.annotations
    shown: JSONObject = {
        "Id": container.id,
        "Names": ("/" + container.name,),
        "Image": container.config.image,
        "ImageID": container.image_id,
        "Command": command(container),
        "Created": container.created // 1_000_000_000,
        "Ports": _ports(container),
        "Labels": container.config.labels or {},
        "State": container.state.status,
        "Status": "",
        "HostConfig": host,
        "NetworkSettings": {"Networks": container.network.networks},
        "Mounts": _mounts(container) if container.mounts else (),
    }
    if version >= (1, 52):
        health = container.state.health or Health(status=HealthStatus.NONE)
        shown["Health"] = {"Status": health.status, "FailingStreak": health.failing_streak}
    return shown


def command(container: Container) -> str:
    """The command in one line; arguments with spaces in single quotes, as Docker shows it."""
    if not container.args:
        return container.path
    return " ".join((container.path, *(f"'{arg}'" if " " in arg else arg for arg in container.args)))


def status_text(container: Container, now: int) -> str:
    """``Up 3 minutes (healthy)``, ``Exited (0) 2 seconds ago``, ``Created``."""
    state = container.state
    match state.status:
        case Status.RUNNING:
            health = "" if state.health is None else f" ({_HEALTH_WORDS[state.health.status]})"
            return f"Up {human_duration(now - state.started_at)}{health}"
        case Status.PAUSED:
            return f"Up {human_duration(now - state.started_at)} (Paused)"
        case Status.RESTARTING:
            return f"Restarting ({state.exit_code}) {human_duration(now - state.finished_at)} ago"
        case Status.REMOVING:
            return "Removal In Progress"
        case Status.DEAD:
            return "Dead"
    if not state.started_at:
        return "Created"
    if not state.finished_at:
        return ""
    return f"Exited ({state.exit_code}) {human_duration(now - state.finished_at)} ago"


def _ports(container: Container) -> list[JSONObject]:
    """Published and exposed ports of a running container."""
    shown: list[JSONObject] = []
    if not container.state.running:
        return shown
    for port, bindings in container.network.ports.items():
        number, _, protocol = port.partition("/")
        private = {"PrivatePort": _port(number), "Type": protocol or "tcp"}
        if not bindings:
            shown.append(private)
        for binding in bindings or ():
            shown.append(
                {
                    "IP": binding.host_ip,
                    "PrivatePort": private["PrivatePort"],
                    "PublicPort": _port(binding.host_port),
                    "Type": private["Type"],
                }
            )
    return shown


def _port(text: str) -> int:
    """Anything may be exposed, by images too: what is no port is told as 0, as Docker does."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    return number if number < 1 << 16 else 0
