"""What this engine writes satisfies the OCI's schemas: configurations, manifests, indexes, layouts."""

from __future__ import annotations

import json
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.spec import image as documents
from tests import archives
from tests.e2e import platforms
from tests.e2e.conftest import Client
from tests.oci_schemas import CONFIG, INDEX, LAYOUT, MANIFEST, SCHEMAS, problems

pytestmark = pytest.mark.skipif(not SCHEMAS.exists(), reason="the OCI's schemas are not here")

DOCKERFILE = """FROM busybox:latest
LABEL a=b
ENV A=1
RUN echo 1 > /one
COPY file /two
EXPOSE 80/tcp
VOLUME /v
USER 1000
STOPSIGNAL SIGINT
HEALTHCHECK CMD true
ENTRYPOINT ["sh"]
"""


@pytest.fixture
def made(client: Client, image: str, tmp_path: Path) -> Iterator[list[str]]:
    """Names of images that this engine made in every way that it has."""
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "file").write_text("2")
    (tmp_path / "tree.tar").write_bytes(archives.layer(a=b"1"))
    names = ["made/build:1", "made/commit:1", "made/import:1"]
    commands = (
        ["build", "-q", "-t", names[0], str(tmp_path)],
        ["create", "--name", "oci-documents", image],
        ["commit", "-c", "EXPOSE 9", "-m", "said", "-a", "me", "oci-documents", names[1]],
        ["import", "-c", "CMD x", "-m", "said", str(tmp_path / "tree.tar"), names[2]],
        ["rm", "oci-documents"],
    )
    try:
        for command in commands:
            done = client("sampan", command)
            assert done.returncode == 0, done.stderr
        yield names
    finally:
        client("sampan", ["rm", "-f", "oci-documents"])
        client("sampan", ["rmi", "-f", *names])
        client("sampan", ["builder", "prune", "-af"])


def _members(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {one.name: tar.extractfile(one).read() for one in tar if one.isfile()}  # type: ignore[union-attr]


def _blob(files: dict[str, bytes], digest: str) -> bytes:
    return files[f"blobs/sha256/{digest.removeprefix('sha256:')}"]


def test_what_is_saved_and_pushed(client: Client, made: list[str], registry: str, tmp_path: Path) -> None:
    saved = client("sampan", ["save", "-o", str(tmp_path / "saved"), *made])
    assert saved.returncode == 0, saved.stderr
    files = _members(tmp_path / "saved")
    assert problems(LAYOUT, files["oci-layout"]) == []
    assert problems(INDEX, files["index.json"]) == []
    entries = json.loads(files["index.json"])["manifests"]
    assert len(entries) == len(made)
    for entry in entries:
        manifest = _blob(files, entry["digest"])
        assert problems(MANIFEST, manifest) == []
        assert problems(CONFIG, _blob(files, json.loads(manifest)["config"]["digest"])) == []
    for name in made:
        target = f"{registry}/{name}"
        client("sampan", ["tag", name, target])
        pushed = client("sampan", ["push", "-q", target])
        assert pushed.returncode == 0, pushed.stderr
        client("sampan", ["rmi", target])
        repository, tag = name.split(":")
        _, manifest = platforms.manifest(registry, repository, tag)
        assert problems(MANIFEST, json.dumps(manifest).encode()) == []
        url = f"http://{registry}/v2/{repository}/blobs/{manifest['config']['digest']}"
        with urllib.request.urlopen(url) as answer:
            assert problems(CONFIG, answer.read()) == []


@pytest.mark.parametrize("kinds", [platforms.OCI, platforms.DOCKER])
def test_lists_of_manifests(
    kinds: tuple[str, str, str, str], client: Client, registry: str, docker: str
) -> None:
    platforms.upload(registry, "listed", "x", platforms.make({"a": b"a"}, kinds))
    name = f"{registry}/listed:list"
    images = [f"{registry}/listed:x-{architecture}" for architecture in ("amd64", "arm")]
    for command in (
        ["create", "--insecure", name, *images],
        ["annotate", name, images[1], "--variant", "v6"],
        ["push", "--purge", "--insecure", name],
    ):
        done = client("sampan", ["manifest", *command])
        assert done.returncode == 0, done.stderr
    kind, index = platforms.manifest(registry, "listed", "list")
    assert kind == kinds[0]
    assert problems(INDEX, documents.encode(index)) == []
    assert [one["platform"].get("variant") for one in index["manifests"]] == [None, "v6"]


def test_a_wrong_document_is_seen() -> None:
    assert problems(MANIFEST, b'{"schemaVersion":2,"config":{"digest":"sha256:x"},"layers":[]}') != []
    assert problems(INDEX, b'{"schemaVersion":1}') != []
    assert problems(CONFIG, archives.config([])) == []
