"""The configuration file: what it changes, how it is written, and contexts that come from anywhere."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
from tests.golden.recorder import Recorder
from tests.unit.cli.conftest import Run

from sampan.cli import contextfiles, contextstore
from sampan.cli.command import Command
from sampan.cli.context import Context, Where, read_settings
from sampan.cli.listing import natural
from sampan.cli.settings import change
from sampan.errors import Failure

IMAGES = [{"Id": "sha256:" + "1" * 64, "RepoTags": ["b:1"], "Created": 1, "Size": 1}]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the client's files."""
    folder = tmp_path / "docker"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return folder


def _write(home: Path, **content: object) -> None:
    (home / "config.json").write_text(json.dumps(content))


def test_formats_of_the_file(run: Run, recorder: Recorder, home: Path) -> None:
    recorder.answers = {"GET /images/json": IMAGES}
    _write(home, imagesFormat="{{.Tag}}", psFormat="{{.ID}}")
    assert run("images") == (0, "1\n", "")
    assert run("images", "--format", "{{.Repository}}") == (0, "b\n", "")
    assert run("images", "-q") == (0, "1" * 12 + "\n", "")


def test_detach_keys_of_the_file(run: Run, recorder: Recorder, home: Path) -> None:
    _write(home, detachKeys="ctrl-x")
    run("exec", "box", "true")
    assert recorder.requests[-1][1]["DetachKeys"] == "ctrl-x"
    run("exec", "--detach-keys", "ctrl-y", "box", "true")
    assert recorder.requests[-1][1]["DetachKeys"] == "ctrl-y"


def test_the_platform_of_the_environment(
    run: Run, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_DEFAULT_PLATFORM", "linux/arm64")
    run("create", "image")
    assert recorder.requests[-1][0] == "POST /containers/create?platform=linux%2Farm64"


def test_headers_of_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(home, HttpHeaders={"X-Meta": "1", "User-Agent": "not mine"})
    monkeypatch.setenv("SAMPAN_HOST", "unix:///nowhere")
    command = Command("x", "", "", lambda _context, _options, _arguments: 0)
    context = Context(Where(), command, "x")
    assert context.client.headers == context.another().headers == {"X-Meta": "1"}


def test_a_broken_file_is_warned_of(run: Run, recorder: Recorder, home: Path) -> None:
    recorder.answers = {"GET /images/json": []}
    (home / "config.json").write_text("{")
    code, out, err = run("images", "-q")
    assert (code, out) == (0, "")
    assert err.startswith(f"WARNING: Error loading config file: {home}/config.json: ")


def test_a_change_keeps_what_it_does_not_know(home: Path, tmp_path: Path) -> None:
    real = tmp_path / "real.json"
    real.write_text('{"unknown": [1]}')
    real.chmod(0o640)
    (home / "config.json").symlink_to(real)
    change(lambda found: found.update(currentContext="x"))
    assert (home / "config.json").is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert read_settings() == {"auths": {}, "currentContext": "x", "unknown": [1]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["docker", "real.json"]


def _tar(*names: str, data: bytes = b"{}", kind: bytes = tarfile.REGTYPE) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.type, entry.size, entry.linkname = kind, len(data), "/etc/passwd"
            archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "invalid context: no metadata found"),
        (b"junk", "unexpected EOF"),
        (_tar("tls/docker/ca.pem"), "invalid context: no metadata found"),
        (_tar("meta.json", "../../escape"), 'unexpected context file "../../escape": invalid context'),
        (_tar("meta.json", "/etc/x"), 'unexpected context file "/etc/x": invalid context'),
        (_tar("meta.json", "tls/a/b/c"), 'unexpected context file "tls/a/b/c": invalid context'),
        (_tar("meta.json", data=b"[]"), "invalid context: meta.json is not a context"),
        (_tar("meta.json", data=b"{"), "invalid context: meta.json: "),
        (_tar("meta.json", kind=tarfile.SYMTYPE, data=b""), "invalid context: no metadata found"),
        (b"PK\3\4junk", "invalid context: "),
        (bytes(contextfiles.LIMIT + 1), "read exceeds the defined limit"),
    ],
)
def test_a_hostile_context_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(data)
    with pytest.raises(Failure) as refused:
        contextfiles.load(str(file))
    assert str(refused.value).startswith(message)


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("meta.json", bytes(contextfiles.LIMIT + 1))
    with pytest.raises(Failure, match="read exceeds the defined limit"):
        contextfiles.load(str(file))


@pytest.mark.parametrize("name", ["", "a", "a b", "../x", "-ab", "a/b", "ä"])
def test_names_that_no_context_has(name: str) -> None:
    with pytest.raises(Failure):
        contextstore.check(name)


def test_names_sort_as_people_count() -> None:
    names = ["b", "a10", "a9", "a", "10", "9", ""]
    assert sorted(names, key=natural) == ["", "a", "a9", "a10", "b", "9", "10"]
