"""The addresses that the daemon listens on, each with the guards that the settings ask for.

Law: TCP means TLS. Without it, whoever reaches the port is root on this machine, so that has to be asked for
in so many words (``--tls=false``), and is warned of even then.
"""

from __future__ import annotations

import grp
import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sampan.api.audit import Audit
from sampan.api.confined import Confined
from sampan.api.doors import Door, Guard, ReadersOnly
from sampan.api.quotas import NAMES, Amounts, Quotas
from sampan.daemon.values import size
from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    import ssl

    from sampan.api.server import Server
    from sampan.daemon.options import Options
    from sampan.daemon.service import Service
    from sampan.engine.facade import Engine

log = logging.getLogger(__name__)

_FILES = {"tlscacert": "ca.pem", "tlscert": "cert.pem", "tlskey": "key.pem"}


async def listen(
    server: Server, options: Options, service: Service, engine: Engine, everywhere: tuple[Guard, ...] = ()
) -> None:
    """Open every door of the settings. InvalidArgument for an address or a file that cannot be used.

    ``everywhere`` are guards of every door, before those that the settings ask for.
    """
    settings = options.settings
    judges = await _judges(settings["authorization-plugins"])
    quotas = {
        group: Quotas(group, amounts(group, text), engine)
        for group, text in settings["confined-limits"].items()
    }
    for group in quotas.keys() - set(options.confined_hosts.values()):
        raise InvalidArgument(f"--confined-limit: no socket is confined to the group {group}")

    def confined(group: str) -> list[Guard]:
        return [Confined(group, engine), *([quotas[group]] if group in quotas else [])]

    doors: dict[str, tuple[list[Guard], str]] = {
        **{host: ([], options.group) for host in options.hosts},
        **{host: ([ReadersOnly()], options.group) for host in options.read_only_hosts},
        **{host: (confined(group), group) for host, group in options.confined_hosts.items()},
    }
    for host, (own, group) in doors.items():
        # Refusals are written down too: who writes down is asked first, and told last.
        audit = [Audit(settings["audit-log"], host)] if settings["audit-log"] else []
        door = Door(name=host, guards=(*everywhere, *audit, *own, *judges))
        await _open(server, door, options, service, group)


def amounts(group: str, text: str) -> Amounts:
    """What the text of a limit says: ``containers=10,memory=4g``."""
    found: dict[str, int] = {}
    for item in text.split(","):
        name, _, value = item.partition("=")
        if name not in NAMES:
            raise InvalidArgument(
                f"--confined-limit {group}: invalid {item!r}; use one of {', '.join(NAMES)}"
            )
        try:
            found[name] = {"memory": size, "cpus": _cores}.get(name, int)(value)
        except (ValueError, OverflowError, InvalidArgument):
            raise InvalidArgument(f"--confined-limit {group}: invalid {item!r}") from None
        if found[name] < 0:
            raise InvalidArgument(f"--confined-limit {group}: invalid {item!r}")
    return found


def _cores(text: str) -> int:
    """Billionths of a core."""
    return int(float(text) * 10**9)


async def _judges(names: Sequence[str]) -> list[Guard]:
    """The plugins that are asked about every request. InvalidArgument naming one that is not there."""
    if not names:
        return []
    from sampan.api.authorization import Authorization
    from sampan.plugins.discovery import Places

    authorization = Authorization(names, Places())
    await authorization.ready()
    return [authorization]


async def _open(server: Server, door: Door, options: Options, service: Service, group: str) -> None:
    host = door.name
    scheme, separator, rest = host.partition("://")
    if not separator:
        scheme, rest = "unix", host
    if scheme == "unix":
        await server.listen_unix(rest, gid=_group_id(group), door=door)
    elif scheme == "fd":
        for listener in service.listeners(host):
            await server.listen(listener, door)
    elif scheme == "tcp":
        address, _, port = rest.rpartition(":")
        if not port.isdecimal() or int(port) > 65535:
            raise InvalidArgument(f"invalid bind address format: {host}")
        secure = _secure(host, options.settings)
        await server.listen_tcp(address.strip("[]") or "127.0.0.1", int(port), rules=secure, door=door)
    else:
        raise InvalidArgument(
            f"invalid bind address format: {host}; use unix://PATH, tcp://HOST:PORT or fd://"
        )


def _secure(host: str, settings: Mapping[str, Any]) -> ssl.SSLContext | None:
    """The TLS of a TCP address, as dockerd's flags ask for it; None when it was declined."""
    verify = settings["tlsverify"]
    if not settings["tls"] and not verify:
        if settings["tls"] is None and verify is None:
            raise InvalidArgument(
                f"{host} would give whoever reaches it root on this machine: set --tlsverify, --tlscacert, "
                "--tlscert and --tlskey, or --tls=false if it is to be so"
            )
        log.warning("%s is open to whoever reaches it: it gives them root on this machine", host)
        return None
    from sampan.api.tls import Identity, rules

    if not verify:
        log.warning("%s does not ask for clients' certificates: set --tlsverify", host)
    directory = os.environ.get("DOCKER_CERT_PATH") or os.path.expanduser("~/.docker")
    paths = {key: settings[key] or f"{directory}/{name}" for key, name in _FILES.items()}
    return rules(
        Identity(
            certificate=paths["tlscert"],
            key=paths["tlskey"],
            authority=paths["tlscacert"] if verify else "",
        )
    )


def _group_id(name: str) -> int | None:
    if not name:
        return None
    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise InvalidArgument(f"group {name} not found") from None
