"""The files that a container finds at /etc/hostname, /etc/hosts and /etc/resolv.conf.

Written before each start into the container's directory, and bound over those of its image.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sampan.engine.model import Container
from sampan.network import resolv
from sampan.sandbox.resolver import ADDRESS

if TYPE_CHECKING:
    from sampan.engine.settings import Settings
    from sampan.sandbox.messages import Endpoint


def write(
    container: Container,
    settings: Settings,
    endpoints: Sequence[Endpoint],
    *,
    names: bool = False,
    linked: Iterable[tuple[str, str]] = (),
) -> dict[str, str]:
    """Write the three files; the answer maps each to its place in the container.

    ``names``: it asks the engine for names. ``linked`` are (address, names) of others.
    """
    config, host = container.config, container.host
    on_host = host.network_mode == "host"
    gateway = next((endpoint.gateway for endpoint in endpoints if endpoint.gateway), None)
    if on_host:
        hosts = resolv.host_network_hosts_text(host.extra_hosts or (), gateway=gateway)
    else:
        hosts = resolv.hosts_text(
            addresses=[address for endpoint in endpoints for address in endpoint.addresses],
            hostname=config.hostname,
            domainname=config.domainname,
            extra=host.extra_hosts or (),
            linked=linked,
            gateway=gateway,
        )
    resolv_conf = _resolv_conf(container, settings, names=names)
    _put(container.resolv_conf_path, resolv_conf)
    _put(container.hostname_path, f"{config.hostname}\n")
    _put(container.hosts_path, hosts)
    return placed(container)


def ask_for_names(container: Container, settings: Settings) -> None:
    """Let a running container ask the engine for names from now on."""
    with contextlib.suppress(OSError):
        _put(container.resolv_conf_path, _resolv_conf(container, settings, names=True))


def asks_for_names(container: Container) -> bool:
    """Whether a running container has been told to ask the engine, be it on a network with names or not."""
    with contextlib.suppress(OSError), open(container.resolv_conf_path, encoding="utf-8") as file:
        return f"nameserver {ADDRESS}\n" in file.read()
    return False


def _resolv_conf(container: Container, settings: Settings, *, names: bool) -> str:
    host, options = container.host, settings.options
    return resolv.container_resolv_conf(
        dns=host.dns or options.dns,
        search=host.dns_search or options.dns_search,
        options=host.dns_options or options.dns_options,
        host_network=host.network_mode == "host",
        names=names,
    )


def add_address(container: Container, addresses: Iterable[str]) -> None:
    """Name a further address of a running container in its hosts file."""
    config = container.config
    own = resolv.own_names(config.hostname, config.domainname)
    lines = "".join(f"{address.partition('/')[0]}\t{own}\n" for address in addresses)
    with contextlib.suppress(OSError), open(container.hosts_path, "a", encoding="utf-8") as file:
        file.write(lines)


def remove_address(container: Container, address: str) -> None:
    """Take the lines of an address from the hosts file of a running container; all others stay."""
    with (
        contextlib.suppress(OSError),
        open(container.hosts_path, "r+", encoding="utf-8", errors="surrogateescape") as file,
    ):
        kept = [line for line in file if line.split("\t")[0] != address]
        file.seek(0)
        file.writelines(kept)
        file.truncate()


def readdress(container: Container, alias: str, address: str) -> None:
    """Lead the name of a linked container elsewhere in the hosts file of a running container."""
    _rewrite_links(container, alias, address)


def unlink_host(container: Container, alias: str) -> None:
    """Take the line of a linked container from the hosts file of a running container."""
    _rewrite_links(container, alias, None)


def _rewrite_links(container: Container, alias: str, address: str | None) -> None:
    """Lines whose first name is ``alias`` get the address, or go; all others stay."""
    with (
        contextlib.suppress(OSError),
        open(container.hosts_path, "r+", encoding="utf-8", errors="surrogateescape") as file,
    ):
        kept = []
        for line in file:
            names = line.partition("\t")[2]
            if names.split()[:1] != [alias]:
                kept.append(line)
            elif address is not None:
                kept.append(f"{address}\t{names}")
        file.seek(0)
        file.writelines(kept)
        file.truncate()


def sharing(container: Container, owner: Container) -> Container:
    """The container with the files and the names of the one whose network it joins."""
    names = replace(container.config, hostname=owner.config.hostname, domainname=owner.config.domainname)
    return replace(
        container,
        config=names,
        hostname_path=owner.hostname_path,
        hosts_path=owner.hosts_path,
        resolv_conf_path=owner.resolv_conf_path,
    )


def placed(container: Container) -> dict[str, str]:
    """The three files, each with its place in the container."""
    return {
        container.resolv_conf_path: "/etc/resolv.conf",
        container.hostname_path: "/etc/hostname",
        container.hosts_path: "/etc/hosts",
    }


def _put(path: str, text: str) -> None:
    # Written in place: a bind of an earlier start would otherwise hold on to an old file.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
