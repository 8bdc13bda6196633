"""Values of --publish and --expose.

    [[host address:]host port[-range]:]container port[-range][/protocol]

or the long form ``target=80,published=8080,protocol=tcp,mode=host``.
"""

from __future__ import annotations

from sampan.cli.endpoints import is_address
from sampan.wire.quoting import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROTOCOLS = ("tcp", "udp", "sctp")


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"strconv.ParseUint: parsing {quoted(text)}: invalid syntax")
    if int(text) > 65535:
        raise ValueError(f"strconv.ParseUint: parsing {quoted(text)}: value out of range")
    return int(text)


def port_range(text: str) -> tuple[int, int]:
    """``80`` or ``80-90``. Raises ValueError."""
    if not text:
        raise ValueError("empty string specified for ports")
    low, dash, high = text.partition("-")
    first = _port(low)
    last = _port(high) if dash else first
    if last < first:
        raise ValueError(f"invalid range specified for port: {text}")
    return first, last


def _long_form(text: str) -> str:
    """``target=…`` as the short form."""
    fields = {"target": "", "published": "", "protocol": "tcp", "mode": ""}
    for field in text.split(","):
        key, sign, value = field.partition("=")
        if not sign or not value:
            raise ValueError(f"invalid field: {field}")
        fields[key] = value.lower()
    prefix = f"{fields['published']}:" if fields["published"] else ""
    return f"{prefix}{fields['target']}/{fields['protocol']}"


def _sections(text: str) -> tuple[str, str, str]:
    """Host address, host ports, container ports."""
    parts = text.split(":")
    if len(parts) <= 2:
        return "", parts[0] if len(parts) == 2 else "", parts[-1]
    return ":".join(parts[:-2]), parts[-2], parts[-1]


def publish(text: str) -> list[tuple[str, dict[str, str]]]:
    """The bindings of one ``-p``: ("80/tcp", {HostIp, HostPort}). Raises ValueError in Docker's words."""
    spec = _long_form(text) if "=" in text else text
    address, host, rest = _sections(spec)
    container, slash, protocol = rest.partition("/")
    if slash:
        protocol = protocol.partition("/")[0]
    if not container:
        raise ValueError(f"no port specified: {spec}<empty>")
    if address[:1] == "[" and address[-1:] == "]":
        address = address[1:-1]
    if address and not is_address(address):
        raise ValueError(f"invalid IP address: {address}")
    protocol = (protocol or "tcp").lower()
    first, last = _range(container, "containerPort")
    low, high = _range(host, "hostPort") if host else (0, 0)
    if host and last - first != high - low and first != last:
        raise ValueError(f"invalid ranges specified for container and host Ports: {container} and {host}")
    if protocol not in PROTOCOLS:
        raise ValueError(f"invalid proto: {protocol}")
    bindings = []
    for offset in range(last - first + 1):
        if not host:
            where = ""
        elif last == first and high != low:
            where = host
        else:
            where = str(low + offset)
        bindings.append((f"{first + offset}/{protocol}", {"HostIp": address, "HostPort": where}))
    return bindings


def _range(text: str, what: str) -> tuple[int, int]:
    try:
        return port_range(text)
    except ValueError:
        raise ValueError(f"invalid {what}: {text}") from None


def expose(text: str) -> list[str]:
    """The ports of one ``--expose``. Raises ValueError in Docker's words."""
    if ":" in text:
        raise ValueError(f"invalid port format for --expose: {text}")
    ports, _, protocol = text.partition("/")
    try:
        first, last = port_range(ports)
    except ValueError as error:
        raise ValueError(f"invalid range format for --expose: {ports}, error: {error}") from None
    return [f"{number}/{(protocol or 'tcp').lower()}" for number in range(first, last + 1)]


def published(given: list[str], exposed: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ``ExposedPorts`` and ``PortBindings`` of all flags. Raises ValueError."""
    ports: dict[str, Any] = {}
    bindings: dict[str, Any] = {}
    for text in given:
        for port, binding in publish(text):
            ports[port] = {}
            bindings.setdefault(port, []).append(binding)
    for text in exposed:
        for port in expose(text):
            ports.setdefault(port, {})
    return ports, bindings
