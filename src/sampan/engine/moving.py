"""A data root that was moved: its containers' records say where things were.

Law: what is below the data root is found wherever that is now; what lies elsewhere stays named as it was.
"""

from __future__ import annotations

from msgspec.structs import replace

from sampan.engine.model import Container, MountPoint


def at(data_root: str, container: Container) -> Container:
    """The container as it is below ``data_root``; itself, if it always was there."""
    # Any of its files tells; one that joined another's network has that one's hosts file.
    old = container.resolv_conf_path.rpartition("/containers/")[0]
    if not old or old == data_root:
        return container

    def moved(path: str) -> str:
        return data_root + path[len(old) :] if path.startswith(f"{old}/") else path

    def mount(point: MountPoint) -> MountPoint:
        return replace(point, source=moved(point.source)) if point.name else point

    return replace(
        container,
        hostname_path=moved(container.hostname_path),
        hosts_path=moved(container.hosts_path),
        resolv_conf_path=moved(container.resolv_conf_path),
        log_path=moved(container.log_path),
        mounts=tuple(map(mount, container.mounts)),
    )
