"""Layers that are unpacked while their archive still arrives; what only seemed to be one leaves nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sampan.wire.tar import Member
from tests import archives
from tests.e2e.conftest import Client
from tests.e2e.serving import Daemon
from tests.e2e.talk import ask

LARGE = os.urandom(1 << 20)


def layers(daemon: Daemon) -> set[str]:
    """The directories of layers, and what is unfinished."""
    data = Path(daemon.root, "data")
    return {*os.listdir(data / "layers"), *os.listdir(data / "tmp")}


def files(*contents: bytes) -> dict[str, bytes | Member]:
    return archives.docker_files([archives.layer(file=content) for content in contents], ["early:1"])


def test_large_layers_of_an_upload(daemon: Daemon, client: Client) -> None:
    before = layers(daemon)
    archive = archives.pack(files(LARGE, b"small", LARGE[::-1]))
    for _ in range(2):  # the second finds everything here
        status, said = ask(daemon.socket, "POST", "/images/load", archive)
        assert (status, b"Loaded image: early:1" in said) == (200, True), said
        _await(daemon, lambda: len(layers(daemon) - before) == 3)
    ran = client("docker", ["run", "--rm", "--entrypoint", "/none", "early:1"])
    assert "no such file or directory" in ran.stderr
    assert client("docker", ["save", "-o", f"{daemon.root}/saved", "early:1"]).returncode == 0
    assert client("docker", ["rmi", "early:1"]).returncode == 0
    assert client("docker", ["load", "-i", f"{daemon.root}/saved"]).returncode == 0
    assert client("docker", ["rmi", "early:1"]).returncode == 0
    assert client("docker", ["system", "df"]).returncode == 0


@pytest.mark.parametrize("what", ["cut", "junk", "evil", "no images"])
def test_what_was_begun_for_nothing_is_gone(what: str, daemon: Daemon) -> None:
    before = layers(daemon)
    found = files(LARGE, LARGE[::-1])
    if what == "junk":
        found = {"junk": LARGE, **found, "manifest.json": b"nonsense"}
    if what == "evil":
        found = archives.docker_files([archives.layer(**{"../../out": LARGE})], ["early:1"])
    if what == "no images":
        found = {name: data for name, data in found.items() if name != "manifest.json"}
    archive = archives.pack(found)
    if what == "cut":
        archive = archive[: len(archive) // 2]
    status, said = ask(daemon.socket, "POST", "/images/load", archive)
    assert status == 400 or b"errorDetail" in said, said
    assert b"Traceback" not in said
    assert ask(daemon.socket, "GET", "/images/early:1/json")[0] == 404
    _await_gone(daemon, before)


def _await_gone(daemon: Daemon, before: set[str]) -> None:
    _await(daemon, lambda: layers(daemon) <= before)


def _await(daemon: Daemon, reached: Callable[[], bool]) -> None:
    """Directories go in the background; each question lets the engine work on."""
    for _ in range(10_000):
        if reached():
            return
        ask(daemon.socket, "GET", "/_ping")
    raise AssertionError(layers(daemon))
