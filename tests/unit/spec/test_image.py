"""Image documents: raw bytes and the typed view; what is malformed is refused with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sampan.errors import InvalidArgument
from sampan.spec import digest as digests
from sampan.spec import image as documents
from sampan.spec.image import RunConfig

DIFF = "sha256:" + "d" * 64


def config(**members: Any) -> bytes:
    base = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [DIFF]}}
    return json.dumps({**base, **members}, indent=1).encode()


def test_the_id_is_the_digest_of_the_received_bytes() -> None:
    raw = config(unknown={"b": 1, "a": 2})
    image = documents.parse_image(raw)
    assert image.raw is raw
    assert image.digest == digests.of(raw)
    assert image.diff_ids == (DIFF,)


def test_the_typed_view_reads_dockers_members() -> None:
    raw = config(
        created="2024-01-01T00:00:00Z",
        config={
            "User": "1:2",
            "ExposedPorts": {"80/tcp": {}},
            "Env": ["A=b"],
            "Entrypoint": None,
            "Cmd": "sh",
            "Volumes": {"/v": {}},
            "Labels": {"l": "v"},
            "Healthcheck": {"Test": ["NONE"]},
            "OnBuild": ["RUN x"],
        },
        history=[{"created_by": "x", "empty_layer": True}],
    )
    run = documents.parse_image(raw).config
    assert run == RunConfig(
        user="1:2",
        exposed_ports=("80/tcp",),
        env=("A=b",),
        cmd=("sh",),
        volumes=("/v",),
        labels={"l": "v"},
        healthcheck={"Test": ["NONE"]},
        on_build=("RUN x",),
    )
    assert documents.parse_image(raw).history[0].empty_layer


def test_a_configuration_survives_its_document() -> None:
    run = RunConfig(env=("A=b",), entrypoint=(), cmd=("a", "b"), labels={"x": ""}, shell=("sh",))
    raw = config(config=run.document())
    assert documents.parse_image(raw).config == run
    assert RunConfig().document() == {}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "invalid JSON"),
        (b"[]", "not a JSON object"),
        (b"[" * 100_000, "invalid JSON"),
        (b"{}", "unknown rootfs type None"),
        (config(rootfs={"type": "layers", "diff_ids": ["x"]}), "invalid checksum digest format"),
        (config(rootfs={"type": "layers", "diff_ids": 1}), "diff_ids: not a list of strings"),
        (config(architecture=1), "architecture is not a string"),
        (config(config=[]), "config has the wrong type"),
        (config(config={"Env": [1]}), "Env: not a list of strings"),
        (config(config={"Labels": {"a": 1}}), "Labels: not a map of strings"),
        (config(history=[1]), "history: not an object"),
    ],
)
def test_a_malformed_configuration_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        documents.parse_image(raw)


def test_a_manifest_keeps_its_bytes_and_order() -> None:
    layer = {"mediaType": documents.OCI_LAYER, "digest": DIFF, "size": 3}
    raw = json.dumps({"schemaVersion": 2, "config": layer, "layers": [layer, layer]}).encode()
    manifest = documents.parse_manifest(raw)
    assert (manifest.raw, manifest.media_type) == (raw, documents.OCI_MANIFEST)
    assert [found.document() for found in manifest.layers] == [layer, layer]


@pytest.mark.parametrize("size", [-1, True, "3", None, 1.5])
def test_a_descriptor_needs_an_honest_size(size: object) -> None:
    with pytest.raises(InvalidArgument, match="invalid size"):
        documents.parse_descriptor({"digest": DIFF, "size": size}, "x")


def test_equal_documents_give_equal_bytes() -> None:
    assert documents.encode({"b": 1, "a": "ü"}) == '{"b":1,"a":"ü"}'.encode()
