"""Pull and push between both clients, this engine and Debian's docker-registry, on loopback."""

from __future__ import annotations

import json
import os
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Client
from tests.e2e.serving import Daemon
from tests.e2e.talk import ask

SECONDS = 30


@pytest.fixture
def three_layers(client: Client, daemon: Daemon, image: str) -> Iterator[str]:
    """A name of an image of three layers, committed one upon the other."""
    name = image
    made = []
    for number in range(2):
        ran = client(
            "docker", ["run", "--name", f"step{number}", name, "sh", "-c", f"echo {number} > /f{number}"]
        )
        assert ran.returncode == 0, ran.stderr
        name = f"made:{number}"
        made.append(name)
        assert client("docker", ["commit", f"step{number}", name]).returncode == 0
        client("docker", ["rm", f"step{number}"])
    yield name
    for name in made:
        client("docker", ["rmi", "-f", name])


def _images(daemon: Daemon) -> set[str]:
    _, body = ask(daemon.socket, "GET", "/images/json")
    return {tag for image in json.loads(body) for tag in image["RepoTags"] or ()}


@pytest.mark.parametrize(("pushes", "pulls"), [("docker", "sampan"), ("sampan", "docker")])
def test_what_was_pushed_is_pulled_as_it_was(
    client: Client, daemon: Daemon, registry: str, three_layers: str, pushes: str, pulls: str
) -> None:
    name = f"{registry}/{pushes}/made:1"
    before = client("docker", ["inspect", "--format", "{{.Id}} {{.RootFS.Layers}}", three_layers]).stdout
    assert client("docker", ["tag", three_layers, name]).returncode == 0
    pushed = client(pushes, ["push", name])
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stdout.count(": Pushed\n") + pushed.stdout.count(": Mounted from") == 3
    digest = pushed.stdout.rpartition("digest: ")[2].partition(" ")[0]
    again = client(pushes, ["push", name])
    assert again.stdout.count(": Layer already exists\n") == 3
    assert client("docker", ["rmi", name, three_layers, "made:0"]).returncode == 0
    pulled = client(pulls, ["pull", name])
    assert pulled.returncode == 0, pulled.stderr
    assert f"Digest: {digest}\nStatus: Downloaded newer image for {name}\n" in pulled.stdout
    after = client("docker", ["inspect", "--format", "{{.Id}} {{.RootFS.Layers}}", name]).stdout
    assert after == before
    ran = client("docker", ["run", "--rm", name, "cat", "/f0", "/f1"])
    assert ran.stdout == "0\n1\n"
    assert f"Status: Image is up to date for {name}" in client(pulls, ["pull", name]).stdout
    # By digest it is the same image, and pushing what was pulled keeps the digest.
    by_digest = f"{registry}/{pushes}/made@{digest}"
    assert client(pulls, ["pull", by_digest]).returncode == 0
    assert f"digest: {digest} " in client(pushes, ["push", name]).stdout
    assert client("docker", ["rmi", name]).returncode == 0


def _store(factory: pytest.TempPathFactory) -> Path:
    """Where the registry of these tests keeps its blobs."""
    found = next(factory.getbasetemp().glob("registry*"))
    return found / "data/docker/registry/v2/blobs/sha256"


