"""Every scene of the table on this engine, against what dockerd answered."""

from __future__ import annotations

import subprocess

import pytest

from tests.e2e import images
from tests.e2e.parity import recording, since
from tests.e2e.parity.player import Player
from tests.e2e.parity.scene import Answer, Scene
from tests.e2e.parity.scenes import SCENES
from tests.e2e.serving import Daemon

pytestmark = [pytest.mark.root, pytest.mark.e2e]

RECORDED = recording.read()


@pytest.fixture(scope="module")
def client_version(docker: str) -> str:
    """The major version of Docker's client."""
    command = [docker, "version", "--format", "{{.Client.Version}}"]
    said = subprocess.run(command, capture_output=True, text=True).stdout
    return said.partition(".")[0]


@pytest.fixture(scope="module")
def player(daemon: Daemon, docker: str) -> Player:
    return Player(daemon.socket, docker, images.busybox())


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name.replace(" ", "-"))
def test_answers_as_docker(scene: Scene, player: Player, client_version: str) -> None:
    if client_version != recording.CLIENT and not scene.only_requests():
        pytest.skip(f"the recording is of docker's client {recording.CLIENT}, here is {client_version}")
    recorded = RECORDED[scene.name]
    assert list(recorded) == scene.calls(), "record the scene anew: tools/record-parity"
    wrong = []
    for call, answer in player.play(scene):
        expected = since.then(call, recorded[call])
        if call in scene.differs:
            assert scene.differs[call].over(expected) != expected, f"differs no longer: {call}"
            expected = scene.differs[call].over(expected)
        if answer != expected:
            wrong.append(f"{call}\n{_both('docker', expected)}{_both('sampan', answer)}")
    assert not wrong, "\n" + "\n".join(wrong)


def _both(who: str, answer: Answer) -> str:
    return f"  {who}: {answer.code} {answer.out!r} {answer.err!r}\n"
