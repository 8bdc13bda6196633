"""Secrets, agents, contexts and results of the command line."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.cli import buildinputs
from sampan.cli.buildoutputs import File, Folder, Results
from sampan.errors import Failure


def test_secrets_of_files_and_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s").write_text("one")
    monkeypatch.setenv("TWO", "two")
    given = [f"id=a,src={tmp_path}/s", "id=b,env=TWO", "type=env,id=c,src=TWO", "id=TWO"]
    found = buildinputs.secrets(given)
    assert {name: read() for name, read in found.items()} == {
        "a": b"one",
        "b": b"two",
        "c": b"two",
        "TWO": b"two",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", "invalid field 'x' must be a key=value pair"),
        ("id=x,what=y", "unexpected key 'what' in 'what=y'"),
        ("id=x,type=y", 'unsupported secret type "y"'),
        ("src=/x", "secret missing ID"),
        ("id=x,src=/nowhere", "failed to stat /nowhere: stat /nowhere: no such file or directory"),
    ],
)
def test_a_secret_that_is_wrong_is_named(text: str, words: str) -> None:
    with pytest.raises(Failure) as caught:
        buildinputs.secrets([text])
    assert str(caught.value) == words


def test_a_secret_is_not_too_big(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(500 * 1024 + 1))
    with pytest.raises(Failure, match="secret x too big"):
        buildinputs.secrets([f"id=x,src={tmp_path}/big"])


def test_agents_are_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "agent")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        assert buildinputs.agents(["default", f"other={path}"]) == {"default": path, "other": path}
    (tmp_path / "key").write_text("-----BEGIN")
    with pytest.raises(Failure, match="give them to an agent"):
        buildinputs.agents([f"x={tmp_path}/key"])
    monkeypatch.delenv("SSH_AUTH_SOCK")
    with pytest.raises(Failure, match="invalid empty ssh agent socket"):
        buildinputs.agents(["default"])


def test_contexts_by_name() -> None:
    assert buildinputs.contexts(["Lib=a=b"]) == {"lib": "a=b"}
    with pytest.raises(Failure, match="invalid context value: x, expected key=value"):
        buildinputs.contexts(["x"])


@pytest.mark.parametrize(
    ("given", "kinds", "keep"),
    [
        ([], [], True),
        (["out"], ["local"], False),
        (["-"], ["tar"], False),
        (["type=oci,dest=x.tar"], ["oci"], False),
        (["type=docker"], [], True),
        (["type=image,name=a", "out"], ["local"], True),
        (["type=docker,dest=x,tar=false"], ["docker"], False),
    ],
)
def test_where_a_result_goes(given: list[str], kinds: list[str], keep: bool) -> None:
    found = Results(given, push=False)
    assert (found.kinds, found.keep) == (kinds, keep)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dest=x", "type is required for output"),
        ("type=zip", "invalid output type zip"),
        ("type=local", "dest is required for local exporter"),
        ("type=tar,to=x", "unexpected key 'to' in 'to=x'"),
    ],
)
def test_a_result_that_goes_nowhere(text: str, words: str) -> None:
    with pytest.raises(Failure, match=words):
        Results([text], push=False)


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_text("old")

    def broken() -> Iterator[bytes]:
        yield b"ne"
        raise Failure("cut")

    with pytest.raises(Failure, match="cut"):
        File("tar", str(path)).take(broken())
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.tar"]
    assert path.read_text() == "old"
    File("tar", str(path)).take(iter([b"ne", b"w"]))
    assert path.read_text() == "new"


def test_files_stay_in_their_folder(tmp_path: Path) -> None:
    """An archive whose paths and links lead out writes nothing there."""
    from sampan.wire import tar

    (tmp_path / "outside").mkdir()
    target = tmp_path / "out"
    members = [
        tar.header(tar.Member(name=b"link", kind=tar.SYMLINK, link=os_path(tmp_path / "outside"))),
        tar.header(tar.Member(name=b"link/x", size=1)) + b"x" + bytes(511),
        tar.header(tar.Member(name=b"ok", size=1)) + b"y" + bytes(511),
        tar.END,
    ]
    with contextlib.suppress(Failure):
        Folder(str(target)).take(iter(members))
    escape = tar.header(tar.Member(name=b"../outside/z", size=1)) + b"z" + bytes(511)
    with pytest.raises(Failure):
        Folder(str(target)).take(iter([escape, tar.END]))
    assert list((tmp_path / "outside").iterdir()) == []


def os_path(path: Path) -> bytes:
    return str(path).encode()
