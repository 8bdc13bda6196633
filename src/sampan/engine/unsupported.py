"""What Docker has and this engine does not offer on this host: refused in one line that says why."""

from __future__ import annotations

from sampan import errors
from sampan.engine.model import HostConfig


def refuse(host: HostConfig) -> None:
    """Raise for ``--storage-opt``: its size needs project quotas, and Docker says so in words that clients
    look for before they try without."""
    for name in host.storage_opt or {}:
        if name.lower() != "size":
            raise errors.InvalidArgument(f"Unknown option {name}")
    if host.storage_opt:
        raise errors.InvalidArgument(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"
        )
