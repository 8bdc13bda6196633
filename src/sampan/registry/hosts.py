"""Where a registry is reached: its own address, its mirrors, and how each is to be trusted.

Laws: a short name is Docker Hub's; mirrors are asked before the registry itself, for reading only; loopback
and what the operator calls insecure may be spoken to without verified TLS, nothing else.
Certificates are looked for where Docker has them: ``certs.d/HOST[:PORT]/*.crt`` are authorities,
``NAME.cert`` with ``NAME.key`` the client's own.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from sampan.errors import InvalidArgument
from sampan.registry.settings import RegistrySettings
from sampan.spec.reference import DEFAULT_DOMAIN
from sampan.wire.trust import trusting

HUB = "registry-1.docker.io"
HUB_SEARCH = "index.docker.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One address of a registry: ``host`` with its port if any, ``path`` a prefix for mirrors.

    ``schemes`` are tried in this order; only ``insecure`` ones have more than https.
    """

    host: str
    schemes: tuple[str, ...] = ("https",)
    path: str = ""
    insecure: bool = False
    mirror: bool = False
    certificates: tuple[str, ...] = ()


def endpoints(domain: str, settings: RegistrySettings) -> tuple[Endpoint, ...]:
    """The addresses of the registry ``domain``, in the order in which they are to be asked."""
    mirrors = tuple(_mirror(url, settings) for url in settings.mirrors.get(domain, ()))
    return (*mirrors, own(domain, settings))


def own(domain: str, settings: RegistrySettings) -> Endpoint:
    """The address of the registry itself, which alone takes what is pushed."""
    host = HUB if domain == DEFAULT_DOMAIN else domain
    insecure = _is_insecure(host, settings.insecure)
    return Endpoint(
        host=host,
        schemes=("https", "http") if insecure else ("https",),
        insecure=insecure,
        certificates=settings.certificates,
    )


def _mirror(url: str, settings: RegistrySettings) -> Endpoint:
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
    except ValueError:
        raise InvalidArgument(f"invalid mirror: {url} is no URL") from None
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise InvalidArgument(f"invalid mirror: {url} is no http or https URL of a registry")
    insecure = _is_insecure(parts.netloc, settings.insecure)
    return Endpoint(
        host=parts.netloc.rpartition("@")[2],
        schemes=(parts.scheme,),
        path=parts.path.rstrip("/"),
        insecure=insecure,
        mirror=True,
        certificates=settings.certificates,
    )


def _is_insecure(host: str, insecure: tuple[str, ...]) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:  # a name may have brackets around what is no address
        raise InvalidArgument(f"invalid registry: {host}") from None
    if name == "localhost" or host in insecure or name in insecure:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    networks = []
    for entry in insecure:
        try:
            networks.append(ipaddress.ip_network(entry, strict=False))
        except ValueError:
            continue
    return address.is_loopback or any(address in network for network in networks)


def tls_context(endpoint: Endpoint) -> ssl.SSLContext:
    """How to speak TLS with it. InvalidArgument naming the file for certificates that cannot be used."""
    if endpoint.insecure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context = trusting()
    for directory in endpoint.certificates:
        _load(context, f"{directory}/{endpoint.host}")
    return context


def _load(context: ssl.SSLContext, directory: str) -> None:
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        path = f"{directory}/{name}"
        try:
            if name.endswith(".crt"):
                context.load_verify_locations(path)
            elif name.endswith(".cert"):
                context.load_cert_chain(path, path.removesuffix(".cert") + ".key")
        except (OSError, ssl.SSLError) as error:
            raise InvalidArgument(f"could not load the certificate {path}: {error}") from error
