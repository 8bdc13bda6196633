"""Devices by name, ``vendor.com/class=name``: the Container Device Interface specification, up to 1.0.

Vendors leave files (JSON or YAML) in a few directories; each names devices of one kind and says how a
container's specification is edited for them. Laws:

- A later directory wins over an earlier one; two files of one directory that name the same device conflict,
  and the device is not resolved then. A file that cannot be read is passed over with a warning in the log.
- The edits of the file are made once, before those of its devices, in the order in which devices are asked.
- What this engine cannot do for a device is refused, never left out: a device without its hooks may seem to
  work and be wrong. Hooks are of that kind, as no program of the host runs while a container sets itself up;
  an external OCI runtime is given them.

Nothing is read before a container asks for a device. Source: SPEC.md of cncf-tags/container-device-interface.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from sampan.engine.model import DeviceRequest
from sampan.errors import InvalidArgument
from sampan.spec.runtime import device_rule

if TYPE_CHECKING:
    from sampan.spec.runtime import Device, DeviceRule, Hook, Hooks, Mount

log = logging.getLogger(__name__)

DIRECTORIES = ("/etc/cdi", "/var/run/cdi")
_KIND = re.compile(r"[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?/[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?")
_GPUS = "nvidia.com/gpu"
_UNDONE = ("netDevices", "intelRdt")  # edits of specification 1.1 and of hosts with resctrl
_HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def _no_hooks() -> Hooks:
    return {}


@dataclass(slots=True, kw_only=True)
class Edits:
    """What is added to a container's specification."""

    env: list[str] = field(default_factory=list)
    nodes: list[Device] = field(default_factory=list)
    rules: list[DeviceRule] = field(default_factory=list)
    mounts: list[Mount] = field(default_factory=list)
    gids: list[int] = field(default_factory=list)
    hooks: Hooks = field(default_factory=_no_hooks)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A device of a file: ``shared`` are the edits of the file, ``own`` those of the device."""

    path: str
    shared: dict[str, Any]
    own: dict[str, Any]


def edits_for(
    requests: Iterable[DeviceRequest], *, hooks: bool, directories: Sequence[str] = DIRECTORIES
) -> Edits:
    """What ``DeviceRequests`` (--gpus, --device vendor.com/class=name) ask for. Blocks: reads files.

    ``hooks``: the container's runtime runs hooks. InvalidArgument in Docker's words for a request that no
    driver serves, and for a device that is not known or cannot be given.
    """
    known = _read(directories)
    wanted: list[str] = []
    for request in requests:
        wanted.extend(_names(request, known))
    unknown = [name for name in wanted if known.get(name) is None]
    if unknown:
        raise InvalidArgument(f"CDI device injection failed: unresolvable CDI devices {', '.join(unknown)}")
    edits = Edits()
    files: set[str] = set()
    for name in wanted:
        found = known[name]
        assert found is not None
        if found.path not in files:
            files.add(found.path)
            _add(edits, found.shared, name, hooks=hooks)
        _add(edits, found.own, name, hooks=hooks)
    return edits


def _names(request: DeviceRequest, known: dict[str, _Found | None]) -> list[str]:
    """The qualified names of the devices that a request means."""
    ids = list(request.device_ids or ())
    if request.driver == "cdi":
        return ids
    sets = request.capabilities or ()
    gpu = any("gpu" in capabilities for capabilities in sets) and request.driver in ("", "nvidia")
    if gpu and any(name.startswith(f"{_GPUS}=") for name in known):
        chosen = ids or (["all"] if request.count < 0 else [str(i) for i in range(request.count)])
        return [f"{_GPUS}={name}" for name in chosen]
    shown = " ".join(f"[{' '.join(capabilities)}]" for capabilities in sets)
    raise InvalidArgument(f'could not select device driver "{request.driver}" with capabilities: [{shown}]')


# -- files ---------------------------------------------------------------------------------------------


def _read(directories: Sequence[str]) -> dict[str, _Found | None]:
    """Every device by its qualified name; None for one that two files of a directory claim."""
    known: dict[str, _Found | None] = {}
    for directory in directories:
        here: dict[str, _Found | None] = {}
        for path in _files(directory):
            try:
                found = _parse(path)
            except (OSError, ValueError) as error:
                log.warning("CDI: %s is passed over: %s", path, error)
                continue
            for name, device in found.items():
                if name in here:
                    log.warning("CDI: %s is named more than once in %s", name, directory)
                here[name] = None if name in here else device
        known |= here
    return known


def _files(directory: str) -> list[str]:
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return []
    return [f"{directory}/{name}" for name in names if name.endswith((".json", ".yaml", ".yml"))]


def _parse(path: str) -> dict[str, _Found]:
    """The devices of one file. ValueError for what is no specification."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        document = msgspec.json.decode(data) if path.endswith(".json") else _yaml(data)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error
    if not isinstance(document, dict):
        raise ValueError("it is not an object")
    version, kind = document.get("cdiVersion"), document.get("kind")
    if not isinstance(version, str) or version.split(".")[0] not in ("0", "1"):
        raise ValueError(f"unknown cdiVersion {version!r}")
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise ValueError(f"invalid kind {kind!r}")
    shared = _object(document.get("containerEdits"))
    found: dict[str, _Found] = {}
    for device in _objects(document.get("devices")):
        name = device.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"invalid device name {name!r}")
        if f"{kind}={name}" in found:
            raise ValueError(f"device {name} is named more than once")
        own = _object(device.get("containerEdits"))
        found[f"{kind}={name}"] = _Found(path=path, shared=shared, own=own)
    return found


