"""Several platforms of one image, with both clients and a registry: fetched, run, shown, pushed, removed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.spec import digest as digests
from tests.e2e import images, platforms
from tests.e2e.conftest import Client
from tests.e2e.serving import Daemon
from tests.e2e.talk import ask

HOST, OTHER, THIRD = "linux/amd64", "linux/arm64/v8", "linux/arm/v7"


@pytest.fixture(scope="module")
def made(registry: str) -> platforms.Made:
    """An index of three platforms as ``several:1``; their programs are this machine's: all of them run."""
    made = platforms.make(images.busybox_layer())
    platforms.upload(registry, "several", "1", made)
    return made


@pytest.fixture
def name(made: platforms.Made, registry: str, client: Client) -> Iterator[str]:
    name = f"{registry}/several:1"
    yield name
    client("docker", ["rmi", "-f", name, f"{registry}/pushed:1", f"{registry}/pushed:2"])


def _ok(client: Client, program: str, *words: str) -> str:
    done = client(program, list(words))
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


@pytest.mark.parametrize("program", ["docker", "sampan"])
def test_each_platform_is_fetched_when_it_is_wanted(
    program: str, client: Client, made: platforms.Made, name: str
) -> None:
    run = ("run", "--rm", name, "cat", "/platform")
    assert _ok(client, program, *run) == f"{HOST}\n"
    missing = client(program, ["run", "--rm", "--pull", "never", "--platform", "linux/arm64", *run[2:]])
    assert missing.returncode == 125
    assert (
        f"image with reference {name} was found but does not provide the specified platform (linux/arm64)"
        in missing.stderr
    )
    assert _ok(client, program, "run", "--rm", "--platform", "linux/arm64", *run[2:]) == f"{OTHER}\n"
    assert f"Status: Downloaded newer image for {name}" in _ok(
        client, program, "pull", "--platform", "linux/arm", name
    )
    assert "Image is up to date" in _ok(client, program, "pull", "--platform", "linux/arm", name)
    assert _ok(client, program, *run) == f"{HOST}\n"
    assert _ok(client, program, "images", "-a", "--no-trunc", "-q", name) == f"{made.ids[HOST]}\n"
    _ok(client, program, "create", "--name", "of-arm", "--platform", THIRD, name)
    try:
        assert (
            _ok(client, program, "ps", "-a", "--filter", "name=of-arm", "--format", "{{.Image}}").strip()
            == name
        )
        refused = client(program, ["rmi", name])
        assert refused.returncode == 1
        assert "is using its referenced image" in refused.stderr
    finally:
        client(program, ["rm", "of-arm"])
    removed = _ok(client, program, "rmi", "--platform", "linux/arm64", name)
    assert removed.startswith(f"Deleted: {made.ids[OTHER]}\n")
    assert set(made.ids.values()) & set(_ok(client, program, "rmi", name).split()) == {
        made.ids[HOST],
        made.ids[THIRD],
    }


@pytest.mark.parametrize("program", ["docker", "sampan"])
def test_an_index_is_pushed_whole_if_it_is_here(
    program: str, client: Client, made: platforms.Made, registry: str, name: str
) -> None:
    _ok(client, program, "pull", "-q", name)
    _ok(client, program, "tag", name, f"{registry}/pushed:1")
    _ok(client, program, "push", "-q", f"{registry}/pushed:1")
    assert "layers" in platforms.manifest(registry, "pushed", "1")[1]
    for platform in (OTHER, THIRD):
        _ok(client, program, "pull", "-q", "--platform", platform, name)
    _ok(client, program, "tag", name, f"{registry}/pushed:2")
    said = _ok(client, program, "push", f"{registry}/pushed:2")
    assert f"2: digest: {digests.of(made.index)} size: {len(made.index)}\n" in said
    assert platforms.manifest(registry, "pushed", "2") == (made.kind, json.loads(made.index))
    _ok(client, program, "push", "-q", "--platform", OTHER, f"{registry}/pushed:2")
    _, manifest = platforms.manifest(registry, "pushed", "2")
    assert manifest == json.loads(made.manifests[made.digests[OTHER]][1])
    refused = client(program, ["push", "-q", "--platform", "linux/s390x", f"{registry}/pushed:2"])
    assert "does not provide the specified platform (linux/s390x)" in refused.stderr


def test_both_clients_show_the_same(client: Client, name: str, daemon: Daemon, tmp_path: Path) -> None:
    for platform in (HOST, OTHER):
        _ok(client, "docker", "pull", "-q", "--platform", platform, name)
    absent = ["--platform", "linux/s390x"]
    for words in (
        ["images", "--tree"],
        ["images", "--tree", name],
        ["images", "--tree", "--quiet"],
        ["images", "--digests", name],
        ["image", "inspect", "--platform", OTHER, name],
        ["image", "inspect", *absent, name],
        ["history", "--platform", OTHER, name],
        ["history", *absent, name],
        ["history", "--platform", "no/such/one/at/all", name],
        ["save", *absent, "-o", str(tmp_path / "x"), name],
        ["rmi", *absent, name],
        ["rmi", "--platform", "nonsense", name],
        ["push", "--platform", "nonsense", name],
    ):
        docker, ours = client("docker", words), client("sampan", words)
        assert (ours.returncode, ours.stdout, ours.stderr) == (
            docker.returncode,
            docker.stdout,
            docker.stderr,
        ), words
    _shapes(daemon, name)


def _shapes(daemon: Daemon, name: str) -> None:
    """What the API shows, to clients old and new."""

    def get(path: str) -> Any:
        status, body = ask(daemon.socket, "GET", path)
        assert status == 200, body
        return json.loads(body)

    (old,) = [one for one in get("/v1.46/images/json?manifests=1") if name in one["RepoTags"]]
    assert "Manifests" not in old
    (new,) = [one for one in get("/v1.47/images/json?manifests=1") if name in one["RepoTags"]]
    assert new["Descriptor"]["mediaType"] == platforms.OCI[0]
    assert [one["Available"] for one in new["Manifests"]] == [True, True, False]
    assert [one["ImageData"]["Platform"]["architecture"] for one in new["Manifests"]] == [
        "amd64",
        "arm64",
        "arm",
    ]
    assert all(
        set(one) == {"ID", "Descriptor", "Available", "Size", "Kind", "ImageData"} for one in new["Manifests"]
    )
    assert "Manifests" not in get(f"/v1.47/images/{name}/json?manifests=1")
    assert get(f"/v1.48/images/{name}/json?manifests=1")["Manifests"] == new["Manifests"]
    status, body = ask(
        daemon.socket, "GET", f"/v1.49/images/{name}/json?manifests=1&platform=%7B%22os%22:%22linux%22%7D"
    )
    assert status == 400, body
