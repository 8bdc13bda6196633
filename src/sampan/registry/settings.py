"""What the operator says of registries. A module of its own: reading it loads nothing that speaks to one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CERTIFICATES = ("/etc/sampan/certs.d", "/etc/docker/certs.d")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    """``mirrors`` are base URLs by domain; ``insecure`` are hosts, ``host:port`` and networks (CIDR);
    ``certificates`` are directories; see ``hosts``.
    """

    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    insecure: tuple[str, ...] = ()
    certificates: tuple[str, ...] = CERTIFICATES