def _yaml(data: bytes) -> object:
    import yaml

    try:
        document: object = yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise ValueError(str(error).replace("\n", " ")) from error
    return document


def _object(document: object) -> dict[str, Any]:
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ValueError("containerEdits is not an object")
    return document


def _objects(document: object) -> list[dict[str, Any]]:
    if document is None:
        return []
    if not isinstance(document, list) or not all(isinstance(entry, dict) for entry in document):
        raise ValueError("a list of objects is something else")
    return document


# -- edits ---------------------------------------------------------------------------------------------


class _Node(msgspec.Struct, frozen=True, rename="camel"):
    path: str
    host_path: str = ""
    type: str = ""
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None


class _Mount(msgspec.Struct, frozen=True, rename="camel"):
    host_path: str
    container_path: str
    options: tuple[str, ...] = ()
    type: str = ""


class _Hook(msgspec.Struct, frozen=True, rename="camel"):
    hook_name: str
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


class _ContainerEdits(msgspec.Struct, frozen=True, rename="camel"):
    """``containerEdits``, as the specification has it."""

    env: tuple[str, ...] = ()
    device_nodes: tuple[_Node, ...] = ()
    mounts: tuple[_Mount, ...] = ()
    hooks: tuple[_Hook, ...] = ()
    additional_gids: tuple[int, ...] = ()


def _add(edits: Edits, document: dict[str, Any], name: str, *, hooks: bool) -> None:
    for feature in _UNDONE:
        if document.get(feature):
            raise InvalidArgument(
                f"CDI device injection failed: {name} asks for {feature}, which is not offered"
            )
    try:
        asked = msgspec.convert({k: v for k, v in document.items() if v is not None}, _ContainerEdits)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"CDI device injection failed: {name}: {error}") from error
    edits.env.extend(asked.env)
    for node in asked.device_nodes:
        _add_node(edits, node, name)
    for mount in asked.mounts:
        _add_mount(edits, mount)
    edits.gids.extend(gid for gid in asked.additional_gids if gid > 0)
    for hook in asked.hooks:
        if not hooks or hook.hook_name not in _HOOKS:
            raise InvalidArgument(
                f"CDI device injection failed: {name} asks for the hook {hook.hook_name} ({hook.path}), "
                "which this runtime does not run; use --runtime runc"
            )
        _add_hook(edits, hook)


def _add_node(edits: Edits, node: _Node, name: str) -> None:
    kind, major, minor = node.type, node.major, node.minor
    mode = 0o666 if node.file_mode is None else node.file_mode
    if not kind or (kind != "p" and not major and not minor):
        source = node.host_path or node.path
        try:
            found = os.stat(source)
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise InvalidArgument(
                f'CDI device injection failed: {name}: failed to stat CDI host device "{source}": {reason}'
            ) from error
        kind = kind or _kind_of(found.st_mode)
        if kind not in ("b", "c", "u", "p"):
            raise InvalidArgument(f'CDI device injection failed: {name}: "{source}" is not a device node')
        major, minor = os.major(found.st_rdev), os.minor(found.st_rdev)
        mode = stat.S_IMODE(found.st_mode) if node.file_mode is None else node.file_mode
    device: Device = {"type": kind, "path": node.path, "fileMode": mode}  # type: ignore[typeddict-item]
    device["major"], device["minor"] = major, minor
    if node.uid is not None:
        device["uid"] = node.uid
    if node.gid is not None:
        device["gid"] = node.gid
    edits.nodes.append(device)
    if kind in ("b", "c", "u"):
        letter: Literal["b", "c"] = "b" if kind == "b" else "c"
        edits.rules.append(device_rule(letter, major, minor, node.permissions or "rwm"))


def _kind_of(mode: int) -> str:
    if stat.S_ISBLK(mode):
        return "b"
    if stat.S_ISCHR(mode):
        return "c"
    return "p" if stat.S_ISFIFO(mode) else ""


def _add_mount(edits: Edits, mount: _Mount) -> None:
    options = [*mount.options]
    if mount.type in ("", "bind") and not {"bind", "rbind"} & set(options):
        options.insert(0, "rbind")
    edits.mounts.append(
        {
            "destination": mount.container_path,
            "type": mount.type or "bind",
            "source": mount.host_path,
            "options": options,
        }
    )


def _add_hook(edits: Edits, hook: _Hook) -> None:
    entry: Hook = {"path": hook.path, "args": [*hook.args], "env": [*hook.env]}
    if hook.timeout is not None:
        entry["timeout"] = hook.timeout
    hooks: dict[str, list[Hook]] = edits.hooks  # type: ignore[assignment]
    hooks.setdefault(hook.hook_name, []).append(entry)
