"""A disk without a block left, or without an inode: what takes room is refused, what frees it works.

The disk is a small ext4 of its own. Blocks and inodes are taken to the last one, also those that are kept for
root; nothing is simulated.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from sampan.wire import tar
from sampan.wire.tar import Member
from tests.e2e import images
from tests.e2e.talk import ask
from tests.faults.worlds import REFUSED, World, wait_for, world

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

TICKS = ("sh", "-c", "while :; do echo tick; sleep 0.05; done")
UNTIL = ("sh", "-c", "until [ -e /sig/go ]; do sleep 0.05; done; exit 7")


@pytest.fixture(scope="module")
def small() -> Iterator[World]:
    with world() as found:
        yield found


@pytest.fixture
def full(small: World) -> Iterator[World]:
    """Two containers that run, one that was made; then not a block is left."""
    small.run("ticks", *TICKS)
    small.run("sleeps", "sleep", "1000")
    assert small.create("made", "echo", "hi")[0] == 201
    assert small.ask("POST", "/volumes/create", {"Name": "spare"})[0] == 201
    small.fill()
    yield small
    small.make_room()
    if small.process.poll() is not None:
        small.start()
    for key in small.containers():
        small.ask("DELETE", f"/containers/{key}?force=1&v=1")
    small.ask("DELETE", "/volumes/spare")
    small.load()


def test_what_takes_room_is_refused_in_one_line_that_names_the_disk_and_the_mend(full: World) -> None:
    for method, path, body in (
        ("POST", "/containers/create", b'{"Image": "busybox"}'),
        ("POST", "/commit?container=ticks&repo=a", b"{}"),
        ("POST", "/images/load", b"anything"),
        ("POST", "/images/create?fromSrc=-", b"anything"),
        ("POST", "/images/create?fromImage=nowhere.invalid/a", b""),
        ("POST", "/build", b"anything"),
    ):
        status, said = ask(full.socket, method, path, body)
        assert status == 500
        assert REFUSED in said.decode()
        assert str(full.data) in said.decode()
    assert "Traceback" not in full.log


def test_what_frees_it_works_and_nothing_that_runs_is_disturbed(full: World) -> None:
    before = full.state("ticks")["Pid"]
    assert any(REFUSED in line for line in full.ask("GET", "/info")[1]["Warnings"])
    status, said = full.ask("POST", "/containers/made/start")  # which may find no room for its own files
    assert status == 204 or "no space left on device" in said["message"]
    assert full.ask("POST", "/containers/sleeps/stop?t=0")[0] == 204
    assert full.state("sleeps")["ExitCode"] == 128 + signal.SIGKILL
    assert full.ask("DELETE", "/containers/sleeps")[0] == 204
    assert full.ask("DELETE", "/containers/made?force=1")[0] == 204
    assert full.ask("DELETE", "/volumes/spare")[0] == 204
    assert full.ask("POST", "/containers/prune")[0] == 200
    assert full.ask("DELETE", f"/images/{images.NAME}?force=1")[0] == 200
    assert full.state("ticks")["Pid"] == before
    full.make_room()
    said = full.logged("ticks")
    wait_for(lambda: full.logged("ticks") > said, "what it says is logged again")
    assert full.load()[0] == 200
    assert full.create("again", "true")[0] == 201


def test_an_archive_that_does_not_fit_is_refused_while_it_is_still_being_sent(full: World) -> None:
    """The rest of what was announced is never sent: the answer may not wait for it."""
    header = tar.header(Member(name=b"big", size=1 << 30, mode=0o644))
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(60)
        raw.connect(full.socket)
        raw.sendall(
            b"PUT /containers/sleeps/archive?path=/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        piece = header + bytes((1 << 20) - len(header))
        raw.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        answer = raw.recv(65536)
    assert b"500" in answer.partition(b"\r\n")[0]
    assert b"no space left on device" in answer


def test_a_daemon_killed_on_a_full_disk_comes_back_there_and_knows_of_an_exit_meanwhile(
    small: World, full: World
) -> None:
    sign = full.root / "sign"
    sign.mkdir(exist_ok=True)
    full.make_room()
    full.run("seven", *UNTIL, Binds=[f"{sign}:/sig"])
    pid = full.state("seven")["Pid"]
    full.fill()
    full.kill()
    (sign / "go").touch()
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "the container has ended")
    full.start()
    assert full.state("seven")["ExitCode"] == 7
    assert full.state("ticks")["Running"]
    full.process.terminate()
    assert full.process.wait(30) == 0
    full.fill()  # also what the daemon gave up when it stopped
    full.start()
    assert full.state("seven")["ExitCode"] == 7
    assert full.ask("DELETE", "/containers/seven")[0] == 204


def test_without_inodes_the_same_holds() -> None:
    with world("-N", "1024") as found:
        found.run("ticks", *TICKS)
        assert found.create("made", "true")[0] == 201
        assert found.ask("POST", "/volumes/create", {"Name": "spare"})[0] == 201
        found.take_inodes()
        status, said = found.create("other", "true")
        assert (status, REFUSED in said["message"]) == (500, True)
        assert "inodes" in said["message"]
        status, said = found.ask("POST", "/containers/made/start")
        assert status == 500
        assert "no space left on device" in said["message"]
        assert found.state("ticks")["Running"]
        assert found.ask("POST", "/containers/ticks/kill")[0] == 204
        wait_for(lambda: not found.state("ticks")["Running"], "it has ended")
        found.kill()
        found.start()
        assert found.state("ticks")["ExitCode"] == 128 + signal.SIGKILL
        for name in ("ticks", "made"):
            assert found.ask("DELETE", f"/containers/{name}")[0] == 204
        assert found.ask("DELETE", "/volumes/spare")[0] == 204
        assert "Traceback" not in found.log
