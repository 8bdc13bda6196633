"""Caches of builds that go elsewhere and come back: in images, and in folders."""

from __future__ import annotations

import hashlib
import json
import os
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
    builder.forget("kept:test")


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


def test_a_registry_holds_a_cache(builder: Builder, registry: str) -> None:
    name = f"{registry}/cache:1"
    builder.built(TEXT, "--cache-to", f"type=registry,ref={name}")
    made = builder.sh("cat /one /two")
    forget(builder)
    said = builder.built(TEXT, "--cache-from", f"type=registry,ref={name}")
    assert said.count("Using cache") == 4
    assert builder.sh("cat /one /two") == made
    # It is a manifest as OCI has them, all of which the registry has under its digest.
    manifest = _documents(registry, "cache", "manifests/1")
    kinds = {layer["mediaType"] for layer in manifest["layers"]}
    assert kinds == {"application/vnd.oci.image.layer.v1.tar+gzip"}
    assert manifest["config"]["mediaType"] == "application/vnd.sampan.buildcache.config.v1+json"
    config = _documents(registry, "cache", f"blobs/{manifest['config']['digest']}")
    assert {layer["digest"] for layer in manifest["layers"]} == set(config["diff_ids"])


def test_a_hostile_registry_is_refused(builder: Builder, registry: str) -> None:
    name = f"{registry}/hostile:1"
    builder.built(TEXT, "--cache-to", f"type=registry,ref={name}")
    forget(builder)
    manifest = _documents(registry, "hostile", "manifests/1")
    config = _documents(registry, "hostile", f"blobs/{manifest['config']['digest']}")
    # Archives that are there, and are other layers than the records say.
    names = list(config["diff_ids"])
    swapped = dict(zip(names, (config["diff_ids"][one] for one in (*names[1:], names[0])), strict=True))
    _put_cache(registry, "hostile", manifest, {**config, "diff_ids": swapped})
    said = builder.built(TEXT, "--cache-from", f"type=registry,ref={name}")
    assert f"[Warning] no cache of {name}: " in said
    assert said.count("Using cache") == 0
    forget(builder)
    for bad in ({**config, "records": [{"key": "../x", "layers": []}]}, {**config, "diff_ids": {}}, {}):
        _put_cache(registry, "hostile", manifest, bad)
        done = builder.build("FROM scratch\nLABEL a=b\n", "--cache-from", f"type=registry,ref={name}")
        assert f"[Warning] no cache of {name}: this is no build cache: " in done.stdout, done.stderr
    none = builder.build("FROM scratch\nLABEL a=b\n", "--cache-from", f"type=registry,ref={registry}/none:1")
    assert f"[Warning] no cache of {registry}/none:1: " in none.stdout


def _documents(registry: str, path: str, rest: str) -> Any:
    headers = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    request = urllib.request.Request(f"http://{registry}/v2/{path}/{rest}", headers=headers)
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


def _put_cache(registry: str, path: str, manifest: dict[str, Any], config: Any) -> None:
    """Put a cache with another configuration under the tag 1."""
    raw = json.dumps(config).encode()
    digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    begin = urllib.request.Request(f"http://{registry}/v2/{path}/blobs/uploads/", method="POST", data=b"")
    with urllib.request.urlopen(begin) as answer:
        place = answer.headers["Location"]
    upload = urllib.request.Request(f"{place}&digest={digest}", method="PUT", data=raw)
    upload.add_header("Content-Type", "application/octet-stream")
    urllib.request.urlopen(upload).close()
    body = {**manifest, "config": {**manifest["config"], "digest": digest, "size": len(raw)}}
    put = urllib.request.Request(
        f"http://{registry}/v2/{path}/manifests/1", method="PUT", data=json.dumps(body).encode()
    )
    put.add_header("Content-Type", manifest["mediaType"])
    urllib.request.urlopen(put).close()


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


PLAIN = """\
FROM kept:base
ENV A=1
COPY file /file
WORKDIR /made
RUN cat /proc/sys/kernel/random/uuid > /two
"""


@pytest.mark.parametrize(
    ("text", "file", "cached"),
    [
        (PLAIN, "data", True),
        (PLAIN.replace("WORKDIR", "LABEL a=b\nWORKDIR"), "data", True),
        (PLAIN, "other", False),
        (PLAIN.replace("A=1", "A=2"), "data", False),
        (PLAIN.replace("ENV A=1", "ENV A=1\nENV B=1"), "data", False),
        (PLAIN.replace("/two", "/two "), "data", True),
        (PLAIN.replace("/two", "/two # x"), "data", False),
        (PLAIN.replace("RUN", "RUN --mount=type=tmpfs,target=/tmp"), "data", False),
        (PLAIN.replace("RUN", "RUN --network=none"), "data", False),
        (PLAIN.replace("RUN", "USER 7\nUSER 0\nRUN"), "data", False),
    ],
)
@pytest.mark.usefixtures("nothing_known")
def test_an_image_tells_of_steps_by_its_history(plain: Builder, text: str, file: str, cached: bool) -> None:
    plain.file("file", file)
    os.utime(plain.folder / "file", (1, 1))
    plain.built(text, "--cache-from", "kept:test")
    script = "cat /two"
    same = plain.sh(script) == plain.run("run", "--rm", "kept:test", *script.split()).stdout
    assert same == cached


@pytest.fixture(scope="module")
def plain(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    """An image without records of its steps, which nobody remembers any more."""
    found = Builder(PROGRAMS["sampan"], environment, tmp_path_factory.mktemp("plain"))
    found.file("file", "data")
    os.utime(found.folder / "file", (1, 1))
    # A base with a history of its own.
    found.built(f"FROM {images.NAME}\nENV BASE=1\n", "-t", "kept:base")
    found.built(PLAIN, "-t", "kept:test")
    found.run("rmi", NAME)
    yield found
    found.run("rmi", "-f", "kept:base")
    forget(found)


@pytest.fixture
def nothing_known(plain: Builder) -> Iterator[None]:
    plain.run("builder", "prune", "-af")
    yield
    plain.forget()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--cache-to", "type=gha"), "--cache-to: type gha is not offered; use registry, inline or local"),
        (("--cache-to", "type=registry"), "--cache-to: ref is required"),
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
