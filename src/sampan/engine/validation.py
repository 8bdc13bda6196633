"""Whether a create request makes sense, before anything is looked up or changed. Docker's words and order."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from msgspec.structs import replace

from sampan.engine import (
    capabilities,
    devices,
    egress,
    links,
    publishing,
    resources,
    restarts,
    sandboxes,
    security,
    sysctls,
    timeouts,
    unsupported,
)
from sampan.engine.host import HostFacts
from sampan.engine.model import ContainerConfig, HostConfig, NetworkingConfig
from sampan.errors import InvalidArgument
from sampan.network import resolv
from sampan.spec import signals

OWN_NETWORKS = frozenset(("", "default", "bridge", "host", "none"))
_MAC = re.compile(r"[0-9a-fA-F]{2}(?:[:-][0-9a-fA-F]{2}){5}")
_ULIMIT_WORDS = (
    "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"
)
_ULIMITS = frozenset(_ULIMIT_WORDS.split())
_LONGEST_NAME = 255  # of a directory
_SHORTEST_CHECK = 1_000_000  # nanoseconds


def check(
    config: ContainerConfig, host: HostConfig, networking: NetworkingConfig, facts: HostFacts
) -> tuple[HostConfig, list[str]]:
    """The host configuration with what this host cannot do discarded, and the warnings about that."""
    _check_config(config)
    check_restart(host)
    timeouts.check(host)
    egress.check(host)
    _check_modes(config, host)
    sandboxes.check(config, host)
    unsupported.refuse(host)
    publishing.check(config, host)
    _check_networks(config, host, networking)
    _check_paths(config, host)
    sysctls.check(host)
    security.check(host.security_opt or (), facts)
    for rule in host.device_cgroup_rules or ():
        devices.parse_device_rule(rule)
    host = replace(
        host,
        cap_add=host.cap_add and capabilities.normalize(host.cap_add, flag="CapAdd"),
        cap_drop=host.cap_drop and capabilities.normalize(host.cap_drop, flag="CapDrop"),
    )
    host, warnings = resources.check(host, facts)
    if not facts.ip_forwarding() and host.network_mode not in ("host", "none"):
        warnings.append("IPv4 forwarding is disabled. Networking will not work.")
    if host.network_mode == "host" and host.port_bindings:
        warnings.append("Published ports are discarded when using host network mode")
    return host, warnings


def _check_config(config: ContainerConfig) -> None:
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path"
        )
    check_environment(config.env or ())
    if config.stop_signal:
        signals.number(config.stop_signal)
    _check_health(config)
    for kind, name in (("hostname", config.hostname), ("domainname", config.domainname)):
        # Longer ones are refused by the kernel, and these would end lines of the files that name them.
        if len(name) > 64 or any(letter < " " or letter == "/" for letter in name):
            raise InvalidArgument(f"invalid {kind} format: {name!r}")
    command = (*(config.entrypoint or ()), *(config.cmd or ()))
    check_texts("command", command)
    check_texts("working directory", (config.working_dir, config.user))


def _check_health(config: ContainerConfig) -> None:
    check = config.healthcheck
    if check is None:
        return
    for name, duration in (
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ):
        if duration and duration < _SHORTEST_CHECK:
            raise InvalidArgument(f"{name} in Healthcheck cannot be less than 1ms")
    if check.retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")


def check_restart(host: HostConfig) -> None:
    """Raise InvalidArgument for a restart policy that there is not, or that contradicts ``--rm``."""
    restarts.check(host.restart_policy)
    if host.auto_remove and host.restart_policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")


def _check_modes(config: ContainerConfig, host: HostConfig) -> None:
    _one_of("IPC", host.ipc_mode, ("", "none", "private", "shareable", "host"), container=True)
    _one_of("PID", host.pid_mode, ("", "host"), container=True)
    _one_of("UTS", host.uts_mode, ("", "host"))
    _one_of("user namespace", host.userns_mode, ("", "host", "private"))
    _one_of("cgroup namespace", host.cgroupns_mode, ("", "private", "host"))
    if host.network_mode == "host" and host.links:
        raise InvalidArgument(
            "conflicting options: host type networking can't be used with links. This would result in "
            "undefined behavior"
        )
    if host.uts_mode == "host" and (config.hostname or config.domainname):
        raise InvalidArgument("conflicting options: hostname and the UTS mode")
    if host.isolation not in ("", "default"):
        raise InvalidArgument(f"invalid isolation '{host.isolation}' on linux")


def _check_paths(config: ContainerConfig, host: HostConfig) -> None:
    """What ends in a path or a file of the engine must not lead elsewhere."""
    parts = host.cgroup_parent.split("/")
    if ".." in parts or any(len(part) > _LONGEST_NAME or not part.isprintable() for part in parts):
        raise InvalidArgument(f"invalid cgroup-parent: {host.cgroup_parent}")
    check_texts("cgroup-parent", (host.cgroup_parent,))
    check_texts("mount", host.binds or ())
    check_texts("mount", (part for mount in host.mounts or () for part in (mount.source, mount.target)))
    check_texts("mount", (part for item in (host.tmpfs or {}).items() for part in item))
    check_texts("volume", config.volumes or ())
    check_texts("path", (*(host.masked_paths or ()), *(host.readonly_paths or ())))
    check_texts("device", (mapping.path_on_host for mapping in host.devices or ()))
    for address in host.dns or ():
        resolv.check_nameserver(address)
    for entry in host.extra_hosts or ():
        resolv.extra_host(entry, gateway="0.0.0.0")
    for limit in host.ulimits or ():
        if limit.name.lower() not in _ULIMITS:
            raise InvalidArgument(f"invalid ulimit type: {limit.name}")
        if 0 <= limit.hard < limit.soft:
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}"
            )


def check_environment(variables: Iterable[str]) -> None:
    """Raise InvalidArgument for a variable without a name."""
    for variable in variables:
        if variable.startswith("=") or not variable or "\0" in variable:
            raise InvalidArgument(f"invalid environment variable: {variable}".replace("\0", "\\0"))


def check_texts(what: str, texts: Iterable[str]) -> None:
    """Raise InvalidArgument for a null character: the kernel ends a string there, the rest would be lost."""
    if any("\0" in text for text in texts):
        raise InvalidArgument(f"invalid {what}: it contains a null character")


def _check_mac(address: str) -> None:
    if address and not _MAC.fullmatch(address):
        raise InvalidArgument(f"invalid MAC address: {address}")


def _check_address(family: str, address: str) -> None:
    if address:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise InvalidArgument(f"invalid {family} address: {address}") from None


def _one_of(kind: str, mode: str, allowed: tuple[str, ...], *, container: bool = False) -> None:
    if mode not in allowed and not (container and mode.startswith("container:") and len(mode) > 10):
        raise InvalidArgument(f"invalid {kind} mode: {mode}")


def _check_networks(config: ContainerConfig, host: HostConfig, networking: NetworkingConfig) -> None:
    mode = host.network_mode
    _check_mac(config.mac_address)
    for name, endpoint in (networking.endpoints_config or {}).items():
        if name != mode and name not in ("default", mode):
            _check_together(mode, name)
        # A network that does not exist is missed at the start, as in Docker.
        if endpoint is None:
            continue
        _check_mac(endpoint.mac_address)
        address = endpoint.ipam_config
        links.aliases(endpoint.links or ())
        if name not in OWN_NETWORKS:
            if address is not None:
                _check_address("IPv4", address.ipv4_address)
                _check_address("IPv6", address.ipv6_address)
            continue
        if address is not None and (address.ipv4_address or address.ipv6_address):
            _check_address("IPv4", address.ipv4_address)
            _check_address("IPv6", address.ipv6_address)
            raise InvalidArgument("user specified IP address is supported on user defined networks only")
        for link_local in (address.link_local_ips if address is not None else None) or ():
            _check_address("link-local IP", link_local)
        if endpoint.links:
            raise InvalidArgument("network-scoped links are supported only for user defined networks")
        if endpoint.aliases:
            raise InvalidArgument(
                "network-scoped alias is supported only for containers in user defined networks"
            )
        if endpoint.mac_address and mode in ("host", "none"):
            raise InvalidArgument("conflicting options: mac-address and the network mode")


def _check_together(mode: str, name: str) -> None:
    """Raise InvalidArgument for a further network beside one that goes with no other."""
    if mode == "host" or name == "host":
        raise InvalidArgument(
            "container cannot be disconnected from host network or connected to host network"
        )
    if mode == "none" or name == "none":
        raise InvalidArgument(
            "container cannot be connected to multiple networks with one of the networks in private (none) "
            "mode"
        )
    if mode.startswith("container:"):
        raise InvalidArgument(
            "container sharing network namespace with another container or host cannot be connected to any "
            "other network"
        )