def test_what_a_registry_lost_is_pushed_again(
    client: Client, registry: str, three_layers: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name = f"{registry}/lost:x"
    client("docker", ["tag", three_layers, name])
    assert client("docker", ["push", name]).returncode == 0
    with urllib.request.urlopen(_manifest(registry, "lost/manifests/x"), timeout=SECONDS) as answer:
        layer = json.load(answer)["layers"][-1]["digest"].partition(":")[2]
    shutil.rmtree(_store(tmp_path_factory) / layer[:2] / layer)
    again = client("docker", ["push", name])
    assert again.returncode == 0, again.stderr
    assert (again.stdout.count(": Layer already exists\n"), again.stdout.count(": Pushed\n")) == (2, 1)
    assert client("docker", ["rmi", name]).returncode == 0
    assert client("docker", ["pull", name]).returncode == 0
    client("docker", ["rmi", name])


def _manifest(registry: str, place: str) -> urllib.request.Request:
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    return urllib.request.Request(f"http://{registry}/v2/{place}", headers={"Accept": kind})


@pytest.mark.parametrize("program", ["docker", "sampan"])
def test_a_run_pulls_what_is_missing(
    client: Client, daemon: Daemon, registry: str, image: str, program: str
) -> None:
    name = f"{registry}/{program}/run:x"
    client("docker", ["tag", image, name])
    assert client(program, ["push", "-q", name]).returncode == 0
    assert client("docker", ["rmi", name]).returncode == 0
    ran = client(program, ["run", "--rm", name, "echo", "hi"])
    assert (ran.returncode, ran.stdout) == (0, "hi\n"), ran.stderr
    assert f"Unable to find image '{name}' locally" in ran.stderr
    client("docker", ["rmi", name])


@pytest.mark.parametrize("program", ["docker", "sampan"])
def test_every_tag_goes_and_comes(
    client: Client, daemon: Daemon, registry: str, image: str, program: str
) -> None:
    name = f"{registry}/{program}/tags"
    names = {f"{name}:{tag}" for tag in ("a", "b")}
    for one in names:
        client("docker", ["tag", image, one])
    pushed = client(program, ["push", "-a", name])
    assert pushed.returncode == 0, pushed.stderr
    client("docker", ["rmi", *names])
    assert client(program, ["pull", "-a", name]).returncode == 0
    assert names <= _images(daemon)
    client("docker", ["rmi", *names])


@pytest.mark.parametrize("program", ["docker", "sampan"])
def test_what_came_from_an_archive_is_pushed_compressed(
    client: Client, registry: str, three_layers: str, tmp_path: Path, program: str
) -> None:
    name = f"{registry}/{program}/archived:x"
    client("docker", ["tag", three_layers, name])
    assert client(program, ["save", "-o", str(tmp_path / "tar"), name]).returncode == 0
    assert client("docker", ["rmi", name, three_layers, "made:0"]).returncode == 0
    assert client(program, ["load", "-i", str(tmp_path / "tar")]).returncode == 0
    pushed = client(program, ["push", name])
    assert pushed.returncode == 0, pushed.stderr
    wanted = f"{program}/archived/manifests/x"
    with urllib.request.urlopen(_manifest(registry, wanted), timeout=SECONDS) as answer:
        layers = json.load(answer)["layers"]
    assert [layer["mediaType"].rpartition(".")[2] for layer in layers] == ["gzip"] * 3
    missing = client(program, ["push", f"{registry}/{program}/archived:y"])
    assert missing.stdout == f"The push refers to repository [{registry}/{program}/archived]\n"
    assert missing.stderr == f"tag does not exist: {registry}/{program}/archived:y\n"
    client("docker", ["rmi", name])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pull", "{}/none:x"], "manifest for {}/none:x not found: manifest unknown: manifest unknown"),
        (["pull", "nowhere.invalid/a:x"], "dial tcp: lookup nowhere.invalid: no such host"),
        (["push", "{}/none:x"], "An image does not exist locally with the tag: {}/none"),
        (["pull", "127.0.0.1:1/a:x"], "dial tcp 127.0.0.1:1: connect: connection refused"),
    ],
)
@pytest.mark.parametrize("program", ["docker", "sampan"])
def test_what_cannot_be_had_is_said(
    client: Client, registry: str, arguments: list[str], words: str, program: str
) -> None:
    done = client(program, [argument.format(registry) for argument in arguments])
    assert done.returncode == 1
    assert words.format(registry) in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_lying_registry_leaves_nothing(
    client: Client,
    daemon: Daemon,
    registry: str,
    three_layers: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    name = f"{registry}/lying:x"
    client("docker", ["tag", three_layers, name])
    assert client("docker", ["push", name]).returncode == 0
    client("docker", ["rmi", name, three_layers, "made:0"])
    blobs = Path(daemon.root) / "data/blobs"
    before = set(os.listdir(blobs / "sha256"))
    with urllib.request.urlopen(_manifest(registry, "lying/manifests/x"), timeout=SECONDS) as answer:
        layer = json.load(answer)["layers"][-1]["digest"].partition(":")[2]
    blob = _store(tmp_path_factory) / layer[:2] / layer / "data"
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    done = client("docker", ["pull", name])
    assert done.returncode == 1
    assert f"filesystem layer verification failed for digest sha256:{layer}" in done.stderr
    assert name not in _images(daemon)
    assert set(os.listdir(blobs / "sha256")) <= before
    assert os.listdir(blobs / "partial") == []
