"""Logging in and out: what the engine is asked, and where the password ends up."""

from __future__ import annotations

import json
from base64 import b64decode, urlsafe_b64decode
from pathlib import Path

import pytest
from tests.golden.recorder import Recorder
from tests.unit.cli.conftest import Run

from sampan.cli import credentials
from sampan.cli.context import read_settings

HELPER = """#!/bin/sh
# a credential helper that keeps its secrets in a folder
cd "$(dirname "$0")/kept" || exit 1
case $1 in
store) cat >secret ;;
get) test -e secret || { echo "credentials not found in native keychain"; exit 1; }
     cat secret ;;
erase) rm -f secret ;;
esac
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the client's files."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return tmp_path / "docker"


def test_a_login_is_kept_and_used(run: Run, recorder: Recorder, home: Path) -> None:
    recorder.answers = {"POST /auth": {"Status": "Login Succeeded", "IdentityToken": ""}}
    code, out, err = run("login", "-u", "me", "-p", "s3cret", "localhost:5000")
    assert (code, out) == (0, "Login Succeeded\n")
    assert err.startswith("WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n")
    sent = {"username": "me", "password": "s3cret", "serveraddress": "localhost:5000"}
    assert recorder.requests == [("POST /auth", sent)]
    kept = json.loads((home / "config.json").read_text())
    assert b64decode(kept["auths"]["localhost:5000"]["auth"]) == b"me:s3cret"
    assert (home / "config.json").stat().st_mode & 0o777 == 0o600
    assert credentials.lookup(kept, credentials.server_of("localhost:5000/image:1")) == sent
    header = credentials.header(kept, "localhost:5000/image")["X-Registry-Auth"]
    assert json.loads(urlsafe_b64decode(header)) == sent
    assert json.loads(urlsafe_b64decode(credentials.header(kept, "image")["X-Registry-Auth"])) == {}

    assert run("login", "localhost:5000")[1] == (
        "Authenticating with existing credentials... [Username: me]\nLogin Succeeded\n"
    )
    assert run("logout", "localhost:5000") == (0, "Removing login credentials for localhost:5000\n", "")
    assert json.loads((home / "config.json").read_text())["auths"] == {}


def test_a_refused_login_is_not_kept(run: Run, recorder: Recorder, home: Path) -> None:
    code, out, err = run("login", "-u", "me", "-p", "wrong")
    assert (code, out) == (1, "")
    assert err.endswith("Error response from daemon: recorded\n")
    assert recorder.requests[0][1]["serveraddress"] == credentials.HUB
    assert not (home / "config.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-p x", "Error: Cannot perform an interactive login from a non TTY device"),
        ("--password-stdin", "the --password-stdin option requires --username to be set"),
        (
            "-u x -p y --password-stdin",
            "conflicting options: cannot specify both --password and --password-stdin",
        ),
    ],
)
def test_a_login_without_a_terminal(
    run: Run, recorder: Recorder, home: Path, words: str, message: str
) -> None:
    code, _, err = run("login", *words.split())
    assert (code, err.splitlines()[-1]) == (1, message)
    assert recorder.requests == []


def test_a_helper_keeps_the_password(
    run: Run, recorder: Recorder, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder.answers = {"POST /auth": {"Status": "Login Succeeded", "IdentityToken": "t0ken"}}
    helper = tmp_path / "docker-credential-test"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    (tmp_path / "kept").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    home.mkdir()
    (home / "config.json").write_text('{"credsStore": "test", "unknown": {"kept": true}}')
    assert run("login", "-u", "me", "-p", "x", "example.org")[0] == 0
    settings = read_settings()
    assert settings == {"auths": {"example.org": {}}, "credsStore": "test", "unknown": {"kept": True}}
    stored = json.loads((tmp_path / "kept" / "secret").read_text())
    assert stored == {"ServerURL": "example.org", "Username": "<token>", "Secret": "t0ken"}
    token = {"identitytoken": "t0ken", "serveraddress": "example.org"}
    assert credentials.lookup(settings, "example.org") == token
    assert run("logout", "https://example.org/v2/")[0] == 0
    assert credentials.lookup(settings, "example.org") == {}


@pytest.mark.parametrize(
    ("image", "server"),
    [
        ("busybox", credentials.HUB),
        ("me/image:1", credentials.HUB),
        ("docker.io/library/busybox", credentials.HUB),
        ("localhost/image", "localhost"),
        ("example.org:5000/a/b@sha256:1", "example.org:5000"),
    ],
)
def test_which_server_an_image_is_from(image: str, server: str) -> None:
    assert credentials.server_of(image) == server
