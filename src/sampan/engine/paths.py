"""Where one engine keeps its files. Built once by ``daemon.main``; nothing else spells a path.

data root: survives reboots. exec root: sockets and bundles of what runs now; gone after a reboot.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """All paths are absolute. ``data`` and ``run`` are the data root and the exec root."""

    data: str
    run: str

    @property
    def database(self) -> str:
        return f"{self.data}/state.db"

    @property
    def blobs(self) -> str:
        """Content-addressed blobs; files are ``<algorithm>/<hex>`` below."""
        return f"{self.data}/blobs"

    @property
    def layers(self) -> str:
        return f"{self.data}/layers"

    @property
    def snapshots(self) -> str:
        """Writable layers of containers."""
        return f"{self.data}/snapshots"

    @property
    def containers(self) -> str:
        return f"{self.data}/containers"

    @property
    def volumes(self) -> str:
        return f"{self.data}/volumes"

    @property
    def seccomp(self) -> str:
        """Compiled seccomp filters."""
        return f"{self.data}/seccomp"

    @property
    def temporary(self) -> str:
        """Emptied when the daemon starts."""
        return f"{self.data}/tmp"

    @property
    def socket(self) -> str:
        return f"{self.run}/sampan.sock"

    @property
    def bundles(self) -> str:
        return f"{self.run}/containers"

    @property
    def volume_marks(self) -> str:
        """Who uses which mounted volume: see ``volumes.mounting.Marks``."""
        return f"{self.run}/volumes"

    def container(self, container_id: str) -> str:
        """A container's persistent directory: log, hosts, resolv.conf, hostname, exit.json."""
        return f"{self.data}/containers/{container_id}"

    def container_log(self, container_id: str) -> str:
        return f"{self.data}/containers/{container_id}/{container_id}-json.log"

    def exit_record(self, container_id: str) -> str:
        return f"{self.data}/containers/{container_id}/exit.json"

    def bundle(self, container_id: str) -> str:
        """A running container's directory: keeper.sock and what the sandbox needs."""
        return f"{self.run}/containers/{container_id}"
