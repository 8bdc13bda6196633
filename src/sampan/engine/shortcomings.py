"""What this host lacks besides limits, and what follows from it, in words for ``info`` (docs/hosts.md).

Law: an engine on a poor host serves what can be served, and whoever asks is told of the rest beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator

from sampan.linux import capabilities
from sampan.network.host import has_ipv6

_CAP_NET_ADMIN, _CAP_SYS_RESOURCE = 12, 24


def shortcomings(*, bridge: str, driver: str, layering: str, cgroup_version: str) -> Iterator[str]:
    """One sentence for each. ``bridge``: why there is no default network; ``layering``: why the storage
    driver had to be ``driver`` and not overlay2. Either is empty where there is nothing to tell."""
    if bridge:
        yield f"{bridge}; containers can have the networks none and host"
    if not has_ipv6():
        yield "IPv6 is turned off, or not in the kernel; no network can have it"
    if layering:
        yield f"overlayfs cannot be used ({layering}); images are laid out by {driver}"
    held = capabilities.capget()[0]
    if cgroup_version == "2" and not held >> _CAP_NET_ADMIN & 1:
        yield (
            "No CAP_NET_ADMIN; no container can be started: "
            "with cgroups version 2 the kernel asks for it where devices are withheld"
        )
    if not held >> _CAP_SYS_RESOURCE & 1:
        yield (
            "No CAP_SYS_RESOURCE; ulimits above the engine's own are cut to these, "
            "and negative OOM scores are refused"
        )
