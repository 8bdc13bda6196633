"""The files by which a container resolves names: resolv.conf and hosts, as texts. Reads no container's files.

Docker's rules for the default bridge: the host's resolvers, but none that only the host's own loopback
answers; if none is left, Google's public ones; ``--dns``, ``--dns-search`` and ``--dns-option`` each replace
what the host's file says. With the host's network the host's file serves as it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

from sampan.errors import InvalidArgument

HOST_FILE = "/etc/resolv.conf"
RESOLVED_FILE = "/run/systemd/resolve/resolv.conf"
_RESOLVED_STUB = "127.0.0.53"

FALLBACK = ("8.8.8.8", "8.8.4.4")
FALLBACK6 = ("2001:4860:4860::8888", "2001:4860:4860::8844")

EMBEDDED = "127.0.0.11"
"""Where containers on user-defined networks ask for names; programs know the address by heart."""

HOST_GATEWAY = "host-gateway"

_LOCAL_HOSTS = (
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::", "ip6-localnet"),
    ("ff00::", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolver:
    """What a resolv.conf says."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def parse(text: str) -> Resolver:
    """Read a resolv.conf as resolv.conf(5) says: the last ``search`` or ``domain`` wins, options add up."""
    nameservers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0][0] in "#;":
            continue
        if words[0] == "nameserver" and len(words) > 1:
            nameservers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = tuple(words[1:])
        elif words[0] == "options":
            options.extend(words[1:])
    return Resolver(nameservers=tuple(nameservers), search=search, options=tuple(options))


def render(resolver: Resolver) -> str:
    lines = [f"nameserver {address}" for address in resolver.nameservers]
    if resolver.search:
        lines.append("search " + " ".join(resolver.search))
    if resolver.options:
        lines.append("options " + " ".join(resolver.options))
    return "".join(f"{line}\n" for line in lines)


def container_resolver(
    host: Resolver,
    *,
    dns: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
    ipv6: bool = False,
) -> Resolver:
    """What a container on a bridge uses. ``--dns-search .`` means no search list."""
    if dns:
        for address in dns:
            check_nameserver(address)
        nameservers = tuple(dns)
    else:
        nameservers = tuple(server for server in host.nameservers if _reachable(server, ipv6=ipv6))
        nameservers = nameservers or FALLBACK + (FALLBACK6 if ipv6 else ())
    wanted = tuple(search) or host.search
    return Resolver(
        nameservers=nameservers,
        search=() if wanted == (".",) else wanted,
        options=tuple(options) or host.options,
    )


def container_resolv_conf(
    *,
    dns: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
    host_network: bool = False,
    ipv6: bool = False,
    names: bool = False,
) -> str:
    """The text of a container's resolv.conf, from the host's file as it is now.

    ``names``: it asks the engine, which asks those servers for what it does not know.
    """
    if host_network:
        text = _read(HOST_FILE)
        if not (dns or search or options):
            return text
        found = parse(text)
        for address in dns:
            check_nameserver(address)
        given = Resolver(
            nameservers=tuple(dns) or found.nameservers,
            search=tuple(search) or found.search,
            options=tuple(options) or found.options,
        )
        return render(given)
    found = container_resolver(host_resolver(), dns=dns, search=search, options=options, ipv6=ipv6)
    if names:
        more = () if any(option.startswith("ndots:") for option in found.options) else ("ndots:0",)
        found = replace(found, nameservers=(EMBEDDED,), options=(*found.options, *more))
    return render(found)


def check_nameserver(address: str) -> None:
    """Raise InvalidArgument in Docker's words unless it is an IP address."""
    try:
        ip_address(address)
    except ValueError as error:
        raise InvalidArgument(f"bad nameserver address {address}: {error}") from error


def host_resolver() -> Resolver:
    """The host's, looking past systemd-resolved's stub to the servers behind it, as Docker does."""
    found = parse(_read(HOST_FILE))
    if found.nameservers == (_RESOLVED_STUB,):
        behind = _read(RESOLVED_FILE)
        return parse(behind) if behind else found
    return found


def upstream(dns: Sequence[str]) -> tuple[str, ...]:
    """The servers that are asked on behalf of a container, from the host's own network namespace."""
    return tuple(dns) or host_nameservers() or FALLBACK


def host_nameservers() -> tuple[str, ...]:
    """The host's resolvers that are valid addresses."""
    found = []
    for server in host_resolver().nameservers:
        with contextlib.suppress(ValueError):
            ip_address(server)
            found.append(server)
    return tuple(found)


def hosts_text(
    *,
    addresses: Iterable[str] = (),
    hostname: str = "",
    domainname: str = "",
    extra: Iterable[str] = (),
    linked: Iterable[tuple[str, str]] = (),
    gateway: str | None = None,
) -> str:
    """The text of a container's hosts file, in Docker's order: local names, ``--add-host``, links, its own
    name.

    ``addresses`` are the container's own, with or without prefix; ``extra`` is ``NAME:ADDRESS`` or
    ``NAME=ADDRESS``, where ADDRESS may be ``host-gateway``: the host as seen from the bridge; ``linked`` are
    (address, names).
    """
    lines = [*_LOCAL_HOSTS, *(extra_host(entry, gateway=gateway) for entry in extra), *linked]
    own = own_names(hostname, domainname)
    if hostname:
        lines.extend((address.partition("/")[0], own) for address in addresses)
    return "".join(f"{address}\t{names}\n" for address, names in lines)


def own_names(hostname: str, domainname: str) -> str:
    """What the lines of a container's own addresses name: its full name, and the first label of that."""
    full = f"{hostname}.{domainname}" if domainname else hostname
    first, dot, _ = full.partition(".")
    return f"{full} {first}" if dot else full


def host_network_hosts_text(extra: Iterable[str] = (), *, gateway: str | None = None) -> str:
    """With the host's network: the host's own file, ``--add-host`` behind it."""
    text = _read("/etc/hosts")
    if text and not text.endswith("\n"):
        text += "\n"
    added = (extra_host(entry, gateway=gateway) for entry in extra)
    return text + "".join(f"{address}\t{name}\n" for address, name in added)


def extra_host(entry: str, *, gateway: str | None) -> tuple[str, str]:
    """(address, name) of one ``--add-host``. Raises InvalidArgument in Docker's words."""
    cut = min((entry.index(mark) for mark in ":=" if mark in entry), default=-1)
    name, address = entry[:cut], entry[cut + 1 :]
    if cut <= 0 or not address:
        raise InvalidArgument(f'bad format for add-host: "{entry}"')
    if address == HOST_GATEWAY:
        if gateway is None:
            raise InvalidArgument("unable to derive the IP value for host-gateway")
        return gateway, name
    bare = address[1:-1] if address[:1] == "[" and address[-1:] == "]" else address
    try:
        ip_address(bare)
    except ValueError as error:
        raise InvalidArgument(f'invalid IP address in add-host: "{address}"') from error
    return bare, name


def _reachable(server: str, *, ipv6: bool) -> bool:
    """Whether a resolver of the host answers from inside a container's network namespace."""
    try:
        # A zone ("fe80::1%eth0") names a link that the container does not have.
        address = ip_address(server)
    except ValueError:
        return False
    if address.is_loopback or (address.version == 6 and "%" in server):
        return False
    return ipv6 or address.version == 4


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""
