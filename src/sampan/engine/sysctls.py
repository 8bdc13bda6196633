"""Which kernel parameters a container may set: those that its own namespaces have.

The others belong to the whole host; writing them from a container's start would change the host. The lists
are those of namespaces(7), ipc_namespaces(7) and network_namespaces(7); the wording is runc's.
"""

from __future__ import annotations

import re

from sampan.engine.model import HostConfig
from sampan.errors import InvalidArgument

_NAME = re.compile(r"[a-zA-Z0-9_-]+(?:\.[a-zA-Z0-9_:-]+)+")
_IPC_WORDS = "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced"
_IPC = frozenset(f"kernel.{word}" for word in _IPC_WORDS.split())


def check(host: HostConfig) -> None:
    """Raise InvalidArgument for a parameter that is not the container's own."""
    for name in host.sysctls or {}:
        if not _NAME.fullmatch(name):
            raise InvalidArgument(f'sysctl "{name}" is not in a separate kernel namespace')
        if name.startswith("net."):
            if host.network_mode == "host":
                raise InvalidArgument(f'sysctl "{name}" not allowed in host network namespace')
        elif name in _IPC or name.startswith("fs.mqueue."):
            if host.ipc_mode == "host":
                raise InvalidArgument(f'sysctl "{name}" is not allowed in the hosts ipc namespace')
        elif name == "kernel.domainname":
            if host.uts_mode == "host":
                raise InvalidArgument(f'sysctl "{name}" is not allowed in the hosts uts namespace')
        elif name == "kernel.hostname":
            raise InvalidArgument(
                f'sysctl "{name}" is not allowed as it conflicts with the OCI "hostname" field'
            )
        else:
            raise InvalidArgument(f'sysctl "{name}" is not in a separate kernel namespace')
