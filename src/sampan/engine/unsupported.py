"""Flags that Docker has and this engine does not offer yet: refused in one line that names the flag.

A table of (flag, whether it was used). Harmless values of the same fields pass.
"""

from __future__ import annotations

from collections.abc import Callable

from sampan import errors
from sampan.engine.model import ContainerConfig, HostConfig

Asked = Callable[[ContainerConfig, HostConfig], bool]

# An IPC, PID or network namespace of another container needs the shared sandbox of a later step.
_TABLE: tuple[tuple[str, Asked], ...] = (("--link", lambda _, host: bool(host.links)),)


def refuse(config: ContainerConfig, host: HostConfig) -> None:
    """Raise NotImplemented for the first flag that is not offered. ``config`` is as the user gave it."""
    for flag, asked in _TABLE:
        if asked(config, host):
            raise errors.NotImplemented(f"{flag} is not offered by this engine yet")
    _refuse_storage(host)


def _refuse_storage(host: HostConfig) -> None:
    """Raise for ``--storage-opt``: its size needs project quotas, and Docker says so in words that clients
    look for before they try without."""
    for name in host.storage_opt or {}:
        if name.lower() != "size":
            raise errors.InvalidArgument(f"Unknown option {name}")
    if host.storage_opt:
        raise errors.InvalidArgument(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"
        )
