"""Where a container may connect to: what ``--egress`` says, as a value.

    any                         everywhere, as without it
    none                        nowhere outside its own networks
    allow=ITEM,ITEM…            there and nowhere else; an ITEM is HOST, HOST:PORT, ADDRESS, ADDRESS:PORT,
                                NETWORK, NETWORK:PORT (CIDR notation; IPv6 in brackets before a port)

A HOST is a name; ``*.example.org`` means every name below example.org. Without a port all ports and protocols
are meant, with one that port of TCP and of UDP. Several texts add up. Law: ``str`` of a policy parses to the
same policy.

What a name may lead to is judged here as well: a name's owner decides what it resolves to, so it opens no way
to what only the host or its links reach.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from sampan.errors import InvalidArgument

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

ANY_PORT = 0
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_LONGEST_NAME, _MOST_ITEMS = 253, 256
_NEVER = tuple(
    map(
        ip_network,
        (
            *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4"),
            *("::/127", "::ffff:0:0/96", "fe80::/10", "fec0::/10", "ff00::/8"),
        ),
    )
)


@dataclass(frozen=True, slots=True)
class Policy:
    """``names`` and ``networks`` are (what, port) pairs in the order in which they were given."""

    names: tuple[tuple[str, int], ...] = ()
    networks: tuple[tuple[Network, int], ...] = ()

    def ports_of(self, name: str) -> frozenset[int]:
        """The ports that are open at a name in lower case; empty where it may not even be looked up."""
        return frozenset(port for pattern, port in self.names if _matches(name, pattern))

    def __str__(self) -> str:
        items = [_joined(name, port) for name, port in self.names]
        items += [_joined(_shown(network), port) for network, port in self.networks]
        return "allow=" + ",".join(items) if items else "none"


def parse(texts: Iterable[str]) -> Policy | None:
    """The policy of some ``--egress``; None for ``any`` or no text. InvalidArgument for what is none."""
    words = [text.strip() for text in texts if text.strip()]
    for word in ("any", "none"):
        if word in words and any(other != word for other in words):
            raise InvalidArgument(f"invalid egress policy: {word} allows nothing beside it")
    if not words or words[0] == "any":
        return None
    names: dict[tuple[str, int], None] = {}
    networks: dict[tuple[Network, int], None] = {}
    for word in words:
        if word == "none":
            continue
        key, equals, rest = word.partition("=")
        if key != "allow" or not equals or not rest:
            raise InvalidArgument(
                f'invalid egress policy "{word}": must be any, none or allow=HOST[:PORT][,HOST[:PORT]…]'
            )
        for item in rest.split(","):
            what, port = _item(item.strip())
            if isinstance(what, str):
                names[what, port] = None
            else:
                networks[what, port] = None
    if len(names) + len(networks) > _MOST_ITEMS:
        raise InvalidArgument(f"invalid egress policy: more than {_MOST_ITEMS} destinations")
    return Policy(tuple(names), tuple(networks))


def may_lead_to(address: Address) -> bool:
    """Whether a name may stand for this address, as far as that is the same on every host."""
    return not any(address in network for network in _NEVER if network.version == address.version)


def _item(item: str) -> tuple[str | Network, int]:
    host, port = item, ""
    if item.startswith("["):
        host, bracket, port = item[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise _wrong(item)
        port = port[1:]
    elif item.count(":") == 1:
        host, _, port = item.partition(":")
        if not port:
            raise _wrong(item)
    number = ANY_PORT
    if port:
        if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) <= 65535):
            raise InvalidArgument(f'invalid egress destination "{item}": invalid port {port}')
        number = int(port)
    name = host.lower().rstrip(".")
    if not re.fullmatch(r"[0-9./]*", host) and ":" not in host and "/" not in host:
        if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
            raise _wrong(item)
        return name, number
    try:
        return ip_network(host), number
    except ValueError as error:
        raise InvalidArgument(f'invalid egress destination "{item}": {error}') from error


def _wrong(item: str) -> InvalidArgument:
    return InvalidArgument(f'invalid egress destination "{item}"')


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or (
        pattern.startswith("*.") and name.endswith(pattern[1:]) and name != pattern[2:]
    )


def _shown(network: Network) -> str:
    text = str(network.network_address) if network.num_addresses == 1 else str(network)
    return f"[{text}]" if network.version == 6 else text


def _joined(what: str, port: int) -> str:
    return f"{what}:{port}" if port else what
