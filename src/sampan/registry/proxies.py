"""Which proxy a request goes through, as the environment says: HTTP_PROXY, HTTPS_PROXY and NO_PROXY.

Laws, which are those of Go's clients, Docker among them: this machine itself is never asked through a proxy;
an upper-case variable goes before its lower-case twin. NO_PROXY is a list, separated by commas, of domains
(``a.b`` is that and all below, ``.a.b`` only what is below), addresses and networks, each of the first two
with a port where only that port is meant; ``*`` alone is everything.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from sampan.errors import InvalidArgument

_PORTS = {"http": 80, "https": 443}
_USER = re.compile(r"^([^/@]*//)?[^/]*@")
_HIDDEN = r"\1xxxxx:xxxxx@"  # Docker's


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """``url`` without who asks; ``headers`` say it."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, hash=False, compare=False)


def proxy_of(url: str, environment: Mapping[str, str] = os.environ) -> Proxy | None:
    """The proxy for ``url``; None for a direct connection. InvalidArgument for one that cannot be used."""
    parts = urlsplit(url)
    given = _variable(environment, f"{parts.scheme}_proxy")
    if not given or not parts.hostname:
        return None
    if _is_direct(parts.hostname, parts.port or _PORTS[parts.scheme], _variable(environment, "no_proxy")):
        return None
    return _parse(given)


def shown(environment: Mapping[str, str] = os.environ) -> tuple[str, str, str]:
    """HTTP_PROXY, HTTPS_PROXY and NO_PROXY as anybody may see them: without names and passwords."""
    http, https, none = (_variable(environment, f"{name}_proxy") for name in ("http", "https", "no"))
    return _USER.sub(_HIDDEN, http), _USER.sub(_HIDDEN, https), none


def _variable(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name.upper()) or environment.get(name) or ""


def _parse(given: str) -> Proxy:
    try:
        parts = urlsplit(given if "://" in given else f"http://{given}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        raise InvalidArgument("the environment names a proxy that is no URL")
    if parts.scheme not in _PORTS:
        raise InvalidArgument(
            f"the environment names a proxy of the kind {parts.scheme}; http and https work"
        )
    name = f"[{host}]" if ":" in host else host
    headers = {}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    return Proxy(url=f"{parts.scheme}://{name}:{port or _PORTS[parts.scheme]}", headers=headers)


def _is_direct(host: str, port: int, exceptions: str) -> bool:
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    entries = [entry.strip().lower() for entry in exceptions.split(",")]
    return any(_covers(entry, host, address, port) for entry in entries if entry)


def _covers(
    entry: str, host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None, port: int
) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        try:
            network = ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
        return address is not None and address in network
    return any(
        (only is None or only == port) and _names(name, host, address) for name, only in _readings(entry)
    )


def _readings(entry: str) -> Iterator[tuple[str, int | None]]:
    """The host that an entry means, with its port if it has one; IPv6 addresses look like both."""
    yield entry.strip("[]"), None
    name, _, port = entry.rpartition(":")
    if name and port.isascii() and port.isdecimal():
        yield name.strip("[]"), int(port)


def _names(name: str, host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> bool:
    if address is not None:
        return _address(name) == address
    name = name.removeprefix("*")
    return host.endswith(name) if name.startswith(".") else host == name or host.endswith(f".{name}")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
