"""The disk has damaged what it keeps: a daemon says so in one line and ends, and --repair mends it.

That every kind of damage to the database is mended is tested without a daemon: tests/unit/state.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.talk import ask
from tests.faults.worlds import World, world

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture(scope="module")
def filled() -> Iterator[World]:
    """A daemon that is not running, with a container on a network and a volume, and the files of its root."""
    with world() as found:
        assert found.ask("POST", "/networks/create", {"Name": "net"})[0] == 201
        assert found.ask("POST", "/volumes/create", {"Name": "vol"})[0] == 201
        status, said = found.create("kept", "echo", "hello", NetworkMode="net", Binds=["vol:/v"])
        assert status == 201, said
        assert found.ask("POST", "/containers/kept/start")[0] == 204
        assert found.ask("POST", "/containers/kept/wait")[0] == 200
        found.process.terminate()
        assert found.process.wait(30) == 0
        shutil.copytree(found.data, found.root / "whole", symlinks=True)
        yield found


def restore(found: World) -> None:
    """End the daemon, if one runs, and have every file as it was."""
    if found.process.poll() is None:
        found.kill()
    for path in found.data.glob("state.db*"):
        if path.is_file():
            path.unlink()
    for name in ("state.db", "state.db-copy"):
        shutil.copy(found.root / "whole" / name, found.data / name)
    for name in ("containers", "blobs", "layers", "snapshots"):
        shutil.rmtree(found.data / name)
        shutil.copytree(found.root / "whole" / name, found.data / name, symlinks=True)


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: overwrite(path, 4096, os.urandom(8192)), id="pages"),
        pytest.param(lambda path: os.truncate(path, 0), id="empty"),
    ],
)
def test_a_damaged_state_is_refused_in_one_line_and_mended(
    filled: World, damage: Callable[[Path], None]
) -> None:
    restore(filled)
    damage(filled.data / "state.db")
    refused = filled.once()
    assert refused.returncode == 1
    said = refused.stderr.splitlines()[-1]
    assert said.startswith(f"sampan daemon: state database {filled.data}/state.db ")
    assert said.endswith("sampan daemon --repair")
    assert "Traceback" not in refused.stderr
    mended = filled.once("--repair")
    assert mended.returncode == 0, mended.stderr
    assert "from the last copy" in mended.stdout
    filled.start()
    assert filled.state("kept")["ExitCode"] == 0
    assert filled.logged("kept")
    assert {found["Name"] for found in filled.ask("GET", "/networks")[1]} >= {"net"}
    assert [found["Name"] for found in filled.ask("GET", "/volumes")[1]["Volumes"]] == ["vol"]
    assert filled.ask("POST", "/containers/kept/start")[0] == 204
    assert filled.ask("POST", "/containers/kept/wait")[0] == 200
    assert filled.ask("POST", "/system/check")[1]["Problems"] == []
    filled.kill()
    assert filled.once("--repair").stdout == "nothing is wrong with the state\n"


def test_files_without_a_record_are_set_aside_and_named(filled: World) -> None:
    restore(filled)
    for name in ("state.db", "state.db-copy"):
        (filled.data / name).unlink()
    assert filled.once().returncode == 1
    mended = filled.once("--repair")
    assert mended.returncode == 0, mended.stderr
    key = re.findall(r"^container (\w{64}): no record of it could be saved", mended.stdout, re.M)
    assert len(key) == 1
    assert list((filled.data / "lost" / key[0]).glob("container/*-json.log"))
    filled.start()
    assert filled.containers() == {}
    assert [found["Name"] for found in filled.ask("GET", "/volumes")[1]["Volumes"]] == ["vol"]
    shutil.rmtree(filled.data / "lost")


def test_a_log_with_garbage_in_it_is_read_around_it_and_written_on(filled: World) -> None:
    restore(filled)
    (log,) = filled.data.glob("containers/*/*-json.log")
    whole = log.read_bytes()
    log.write_bytes(b"\x00\xff garbage\n" + whole + b'{"log": "torn')
    filled.start()
    status, body = ask(filled.socket, "GET", "/containers/kept/logs?stdout=1")
    assert status == 200
    assert b"hello" in body
    assert filled.ask("POST", "/containers/kept/start")[0] == 204
    assert filled.ask("POST", "/containers/kept/wait")[0] == 200
    assert ask(filled.socket, "GET", "/containers/kept/logs?stdout=1")[1].count(b"hello") == 2
    assert not [line for line in filled.log.splitlines() if "Traceback" in line]


def test_a_damaged_blob_and_layer_are_found_and_mended_or_named(filled: World) -> None:
    restore(filled)
    filled.start()
    blobs = sorted(filled.data.glob("blobs/sha256/*"), key=lambda path: path.stat().st_size)
    config = blobs[0]
    overwrite(config, 5, b"XX")
    found = filled.ask("POST", "/system/check")[1]["Problems"]
    assert [(problem["Kind"], problem["Repaired"]) for problem in found] == [("blob", False)]
    assert config.name in found[0]["Name"]
    found = filled.ask("POST", "/system/check?repair=1")[1]["Problems"]
    assert [problem["Repaired"] for problem in found] == [True]
    assert filled.ask("POST", "/system/check")[1]["Problems"] == []
    assert filled.ask("DELETE", "/containers/kept")[0] == 204
    (busybox,) = filled.data.glob("layers/*/fs/bin/busybox")
    os.chmod(busybox, 0o600)
    found = filled.ask("POST", "/system/check?repair=1")[1]["Problems"]
    assert [(problem["Kind"], problem["Repaired"]) for problem in found] == [("layer", True)]
    assert filled.ask("POST", "/system/check")[1]["Problems"] == []


def test_garbage_for_an_exit_record_is_no_exit_and_no_failure(filled: World) -> None:
    restore(filled)
    (record,) = filled.data.glob("containers/*/exit.json")
    record.write_bytes(json.dumps(["not", "an", "exit"]).encode())
    filled.start()
    assert filled.state("kept")["ExitCode"] == 0  # the state has it
    assert not [line for line in filled.log.splitlines() if "Traceback" in line]


def test_a_daemon_does_not_start_on_a_read_only_root(filled: World) -> None:
    restore(filled)
    filled.remount("ro")
    refused = filled.once()
    filled.remount("rw")
    assert refused.returncode == 1
    assert re.fullmatch(rf"sampan daemon: {filled.data}.*: read-only file system\n", refused.stderr)
    filled.start()
    assert filled.state("kept")["ExitCode"] == 0


def test_a_daemon_whose_root_becomes_read_only_goes_on_reading(filled: World) -> None:
    restore(filled)
    filled.start()
    filled.run("sleeps", "sleep", "1000")
    filled.remount("abort")  # what ext4 does when its disk fails; only unmounting ends it
    for path in ("/containers/json?all=1", "/images/json", "/containers/kept/json", "/info", "/volumes"):
        assert ask(filled.socket, "GET", path)[0] == 200
    assert filled.logged("kept")
    for method, path, document in (
        ("POST", "/containers/create?name=other", {"Image": "busybox"}),
        ("POST", "/volumes/create", {"Name": "other"}),
        ("POST", "/networks/create", {"Name": "other"}),
        ("POST", "/containers/kept/rename?name=other", None),
        ("DELETE", "/containers/kept", None),
    ):
        status, said = filled.ask(method, path, document)
        assert status in (500, 503), (method, path, said)
        assert re.search("read-?only|disk I/O error", said["message"]), (method, path, said)
    assert filled.state("sleeps")["Running"]
    assert filled.ask("POST", "/containers/sleeps/kill")[0] == 204
    assert filled.ask("POST", "/containers/sleeps/wait")[0] == 200
    assert not [line for line in filled.log.splitlines() if "Traceback" in line]
