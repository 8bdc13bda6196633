"""An image for several platforms, made here and uploaded to a registry as its own tools would."""

from __future__ import annotations

import gzip
import json
import urllib.request
from dataclasses import dataclass, field
from typing import Any

from sampan.spec import digest as digests
from sampan.spec import image as documents
from tests import archives

DOCKER = (
    documents.DOCKER_INDEX,
    documents.DOCKER_MANIFEST,
    documents.DOCKER_CONFIG,
    f"{documents.DOCKER_LAYER}.gzip",
)
OCI = (documents.OCI_INDEX, documents.OCI_MANIFEST, documents.OCI_CONFIG, f"{documents.OCI_LAYER}+gzip")
PLATFORMS = ("linux/amd64", "linux/arm64/v8", "linux/arm/v7")


@dataclass(slots=True)
class Made:
    """An index with all that it leads to. ``blobs`` and ``manifests`` by digest; ``index`` is its bytes."""

    index: bytes
    kind: str
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """(media type, bytes)"""
    digests: dict[str, str] = field(default_factory=dict)
    """The manifest's digest of each platform."""
    ids: dict[str, str] = field(default_factory=dict)
    """The configuration's digest of each platform."""


def make(
    files: dict[str, bytes | Any] | bytes, kinds: tuple[str, str, str, str] = OCI, seed: str = ""
) -> Made:
    """Two layers for each platform: ``files`` (or their tar), which they share, and ``/platform``."""
    shared = files if isinstance(files, bytes) else archives.pack(files)
    index_kind, manifest_kind, config_kind, layer_kind = kinds
    made = Made(index=b"", kind=index_kind)
    entries = []
    for platform in PLATFORMS:
        system, architecture, *variant = platform.split("/")
        layers = [shared, archives.layer(platform=f"{platform}{seed}\n".encode())]
        words = {"os": system, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
        config = archives.config(layers, config={"Env": ["PATH=/bin"], "Cmd": ["sh"]}, **words)
        packed = [gzip.compress(one, mtime=0) for one in layers]
        manifest = documents.encode(
            {
                "schemaVersion": 2,
                "mediaType": manifest_kind,
                "config": archives.descriptor(config, config_kind),
                "layers": [archives.descriptor(one, layer_kind) for one in packed],
            }
        )
        made.blobs |= {digests.of(one): one for one in (config, *packed)}
        made.manifests[digests.of(manifest)] = (manifest_kind, manifest)
        made.digests[platform], made.ids[platform] = digests.of(manifest), digests.of(config)
        entries.append(archives.descriptor(manifest, manifest_kind, platform=words))
    made.index = documents.encode({"schemaVersion": 2, "mediaType": index_kind, "manifests": entries})
    return made


def upload(registry: str, repository: str, tag: str, made: Made) -> None:
    """Put the whole into a registry without TLS; each platform has a tag of its own too."""
    base = f"http://{registry}/v2/{repository}"
    for digest, data in made.blobs.items():
        with urllib.request.urlopen(_request("POST", f"{base}/blobs/uploads/", b"")) as answer:
            location = answer.headers["Location"]
        mark = "&" if "?" in location else "?"
        urllib.request.urlopen(_request("PUT", f"{location}{mark}digest={digest}", data)).close()
    for platform, digest in made.digests.items():
        kind, raw = made.manifests[digest]
        for name in (digest, f"{tag}-{platform.split('/')[1]}"):
            urllib.request.urlopen(_request("PUT", f"{base}/manifests/{name}", raw, kind)).close()
    urllib.request.urlopen(_request("PUT", f"{base}/manifests/{tag}", made.index, made.kind)).close()


def manifest(registry: str, repository: str, name: str) -> tuple[str, Any]:
    """(media type, document) that a registry has under a tag or digest."""
    request = _request("GET", f"http://{registry}/v2/{repository}/manifests/{name}", None)
    request.add_header("Accept", ", ".join((*documents.INDEXES, *documents.MANIFESTS)))
    with urllib.request.urlopen(request) as answer:
        return answer.headers["Content-Type"], json.loads(answer.read())


def _request(method: str, url: str, data: bytes | None, kind: str = "") -> urllib.request.Request:
    headers = {"Content-Type": kind or "application/octet-stream"} if data is not None else {}
    return urllib.request.Request(url, data=data, method=method, headers=headers)
