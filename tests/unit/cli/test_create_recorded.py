"""Every flag of ``create`` against what the docker CLI sent, or said, for it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from tests.golden.record import ENVIRONMENT, FILES, changed, place
from tests.golden.recorder import Recorder
from tests.unit.cli.conftest import Run

RECORDED: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "golden" / "docker-create.json").read_text()
)
BASE = RECORDED[0]["base"]

DIFFERENT = {
    "--cpus 0x1": "a hexadecimal number of CPUs is nobody's wish",
    "--userns private": "Docker has no user namespace of one's own to ask for",
}


@pytest.mark.parametrize("row", RECORDED[1:], ids=lambda row: row["flags"])
def test_sends_what_docker_sends(
    row: dict[str, Any], recorder: Recorder, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if row["flags"] in DIFFERENT:
        pytest.skip(DIFFERENT[row["flags"]])
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    for name in ("A", "NOPE"):
        monkeypatch.delenv(name, raising=False)
    code, _, message = run("create", *shlex.split(row["flags"]), "x")
    assert (code, place(message.replace("sampan", "docker"), str(tmp_path))) == (row["code"], row["message"])
    sent = [request for request in recorder.requests if "/containers/create" in request[0]]
    assert [request for request, _ in sent[:1]] == ([row["request"]] if "request" in row else [])
    if sent:
        assert json.loads(place(json.dumps(changed(BASE, sent[0][1])), str(tmp_path))) == row["body"]


def test_without_flags_the_whole_body_is_dockers(recorder: Recorder, run: Run) -> None:
    run("create", "x")
    assert recorder.requests[0][1] == BASE


def test_a_user_namespace_of_ones_own_can_be_asked_for(recorder: Recorder, run: Run) -> None:
    run("create", "--userns", "private", "x")
    bodies = [body for request, body in recorder.requests if "/containers/create" in request]
    assert bodies[0]["HostConfig"]["UsernsMode"] == "private"
