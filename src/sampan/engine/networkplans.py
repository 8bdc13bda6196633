"""What a user-defined network is: the request, checked in Docker's words, and the record that is kept of it.

Law: a record says everything that the bridge is made of, so that it can be made again after a reboot.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network

import msgspec

from sampan import errors
from sampan.engine import drivers, egress
from sampan.errors import Forbidden, InvalidArgument, NotFound
from sampan.network import Plan, Range
from sampan.network.naming import network_bridge_name
from sampan.network.segment import DEAD_END

BRIDGE, HOST, NONE = "bridge", "host", "none"
DRIVERS = {BRIDGE: "bridge", HOST: "host", NONE: "null"}

_PREFIX = "com.docker.network."
_NAME = f"{_PREFIX}bridge.name"
_MTU = f"{_PREFIX}driver.mtu"
_PARENT = drivers.PARENT
ICC = f"{_PREFIX}bridge.enable_icc"
MASTERLESS = drivers.SEGMENTS
_MASQUERADE = f"{_PREFIX}bridge.enable_ip_masquerade"
HOST_BINDING = f"{_PREFIX}bridge.host_binding_ipv4"
_FLAGS = (ICC, _MASQUERADE, f"{_PREFIX}bridge.default_bridge")
_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")
_LONGEST_INTERFACE = 15


class Pool(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Docker's IPAMConfig."""

    subnet: str = msgspec.field(default="", name="Subnet")
    ip_range: str = msgspec.field(default="", name="IPRange")
    gateway: str = msgspec.field(default="", name="Gateway")
    auxiliary: dict[str, str] | None = msgspec.field(default=None, name="AuxiliaryAddresses")


