"""OCI image documents: the image configuration and the image manifest, each with its raw bytes.

Laws: ``raw`` is what was received or written, and the digest is computed over it; the typed view beside it
is for reading only and knows both the OCI and the Docker spelling. A new document is made by ``encode`` once,
and its bytes are then as fixed as received ones. Unknown members stay in ``raw``.

Source: OCI image-spec config.md and manifest.md; Docker image specification v1.2 for ``Healthcheck``,
``OnBuild``, ``Shell`` and ``ArgsEscaped``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sampan.errors import InvalidArgument
from sampan.spec import digest as digests
from sampan.spec import foreign

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sampan.spec.digest import Digest

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
INDEXES = frozenset((OCI_INDEX, DOCKER_INDEX))
MANIFESTS = frozenset((OCI_MANIFEST, DOCKER_MANIFEST))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """What a container of the image inherits: the ``config`` member of the image configuration."""

    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: tuple[str, ...] = ()
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    healthcheck: Mapping[str, Any] | None = None
    """As in the API: Test, and Interval, Timeout, StartPeriod in nanoseconds, Retries."""
    on_build: tuple[str, ...] = ()
    shell: tuple[str, ...] | None = None
    args_escaped: bool = False

    def document(self) -> dict[str, Any]:
        """The JSON object that stands for this; empty members are left out, as Docker's encoder does."""
        members: dict[str, Any] = {
            "User": self.user,
            "ExposedPorts": {port: {} for port in self.exposed_ports},
            "Env": list(self.env),
            "Entrypoint": None if self.entrypoint is None else list(self.entrypoint),
            "Cmd": None if self.cmd is None else list(self.cmd),
            "Healthcheck": dict(self.healthcheck) if self.healthcheck else None,
            "Volumes": {path: {} for path in self.volumes},
            "WorkingDir": self.working_dir,
            "Labels": dict(self.labels),
            "StopSignal": self.stop_signal,
            "OnBuild": list(self.on_build),
            "Shell": None if self.shell is None else list(self.shell),
            "ArgsEscaped": self.args_escaped,
        }
        # An empty entrypoint is a statement: it resets what a parent image set.
        return {key: value for key, value in members.items() if value or (key, value) == ("Entrypoint", [])}


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One step that made the image; ``empty_layer`` steps changed only the configuration."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageDocument:
    """An image configuration. The image id is ``digest``."""

    raw: bytes
    digest: Digest
    architecture: str
    os: str
    variant: str
    os_version: str
    created: str
    """RFC 3339 as written, or empty."""
    author: str
    comment: str
    docker_version: str
    parent: str
    """The parent's image id, of images built or committed on this machine; else empty."""
    config: RunConfig
    diff_ids: tuple[Digest, ...]
    """Bottom layer first."""
    history: tuple[HistoryEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A typed, sized, digested pointer to a blob."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Mapping[str, Any] | None = None

    def document(self) -> dict[str, Any]:
        """The JSON object that stands for this."""
        members: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            members["annotations"] = dict(self.annotations)
        if self.platform:
            members["platform"] = dict(self.platform)
        return members


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """An image manifest: which blobs an image is made of."""

    raw: bytes
    digest: Digest
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A list of manifests, by platform or by name."""

    raw: bytes
    digest: Digest
    media_type: str
    manifests: tuple[Descriptor, ...]


def encode(document: Mapping[str, Any] | list[Any]) -> bytes:
    """The bytes of a new document: compact, members in the order given: equal input, equal bytes."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def history(document: ImageDocument) -> list[dict[str, Any]]:
    """The history as JSON objects, for a document that goes on with it."""
    names = ("created", "created_by", "author", "comment", "empty_layer")
    return [{name: value for name in names if (value := getattr(entry, name))} for entry in document.history]


def parse_image(raw: bytes) -> ImageDocument:
    """The image configuration in ``raw``; InvalidArgument names what is wrong with it."""
    where = "image config"
    top = _object(raw, where)
    rootfs = _member(top, "rootfs", dict, where)
    if rootfs.get("type") != "layers":
        raise InvalidArgument(f"{where}: unknown rootfs type {rootfs.get('type')!r}")
    diff_ids = tuple(digests.parse(text) for text in _strings(rootfs.get("diff_ids"), f"{where}: diff_ids"))
    return ImageDocument(
        raw=raw,
        digest=digests.of(raw),
        architecture=_text(top, "architecture", where),
        os=_text(top, "os", where) or "linux",
        variant=_text(top, "variant", where),
        os_version=_text(top, "os.version", where),
        created=_text(top, "created", where),
        author=_text(top, "author", where),
        comment=_text(top, "comment", where),
        docker_version=_text(top, "docker_version", where),
        parent=_text(top, "parent", where),
        config=_run_config(_member(top, "config", dict, where)),
        diff_ids=diff_ids,
        history=tuple(_history(entry) for entry in _member(top, "history", list, where)),
    )


def parse_manifest(raw: bytes, media_type: str = "") -> Manifest:
    """The manifest in ``raw``; ``media_type``, from its transport, serves where the document is silent."""
    where = "image manifest"
    top = _object(raw, where)
    if top.get("schemaVersion") != 2:
        raise InvalidArgument(f"{where}: unsupported schema version {top.get('schemaVersion')!r}")
    return Manifest(
        raw=raw,
        digest=digests.of(raw),
        media_type=_text(top, "mediaType", where) or media_type or OCI_MANIFEST,
        config=parse_descriptor(_member(top, "config", dict, where), f"{where}: config"),
        layers=tuple(
            parse_descriptor(entry, f"{where}: layer") for entry in _member(top, "layers", list, where)
        ),
    )


def parse_index(raw: bytes, media_type: str = "") -> Index:
    """The index (or Docker manifest list) in ``raw``; ``media_type`` serves where the document is silent."""
    where = "image index"
    top = _object(raw, where)
    if top.get("schemaVersion") != 2:
        raise InvalidArgument(f"{where}: unsupported schema version {top.get('schemaVersion')!r}")
    entries = _member(top, "manifests", list, where)
    return Index(
        raw=raw,
        digest=digests.of(raw),
        media_type=_text(top, "mediaType", where) or media_type or OCI_INDEX,
        manifests=tuple(parse_descriptor(entry, where) for entry in entries),
    )


def parse_descriptor(value: object, where: str) -> Descriptor:
    """The descriptor in a decoded JSON value."""
    if not isinstance(value, dict):
        raise InvalidArgument(f"{where}: not a descriptor")
    size = value.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise InvalidArgument(f"{where}: invalid size {size!r}")
    return Descriptor(
        media_type=_text(value, "mediaType", where),
        digest=digests.parse(_text(value, "digest", where)),
        size=size,
        annotations=_labels(value.get("annotations"), where),
        platform=_member(value, "platform", dict, where) or None,
    )


def _run_config(value: dict[str, Any]) -> RunConfig:
    where = "image config"
    health = _member(value, "Healthcheck", dict, where) or None
    return RunConfig(
        user=_text(value, "User", where),
        exposed_ports=tuple(_member(value, "ExposedPorts", dict, where)),
        env=_strings(value.get("Env"), f"{where}: Env"),
        entrypoint=_optional_strings(value.get("Entrypoint"), f"{where}: Entrypoint"),
        cmd=_optional_strings(value.get("Cmd"), f"{where}: Cmd"),
        volumes=tuple(_member(value, "Volumes", dict, where)),
        working_dir=_text(value, "WorkingDir", where),
        labels=_labels(value.get("Labels"), f"{where}: Labels"),
        stop_signal=_text(value, "StopSignal", where),
        healthcheck=health,
        on_build=_strings(value.get("OnBuild"), f"{where}: OnBuild"),
        shell=_optional_strings(value.get("Shell"), f"{where}: Shell"),
        args_escaped=value.get("ArgsEscaped") is True,
    )


def _history(value: object) -> HistoryEntry:
    where = "image config: history"
    if not isinstance(value, dict):
        raise InvalidArgument(f"{where}: not an object")
    return HistoryEntry(
        created=_text(value, "created", where),
        created_by=_text(value, "created_by", where),
        author=_text(value, "author", where),
        comment=_text(value, "comment", where),
        empty_layer=value.get("empty_layer") is True,
    )


def _object(raw: bytes, where: str) -> dict[str, Any]:
    try:
        value = foreign.decode(raw)
    except ValueError as error:
        raise InvalidArgument(f"{where}: invalid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidArgument(f"{where}: not a JSON object")
    return value


def _text(value: Mapping[str, Any], name: str, where: str) -> str:
    """A string member; absent and null are empty."""
    text = value.get(name)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise InvalidArgument(f"{where}: {name} is not a string")
    return text


def _member(value: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    """A member of type ``kind``; absent and null are its empty value."""
    found = value.get(name)
    if found is None:
        return kind()
    if not isinstance(found, kind):
        raise InvalidArgument(f"{where}: {name} has the wrong type")
    return found


def _optional_strings(value: object, where: str) -> tuple[str, ...] | None:
    return None if value is None else _strings(value, where)


def _strings(value: object, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)  # Docker accepts a bare string where a list is expected
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidArgument(f"{where}: not a list of strings")
    return tuple(value)


def _labels(value: object, where: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise InvalidArgument(f"{where}: not a map of strings")
    return value
