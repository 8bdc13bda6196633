"""A container's place on networks: what was asked (NetworkingConfig) and what it got (EndpointSettings)."""

from __future__ import annotations

import msgspec


class PortBinding(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    host_ip: str = ""
    host_port: str = ""


class EndpointIPAMConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    ipv4_address: str = msgspec.field(default="", name="IPv4Address")
    ipv6_address: str = msgspec.field(default="", name="IPv6Address")
    link_local_ips: tuple[str, ...] | None = msgspec.field(default=None, name="LinkLocalIPs")


class EndpointSettings(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """Docker's EndpointSettings: configuration first, then what the engine assigned."""

    ipam_config: EndpointIPAMConfig | None = msgspec.field(default=None, name="IPAMConfig")
    links: tuple[str, ...] | None = None
    aliases: tuple[str, ...] | None = None
    mac_address: str = ""
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0
    network_id: str = msgspec.field(default="", name="NetworkID")
    endpoint_id: str = msgspec.field(default="", name="EndpointID")
    gateway: str = ""
    ip_address: str = msgspec.field(default="", name="IPAddress")
    ip_prefix_len: int = msgspec.field(default=0, name="IPPrefixLen")
    ipv6_gateway: str = msgspec.field(default="", name="IPv6Gateway")
    global_ipv6_address: str = msgspec.field(default="", name="GlobalIPv6Address")
    global_ipv6_prefix_len: int = msgspec.field(default=0, name="GlobalIPv6PrefixLen")
    dns_names: tuple[str, ...] | None = msgspec.field(default=None, name="DNSNames")


class NetworkingConfig(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    endpoints_config: dict[str, EndpointSettings | None] | None = None


class NetworkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a container has on networks now; ``networks`` maps a network's name to its endpoint.

    ``link_env`` are the variables that tell a running container of those that it is linked to.
    """

    sandbox_id: str = ""
    sandbox_key: str = ""
    networks: dict[str, EndpointSettings] = msgspec.field(default_factory=dict)
    ports: dict[str, tuple[PortBinding, ...] | None] = msgspec.field(default_factory=dict)
    link_env: tuple[str, ...] = ()
