"""Values of the network flags: --network, --link, --dns, --dns-search, --add-host, --mac-address; and what
they say together of the networks that a container joins.
"""

from __future__ import annotations

import _socket

from sampan.cli.fields import split
from sampan.wire.quoting import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.command import Options


def is_address(text: str) -> bool:
    """Whether ``text`` is an IPv4 or IPv6 address in its usual notation."""
    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return True
    return False


def address(text: str) -> str:
    """An IP address."""
    text = text.strip()
    if not is_address(text):
        raise ValueError(f"IP address is not correctly formatted: {text}")
    return text


_WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


def search_domain(text: str) -> str:
    """A domain name, or "." for none."""
    name = text.strip(" ")
    if name == ".":
        return name
    labels = name.split(".")
    if not name or len(name) > 254 or any(not label or not _WORD.issuperset(label) for label in labels):
        raise ValueError(f"{text} is not a valid domain")
    return name


def extra_host(text: str) -> str:
    """``name:address`` or ``name=address`` as the API's ``name:address``."""
    at = min((at for at in (text.find(":"), text.find("=")) if at >= 0), default=-1)
    if at <= 0:
        raise ValueError(f"bad format for add-host: {quoted(text)}")
    name, where = text[:at], text[at + 1 :]
    if where == "host-gateway":
        return f"{name}:{where}"
    if len(where) > 2 and where[0] == "[" and where[-1] == "]":
        where = where[1:-1]
    if not is_address(where):
        raise ValueError(f"invalid IP address in add-host: {quoted(where)}")
    return f"{name}:{where}"


def link(text: str) -> str:
    """``name[:alias]``."""
    if not text:
        raise ValueError("empty string specified for links")
    if text.count(":") > 1:
        raise ValueError(f"bad format for links: {text}")
    return text


def mac(text: str) -> str:
    """A hardware address of 6 or 8 bytes, in any of Go's three notations."""
    digits = text.replace(":", "").replace("-", "").replace(".", "")
    groups = {":": 2, "-": 2, ".": 4}
    for separator, width in groups.items():
        parts = text.split(separator)
        if len(parts) > 1 and all(len(part) == width for part in parts) and len(digits) in (12, 16, 40):
            try:
                int(digits, 16)
            except ValueError:
                break
            return text
    raise ValueError(f"{text} is not a valid mac address")


def network(text: str) -> dict[str, Any]:
    """``--network NAME`` or ``--network name=NAME,alias=…,ip=…`` as a dict of its fields."""
    if "=" not in text:
        return _bare(text)
    found = _bare("")
    for field in split(text):
        key, sign, value = field.partition("=")
        key, value = key.strip().lower(), value.strip()
        if not sign:
            raise ValueError(f"invalid field {field}")
        _network_field(found, key, value)
    if not found["name"]:
        raise ValueError("network name/id is not specified")
    return found


def _bare(name: str) -> dict[str, Any]:
    return {"name": name, "aliases": [], "options": {}, "links": [], "link-local": []}


def _network_field(found: dict[str, Any], key: str, value: str) -> None:
    if key == "name":
        found["name"] = value
    elif key == "alias":
        found["aliases"].append(value)
    elif key in ("ip", "ip6"):
        found[key] = value
    elif key == "mac-address":
        found["mac"] = value
    elif key == "link-local-ip":
        found["link-local"].append(value)
    elif key == "driver-opt":
        name, sign, text = value.partition("=")
        if not sign:
            raise ValueError("invalid key value pair format in driver options")
        found["options"][name.strip().lower()] = text.strip()
    elif key == "gw-priority":
        try:
            found["priority"] = int(value)
        except ValueError:
            raise ValueError(
                f"invalid gw-priority: strconv.Atoi: parsing {quoted(value)}: invalid syntax"
            ) from None
    else:
        raise ValueError(f"invalid field key {key}")


_PREDEFINED = ("default", "bridge", "host", "none", "")


def joined(options: Options) -> list[dict[str, Any]]:
    """The networks to join, as `network` has them. Flags without a network's name belong to the first one."""
    networks = [*options["network"], *options["net"]]
    if networks and not all(network["name"] for network in networks):
        raise ValueError("no name set for network")
    networks = networks or [_bare("default")]
    first = networks[0]
    _plain_flags(options, first)
    for network in networks:
        user_defined = network["name"] not in _PREDEFINED and not network["name"].startswith("container:")
        if network["aliases"] and not user_defined:
            raise ValueError("network-scoped aliases are only supported for user-defined networks")
        if user_defined and network is first:
            network["links"] = list(options["link"])
    return networks


def _plain_flags(options: Options, network: dict[str, Any]) -> None:
    aliases = [*options["network-alias"], *options["net-alias"]]
    conflicts = (
        (aliases, network["aliases"], "--network-alias", "alias"),
        (options["link"], network["links"], "--link", "links"),
        (options["ip"], network.get("ip"), "--ip", "IPv4 address"),
        (options["ip6"], network.get("ip6"), "--ip6", "IPv6 address"),
        (options["mac-address"], network.get("mac"), "--mac-address", "MAC address"),
        (options["link-local-ip"], network["link-local"], "--link-local-ip", "link-local IP addresses"),
    )
    for flag, field, name, what in conflicts:
        if flag and field:
            raise ValueError(f"conflicting options: cannot specify both {name} and per-network {what}")
    network["aliases"] = network["aliases"] or aliases
    network["link-local"] = network["link-local"] or list(options["link-local-ip"])
    for flag, field in (("ip", "ip"), ("ip6", "ip6"), ("mac-address", "mac")):
        if options[flag]:
            network[field] = options[flag].strip()
