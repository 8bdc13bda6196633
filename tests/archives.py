"""Archives of images for tests: docker-save and OCI layouts, built member by member."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from typing import Any

from sampan.spec import digest as digests
from sampan.spec import image as documents
from sampan.wire import tar
from sampan.wire.tar import Member


def pack(files: dict[str, bytes | Member], *, end: bytes = tar.END) -> bytes:
    """A tar of files by name; a Member stands for itself."""
    out = b""
    for name, data in files.items():
        if isinstance(data, Member):
            out += tar.header(data)
        else:
            out += (
                tar.header(Member(name=name.encode(), size=len(data))) + data + bytes(tar.padding(len(data)))
            )
    return out + end


def layer(**files: bytes) -> bytes:
    """The tar of a layer."""
    return pack(dict(files))


def config(layers: Sequence[bytes], **members: Any) -> bytes:
    """The configuration of an image of these plain layers."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "rootfs": {"type": "layers", "diff_ids": [digests.of(one) for one in layers]},
        **members,
    }
    return json.dumps(document).encode()


def docker_files(
    layers: Sequence[bytes], names: Sequence[str] = (), *, zipped: bool = False, **members: Any
) -> dict[str, bytes | Member]:
    """The members of an archive in the layout of Docker before 25."""
    raw = config(layers, **members)
    name = digests.hex_of(digests.of(raw)) + ".json"
    files: dict[str, bytes | Member] = {}
    paths = []
    for number, one in enumerate(layers):
        paths.append(f"{number}/layer.tar")
        files[paths[-1]] = gzip.compress(one, mtime=0) if zipped else one
    files[name] = raw
    files["manifest.json"] = json.dumps([{"Config": name, "RepoTags": list(names), "Layers": paths}]).encode()
    return files


def descriptor(data: bytes, media_type: str, **members: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digests.of(data), "size": len(data), **members}


def oci_files(layers: Sequence[bytes], name: str = "", **members: Any) -> dict[str, bytes | Member]:
    """The members of an OCI layout with gzip layers."""
    raw = config(layers, **members)
    packed = [gzip.compress(one, mtime=0) for one in layers]
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": documents.OCI_MANIFEST,
            "config": descriptor(raw, documents.OCI_CONFIG),
            "layers": [descriptor(one, documents.OCI_LAYER + "+gzip") for one in packed],
        }
    ).encode()
    notes = {"annotations": {"org.opencontainers.image.ref.name": name}} if name else {}
    index = {"schemaVersion": 2, "manifests": [descriptor(manifest, documents.OCI_MANIFEST, **notes)]}
    blobs = {f"blobs/sha256/{digests.hex_of(digests.of(one))}": one for one in (raw, manifest, *packed)}
    return {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps(index).encode(),
        **blobs,
    }
