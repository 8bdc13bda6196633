"""Images in Docker's shapes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sampan.api.render.times import NEVER, rfc3339
from sampan.engine.imageplatforms import ManifestSummary, Platforms
from sampan.engine.images import Details, Step, Summary
from sampan.images.model import Progress, parse_time
from sampan.spec.image import RunConfig
from sampan.spec.reference import Reference

_PARENT_SHOWN_UNTIL = (1, 51)
_UNITS = ("B", "kB", "MB", "GB", "TB")
_BAR = 50  # characters of a progress bar


def summary(found: Summary, version: tuple[int, int]) -> dict[str, Any]:
    """One entry of ``GET /images/json``."""
    tags, digests = _names(found.names)
    image = found.image
    shown = {
        "Containers": found.containers,
        "Created": int(image.created),
        "Id": image.id,
        "Labels": dict(image.config.config.labels) or None,
        "ParentId": image.config.parent,
        "RepoDigests": digests,
        "RepoTags": tags,
        "SharedSize": found.shared_size,
        "Size": found.size,
    }
    if found.platforms is not None:
        shown |= _platforms(found.platforms)
    if version < (1, 43):
        # Clients of old versions expect a placeholder where there is no name.
        shown["RepoTags"] = tags or ["<none>:<none>"]
        shown["RepoDigests"] = digests or (None if tags else ["<none>@<none>"])
    if version < (1, 44):
        shown["VirtualSize"] = found.size
    return shown


def _platforms(found: Platforms) -> dict[str, Any]:
    return {"Descriptor": found.target.document(), "Manifests": [_manifest(one) for one in found.manifests]}


def _manifest(found: ManifestSummary) -> dict[str, Any]:
    """``ImageManifestSummary``."""
    shown: dict[str, Any] = {
        "ID": found.descriptor.digest,
        "Descriptor": found.descriptor.document(),
        "Available": found.available,
        "Size": {"Content": found.content, "Total": found.content + found.unpacked},
        "Kind": "attestation" if found.platform is None else "image",
    }
    if found.platform is None:
        shown["AttestationData"] = {"For": found.subject}
    else:
        system, architecture, variant = found.platform
        platform = {"architecture": architecture, "os": system, **({"variant": variant} if variant else {})}
        shown["ImageData"] = {
            "Platform": platform,
            "Containers": list(found.containers),
            "Size": {"Unpacked": found.unpacked},
        }
    return shown


def details(found: Details, version: tuple[int, int]) -> dict[str, Any]:
    """``GET /images/{name}/json``."""
    image, document = found.image, found.image.config
    tags, digests = _names(found.names)
    shown: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": tags,
        "RepoDigests": digests,
        "Parent": document.parent,
        "Comment": document.comment,
        "Created": document.created or (NEVER if version < (1, 44) else None),
        "DockerVersion": document.docker_version,
        "Author": document.author,
        "Config": config(document.config, version),
        "Architecture": document.architecture,
        "Variant": document.variant,
        "Os": document.os,
        "OsVersion": document.os_version,
        "Size": image.size,
        "GraphDriver": _graph_driver(found.driver, found.directories),
        "RootFS": {"Type": "layers", "Layers": list(document.diff_ids)},
        "Metadata": {"LastTagTime": rfc3339(image.tagged_ns)},
    }
    for name in ("Variant", "OsVersion"):
        if not shown[name]:
            del shown[name]
    if shown["Created"] is None:
        del shown["Created"]
    if version < (1, 44):
        shown["VirtualSize"] = image.size
    if version < (1, 45):
        shown |= {"Container": "", "ContainerConfig": config(RunConfig(), version)}
    if found.platforms is not None:
        shown |= _platforms(found.platforms)
    return shown


def config(run: RunConfig, version: tuple[int, int]) -> dict[str, Any]:
    """What containers inherit. Since API 1.50 it has only the fields that images have."""
    shown: dict[str, Any] = {
        "User": run.user,
        "ExposedPorts": {port: {} for port in run.exposed_ports},
        "Env": list(run.env) or None,
        "Cmd": None if run.cmd is None else list(run.cmd),
        "Healthcheck": dict(run.healthcheck) if run.healthcheck else None,
        "Volumes": {path: {} for path in run.volumes} or None,
        "WorkingDir": run.working_dir,
        "Entrypoint": None if run.entrypoint is None else list(run.entrypoint),
        "OnBuild": list(run.on_build) or None,
        "Labels": dict(run.labels) or None,
        "StopSignal": run.stop_signal,
        "Shell": None if run.shell is None else list(run.shell),
    }
    if run.args_escaped:
        shown["ArgsEscaped"] = True
    if version >= (1, 50):
        return {name: value for name, value in shown.items() if value or name in ("Cmd", "Entrypoint")}
    for name in ("ExposedPorts", "Healthcheck", "StopSignal", "Shell"):
        if not shown[name]:
            del shown[name]
    return {**_CONTAINER_FIELDS, **shown}


# What a container's configuration has besides, and Docker showed for images until API 1.49.
_CONTAINER_FIELDS: dict[str, Any] = {
    "Hostname": "",
    "Domainname": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Image": "",
}


def step(found: Step) -> dict[str, Any]:
    """One entry of ``GET /images/{name}/history``."""
    tags, _ = _names(found.names)
    return {
        "Comment": found.entry.comment,
        "Created": int(parse_time(found.entry.created)),
        "CreatedBy": found.entry.created_by,
        "Id": found.image.id if found.image else "<missing>",
        "Size": found.size,
        "Tags": tags or None,
    }


def progress_message(message: Progress) -> dict[str, Any]:
    """One message of a stream of progress."""
    if message.stream is not None:
        return {"stream": message.stream}
    shown: dict[str, Any] = {"status": message.status}
    if message.current is not None:
        shown["progressDetail"] = {"current": message.current, "total": message.total}
        shown["progress"] = _bar(message.current, message.total or message.current)
    if message.id is not None:
        shown["id"] = message.id
    return shown


def _bar(current: int, total: int) -> str:
    """``[====>      ]  1.2MB/5MB``."""
    done = min(_BAR, _BAR * current // total) if total else _BAR
    bar = ("=" * done + ">").ljust(_BAR)[: _BAR + 1] if done < _BAR else "=" * _BAR + ">"
    return f"[{bar}] {_size(current):>8}/{_size(total)}"


def _size(count: float) -> str:
    """Bytes in decimal units with four digits, as Docker writes them."""
    unit = 0
    while count >= 1000 and unit < len(_UNITS) - 1:
        count /= 1000
        unit += 1
    return f"{count:.4g}{_UNITS[unit]}"


def _names(names: Iterable[Reference]) -> tuple[list[str], list[str]]:
    """The tags and the digests among the names, as people write them."""
    tags = [name.familiar for name in names if name.tag and not name.digest]
    return tags, [name.familiar for name in names if name.digest]


def _graph_driver(name: str, directories: tuple[str, ...]) -> dict[str, Any]:
    """``directories`` are those that are mounted one over another."""
    if not directories or name in _TREES:
        return {"Data": None, "Name": name}
    data = {"UpperDir": directories[0]}
    if len(directories) > 1:
        data["LowerDir"] = ":".join(directories[1:])
    return {"Data": data, "Name": name}


_TREES = ("vfs", "btrfs", "fuse-overlayfs")
"""Drivers of which Docker shows no directories."""
