"""Caches of builds that go elsewhere and come back: in images, and in folders."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import images
from tests.e2e.building import NAME, Builder, nothing_left
from tests.e2e.conftest import PROGRAMS

__all__ = ["nothing_left"]

pytestmark = [pytest.mark.root, pytest.mark.e2e]
TEXT = f"""\
FROM {images.NAME} AS one
RUN cat /proc/sys/kernel/random/uuid > /one
FROM {images.NAME}
COPY file /file
RUN cat /proc/sys/kernel/random/uuid > /two
COPY --from=one /one /one
"""


@pytest.fixture
def builder(environment: dict[str, str], tmp_path: Path) -> Iterator[Builder]:
    found = Builder(PROGRAMS["sampan"], environment, tmp_path / "context")
    found.folder.mkdir()
    found.file("file", "data")
    yield found
    forget(found)


def forget(builder: Builder) -> None:
    builder.run("rmi", "-f", NAME, "kept:test")
    builder.run("image", "prune", "-f")
    builder.run("builder", "prune", "-af")


def test_a_folder_holds_a_cache(builder: Builder, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    builder.built(TEXT, "--cache-to", f"type=local,dest={folder}")
    made = builder.sh("cat /one /two")
    for blob in (folder / "blobs/sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    forget(builder)
    said = builder.built(TEXT, "--cache-from", f"type=local,src={folder}")
    assert said.count("Using cache") == 4
    assert builder.sh("cat /one /two") == made
    # A folder that is not there has nothing to give.
    builder.built(TEXT, "--cache-from", f"type=local,src={folder}/none")


def test_a_hostile_folder_is_refused(builder: Builder, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    builder.built(TEXT, "--cache-to", f"type=local,dest={folder}")
    forget(builder)
    blobs = folder / "blobs/sha256"
    *made, _base = sorted(blobs.iterdir(), key=lambda path: path.stat().st_size)
    layer = next(path for path in made if path.read_bytes()[257:262] == b"ustar")
    layer.write_bytes(layer.read_bytes() + b"x")
    done = builder.build(TEXT, "--cache-from", f"type=local,src={folder}")
    assert (done.returncode, "is not what lies there" in done.stderr) == (1, True), done.stderr
    index = json.loads((folder / "index.json").read_text())
    index["manifests"][0]["digest"] = "sha256:../../../../etc/passwd"
    (folder / "index.json").write_text(json.dumps(index))
    done = builder.build(TEXT, "--cache-from", f"type=local,src={folder}")
    assert (done.returncode, "Error response from daemon: " in done.stderr) == (1, True), done.stderr
    (folder / "index.json").write_text("{}")
    assert "this is no build cache" in builder.build(TEXT, "--cache-from", f"type=local,src={folder}").stderr


def test_an_image_holds_its_own_cache(builder: Builder) -> None:
    builder.built(TEXT, "-t", "kept:test", "--cache-to", "type=inline")
    made = builder.sh("cat /one /two")
    builder.run("builder", "prune", "-af")
    builder.run("rmi", NAME)
    # As an image that comes from elsewhere: only its steps are known, not those of the other stage.
    said = builder.built(TEXT, "--cache-from", "kept:test")
    assert said.count("Using cache") == 2
    assert builder.sh("cat /two") == made.splitlines()[1] + "\n"
    assert builder.sh("cat /one") != made.splitlines()[0] + "\n"
    said = builder.built(TEXT, "--cache-from", "localhost:1/none:test")
    assert "[Warning] no cache of localhost:1/none:test: " in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--cache-to", "type=registry,ref=x"), "--cache-to: type registry is not offered; use inline"),
        (("--cache-to", "type=local"), "--cache-to: dest is required"),
        (("--cache-from", "type=gha"), "--cache-from: type gha is not offered"),
    ],
)
def test_what_is_not_offered(builder: Builder, flags: tuple[str, ...], said: str) -> None:
    assert said in builder.build(TEXT, *flags).stderr


def test_where_an_image_comes_from_goes_with_it(builder: Builder, registry: str, tmp_path: Path) -> None:
    name, told = f"{registry}/told:1", tmp_path / "told.json"
    builder.file("Dockerfile", TEXT)
    flags = ("-t", name, "--push", "--provenance", "max", "--metadata-file", str(told))
    done = builder.run("build", "--build-arg", "A=1", *flags, str(builder.folder))
    assert done.returncode == 0, done.stderr
    statement = json.loads(told.read_text())["buildx.build.provenance"]
    definition = statement["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["arguments"] == {"A": "1"}
    base = json.loads(builder.run("image", "inspect", images.NAME).stdout)[0]["Id"]
    assert definition["resolvedDependencies"][0]["digest"] == {"sha256": base.removeprefix("sha256:")}

    def fetched(rest: str) -> Any:
        kinds = ("oci.image.index.v1", "oci.image.manifest.v1", "docker.distribution.manifest.v2")
        headers = {"Accept": ",".join(f"application/vnd.{kind}+json" for kind in kinds)}
        request = urllib.request.Request(f"http://{registry}/v2/told/{rest}", headers=headers)
        with urllib.request.urlopen(request) as answer:
            return answer.headers.get("Docker-Content-Digest"), json.loads(answer.read())

    image, _ = fetched("manifests/1")
    _, index = fetched(f"manifests/{image.replace(':', '-')}")
    _, manifest = fetched(f"manifests/{index['manifests'][0]['digest']}")
    assert (manifest["subject"]["digest"], manifest["artifactType"]) == (
        image,
        "application/vnd.in-toto+json",
    )
    _, pushed = fetched(f"blobs/{manifest['layers'][0]['digest']}")
    assert pushed == {
        **statement,
        "subject": [{"name": name, "digest": {"sha256": image.removeprefix("sha256:")}}],
    }
    builder.run("rmi", "-f", name)
    assert "of which none is given" in builder.build(TEXT, "--provenance", "min").stderr
    assert "only type=provenance is offered" in builder.build(TEXT, "--attest", "type=sbom").stderr