class Ipam(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    driver: str = "default"
    options: dict[str, str] | None = None
    config: tuple[Pool, ...] | None = None


class ConfigFrom(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    network: str = ""


class NetworkRequest(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """Docker's NetworkCreateRequest. ``check_duplicate`` is implied, as in Docker since 1.44."""

    name: str = ""
    check_duplicate: bool = False
    driver: str = ""
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigFrom | None = None
    ipam: Ipam | None = msgspec.field(default=None, name="IPAM")
    enable_ipv4: bool | None = msgspec.field(default=None, name="EnableIPv4")
    enable_ipv6: bool | None = msgspec.field(default=None, name="EnableIPv6")
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a network that a user made. ``subnet`` and ``subnet6`` are those that it has, ``pool``
    and ``pool6`` what was asked; of what it does not use (``ipv4``, ``ipv6``) the first is empty.
    """

    id: str
    name: str
    created_ns: int
    subnet: str = ""
    pool: Pool = Pool()
    ipv4: bool = True
    ipv6: bool = False
    subnet6: str = ""
    pool6: Pool = Pool()
    driver: str = BRIDGE
    config_only: bool = False
    config_from: str = ""
    internal: bool = False
    attachable: bool = False
    options: dict[str, str] = msgspec.field(default_factory=dict)
    ipam_options: dict[str, str] | None = None
    labels: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def bridge(self) -> str:
        """The link of the host that it is made of; of a mere configuration, what no link is named."""
        if self.config_only:
            return f"config-only {self.id[:12]}"
        if self.driver == BRIDGE:
            return self.options.get(_NAME) or network_bridge_name(self.id)
        return self.options.get(_PARENT) or f"{DEAD_END}{self.id[:12]}"

    def plan(self) -> Plan:
        """The bridge of the network."""
        return Plan(
            bridge=self.bridge,
            network=self.name,
            driver=self.driver,
            mode=drivers.mode(self.driver, self.options),
            ranges=tuple(self.ranges()),
            mtu=int(self.options.get(_MTU) or 0),
            internal=self.internal or (self.driver != BRIDGE and not self.options.get(_PARENT)),
            isolated=says_no(self.options.get(ICC)),
            masquerade=self.options.get(_MASQUERADE, "true") in _TRUE,
        )

    def ranges(self) -> list[Range]:
        """What it has of each version of IP that it uses."""
        versions = ((4, self.ipv4, self.subnet, self.pool), (6, self.ipv6, self.subnet6, self.pool6))
        return [
            Range(
                version=version,
                subnet=subnet,
                gateway=pool.gateway,
                pool=pool.ip_range,
                reserved=tuple((pool.auxiliary or {}).values()),
            )
            for version, used, subnet, pool in versions
            if used
        ]

    def pools(self) -> tuple[Pool, ...]:
        """Its subnets as they are shown: with the gateway where the addresses are the engine's choice, or
        where it was given."""
        shown = {one.version: one.addresses(one.subnet).gateway for one in self.ranges() if one.subnet}
        found = []
        for version, subnet, pool in ((4, self.subnet, self.pool), (6, self.subnet6, self.pool6)):
            if pool.subnet:
                found.append(pool)
            elif subnet:
                found.append(Pool(subnet=subnet, gateway=shown.get(version, "")))
        return tuple(found)


def says_no(value: str | None) -> bool:
    """Whether an option is given and off."""
    return value in _FALSE


def derived(request: NetworkRequest, source: Definition | None) -> NetworkRequest:
    """The request with what ``--config-from`` takes from a configuration. Forbidden in Docker's words."""
    name = request.config_from.network if request.config_from is not None else ""
    if not name:
        return request
    if request.config_only:
        raise Forbidden("a configuration network cannot depend on another configuration network")
    if source is None or not source.config_only:
        raise Forbidden(f'configuration network "{name}" does not exist')
    ipam = request.ipam or Ipam()
    if ipam.config or ipam.options or request.enable_ipv6:
        raise Forbidden(
            "user specified configurations are not supported if the network depends on a configuration "
            "network"
        )
    if request.options:
        raise Forbidden(
            "network driver options are not supported if the network depends on a configuration network"
        )
    pools = tuple(pool for pool in (source.pool, source.pool6) if pool.subnet)
    return msgspec.structs.replace(
        request,
        ipam=Ipam(options=source.ipam_options, config=pools),
        enable_ipv4=source.ipv4,
        enable_ipv6=source.ipv6,
        options=source.options,
        labels={**source.labels, **(request.labels or {})},
    )


def check(request: NetworkRequest) -> None:
    """Raise, in Docker's words, for what makes no sense or is not offered."""
    name = request.name
    if name in DRIVERS:
        raise Forbidden(f"operation is not permitted on predefined {name} network")
    if not name.strip() or "\0" in name or "/" in name:
        raise InvalidArgument("invalid network name: name is empty" if not name else f"invalid name: {name}")
    driver = request.driver or BRIDGE
    if driver in ("host", "null", "none"):
        raise Forbidden(f'only one instance of "{driver}" network is allowed')
    for flag, asked in (("--ingress", request.ingress),):
        if asked:
            raise errors.NotImplemented(f"network create: {flag} is not offered by this engine yet")
    if driver == "overlay" or request.scope == "swarm":
        raise errors.Unavailable(
            'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect '
            "this node to swarm and try again."
        )
    if request.config_only and (request.ingress or request.internal or request.attachable or request.scope):
        raise Forbidden(
            "configuration network can only contain network specific fields. Network operator fields like "
            "[ ingress | internal | attachable | scope ] are not supported."
        )
    if request.enable_ipv4 is False and not request.enable_ipv6:
        raise InvalidArgument("IPv4 or IPv6 must be enabled")
    if driver not in (BRIDGE, *drivers.SEGMENTS):
        raise NotFound(f'plugin "{driver}" not found')
    if driver == BRIDGE:
        _check_options(request.options or {})
    else:
        drivers.check(driver, request.options or {})
        egress.parsed(request.options or {})
    _check_ipam(request.ipam or Ipam(), driver)


def _check_options(options: dict[str, str]) -> None:
    for flag in _FLAGS:
        value = options.get(flag)
        if value is not None and value not in (*_TRUE, *_FALSE):
            raise InvalidArgument(
                f"failed to parse {flag} value: {value} "
                f'(strconv.ParseBool: parsing "{value}": invalid syntax)'
            )
    if options.get(f"{_PREFIX}bridge.default_bridge") in _TRUE:
        raise Forbidden("default bridge network cannot be created by hand")
    mtu = options.get(_MTU)
    if mtu is not None and not (mtu.isascii() and mtu.isdigit()):
        raise InvalidArgument(
            f'failed to parse {_MTU} value: {mtu} (strconv.Atoi: parsing "{mtu}": invalid syntax)'
        )
    if mtu and not 68 <= int(mtu) <= 65535:
        raise InvalidArgument(f"invalid MTU number: {mtu}")
    egress.parsed(options)
    name = options.get(_NAME, "")
    if (
        len(name) > _LONGEST_INTERFACE
        or "/" in name
        or any(letter.isspace() for letter in name)
        or name
        in (
            ".",
            "..",
        )
    ):
        raise InvalidArgument(f"invalid interface name: {name}")
    address = options.get(HOST_BINDING)
    if address:
        try:
            IPv4Address(address)
        except ValueError:
            raise InvalidArgument(
                f"failed to parse {HOST_BINDING} value: {address} (invalid address)"
            ) from None


def _check_ipam(ipam: Ipam, driver: str) -> None:
    if ipam.driver not in ("", "default"):
        raise NotFound(f'plugin "{ipam.driver}" not found')
    pools = ipam.config or ()
    wrong = [problem for pool in pools for problem in _problems(pool)]
    if wrong:
        raise InvalidArgument("\n".join(("invalid network config:", *wrong)))
    if len({":" in pool.subnet for pool in pools}) < len(pools):
        raise InvalidArgument(f"{driver} driver doesn't support multiple subnets")


def _problems(pool: Pool) -> list[str]:
    try:
        subnet = ip_network(pool.subnet)
    except ValueError:
        try:
            masked = ip_network(pool.subnet, strict=False)
        except ValueError:
            return [f"invalid subnet {pool.subnet}: invalid CIDR block notation"]
        if "/" not in pool.subnet:
            return [f"invalid subnet {pool.subnet}: invalid CIDR block notation"]
        return [f"invalid subnet {pool.subnet}: it should be {masked}"]
    if "/" not in pool.subnet:
        return [f"invalid subnet {pool.subnet}: invalid CIDR block notation"]
    found = []
    if pool.ip_range:
        found += _range_problems(pool.ip_range, subnet)
    addresses = [("gateway", pool.gateway)] if pool.gateway else []
    addresses += [("auxiliary address", address) for address in (pool.auxiliary or {}).values()]
    for what, address in addresses:
        try:
            parsed = ip_address(address)
        except ValueError:
            found.append(f"invalid {what} {address}: invalid address")
            continue
        if parsed.version != subnet.version:
            found.append(f"invalid {what} {address}: parent subnet is an IPv{subnet.version} block")
        elif parsed not in subnet:
            found.append(f"invalid {what} {address}: parent subnet {subnet} doesn't contain this address")
    return found


def _range_problems(text: str, subnet: IPv4Network | IPv6Network) -> list[str]:
    try:
        pool = ip_network(text, strict=False)
    except ValueError:
        return [f"invalid ip-range {text}: invalid CIDR block notation"]
    if pool.version != subnet.version:
        return [f"invalid ip-range {text}: parent subnet is an IPv{subnet.version} block"]
    if pool.prefixlen < subnet.prefixlen:
        return [f"invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}"]
    if str(pool) != text:
        return [f"invalid ip-range {text}: it should be {pool}"]
    if not subnet.overlaps(pool):
        return [f"invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range"]
    return []
