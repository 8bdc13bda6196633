"""Volumes with options, drivers of their own, copies: by the commands that a user types."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.e2e import images, serving
from tests.e2e.conftest import Client
from tests.e2e.serving import Daemon
from tests.e2e.talk import ask
from tests.volume_driver import VolumeDriver
from tests.volume_driver import serving as driving

pytestmark = [pytest.mark.root, pytest.mark.e2e]

Run: TypeAlias = Callable[..., str]

SWAPPING = "while :; do mkdir /data/x; rmdir /data/x; ln -s / /data/x; rm /data/x; done & "
COUNTING = "i=0; while :; do i=$((i+1)); echo $i > /data/a; echo $i > /data/b; done"


@pytest.fixture
def run(client: Client, daemon: Daemon) -> Iterator[Run]:
    """Run ``docker`` or ``sampan``; what it prints, or what it says where it ``fails``. Leaves no volume."""

    def work(line: str, *more: str, fails: bool = False, text: str = "") -> str:
        program, *arguments = line.split()
        done = client(program, [*arguments, *more], text)
        assert (done.returncode != 0) is fails, (line, done)
        return (done.stderr if fails else done.stdout).strip()

    yield work
    for box in work("docker ps -aq").split():
        work(f"docker rm -f {box}")
    work("docker volume prune -af")
    for name in work("docker volume ls -q").split():
        work(f"docker volume rm -f {name}")


def mounted(daemon: Daemon) -> list[str]:
    """The volumes that are mounted on the host."""
    with open("/proc/self/mountinfo") as file:
        places = [line.split(" ")[4] for line in file]
    return [place for place in places if place.startswith(f"{daemon.root}/data/volumes/")]


def marks(daemon: Daemon) -> list[str]:
    place = Path(daemon.root) / "run" / "volumes"
    return os.listdir(place) if place.is_dir() else []


def test_a_tmpfs_is_mounted_from_the_first_use_to_the_last(run: Run, daemon: Daemon) -> None:
    run("docker volume create -o type=tmpfs -o device=tmpfs -o o=size=1m,uid=1000 memory")
    assert mounted(daemon) == []
    shown = run("docker run --rm -v memory:/x busybox", "sh", "-c", "grep ' /x ' /proc/mounts; stat -c %u /x")
    assert "size=1024k" in shown
    assert shown.endswith("1000")
    run("docker run -d --name one -v memory:/x busybox", "sh", "-c", "echo hi > /x/file; exec sleep 1000")
    run("docker run -d --name two -v memory:/x:ro busybox sleep 1000")
    assert mounted(daemon) == [f"{daemon.root}/data/volumes/memory/_data"]
    assert run("docker exec one", "sh", "-c", "until [ -s /x/file ]; do :; done; cat /x/file") == "hi"
    assert (Path(mounted(daemon)[0]) / "file").read_text() == "hi\n"
    assert run("docker exec two cat /x/file") == "hi"
    run("docker rm -f one")
    assert len(mounted(daemon)) == 1
    assert run("docker exec two cat /x/file") == "hi"
    run("docker rm -f two")
    run("docker volume rm memory")
    assert mounted(daemon) == marks(daemon) == []


def test_a_directory_of_the_host_takes_the_images_content(run: Run, daemon: Daemon, tmp_path: Path) -> None:
    run(f"docker volume create -o type=none -o o=bind -o device={tmp_path} theirs")
    run("docker create --name box -v theirs:/bin busybox true")
    assert "sh" in os.listdir(tmp_path)
    assert not any(name.startswith(".sampan") for name in os.listdir(tmp_path))
    (tmp_path / "seen").write_text("by cp")
    assert "by cp" in run("docker cp box:/bin/seen -")
    assert mounted(daemon) == marks(daemon) == []
    run("docker rm box")
    run("docker volume rm theirs")
    assert (tmp_path / "seen").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("-o type=none -o o=bind -o device=/not/there", "mount /not/there:{}, flags: 0x1000: no such file"),
        ("-o type=nothing -o device=x", "mount x:{}: no such device"),
        ("-o type=tmpfs -o device=tmpfs -o o=size=zzz", "mount tmpfs:{}, data: size=zzz: invalid argument"),
        (
            "-o type=nfs -o device=:/x -o o=addr=127.0.0.1,password=secret",
            "data: addr=127.0.0.1,password=********: ",
        ),
    ],
)
def test_what_cannot_be_mounted(run: Run, daemon: Daemon, options: str, said: str) -> None:
    run(f"docker volume create {options} broken")
    place = f"{daemon.root}/data/volumes/broken/_data"
    heard = run("docker run --rm -v broken:/y busybox true", fails=True)
    assert f"error while mounting volume '{place}': failed to mount local volume: " in heard
    assert said.format(place) in heard
    assert mounted(daemon) == marks(daemon) == []


# ------------------------------------------------------------------ drivers


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[VolumeDriver]:
    """A driver where every engine of this host finds it."""
    with driving(Path(f"/run/docker/plugins/sampantest{os.getpid()}.sock"), tmp_path / "theirs") as driver:
        yield driver


def test_a_volume_of_a_driver(driver: VolumeDriver, run: Run, daemon: Daemon) -> None:
    name = driver.socket.stem
    run(f"docker volume create -d {name} -o a=b kept")
    assert driver.volumes == {"kept": {"a": "b"}}
    assert run("docker volume ls --format {{.Driver}}/{{.Name}}") == f"{name}/kept"
    assert run("docker volume inspect -f {{.Scope}}{{.Status.kept}} kept") == "globalwell"
    run("docker run -d --name one -v kept:/x busybox", "sh", "-c", "echo hi > /x/file; exec sleep 1000")
    assert run("docker exec one", "sh", "-c", "until [ -s /x/file ]; do :; done; cat /x/file") == "hi"
    assert (driver.root / "kept" / "file").read_text() == "hi\n"
    assert run("docker inspect -f", "{{(index .Mounts 0).Source}}", "one") == str(driver.root / "kept")
    assert len(driver.mounts["kept"]) == 1
    run(f"docker run --rm --mount type=volume,src=more,dst=/x,volume-driver={name} busybox touch /x/there")
    assert (driver.root / "more" / "there").exists()
    run("docker rm -f one")
    assert driver.mounts == {"kept": set(), "more": set()}
    run("docker volume rm kept more")
    assert driver.volumes == {}
    assert marks(daemon) == []


def test_a_driver_that_is_not_there(run: Run) -> None:
    said = run("docker volume create -d nosuch kept", fails=True)
    assert said == (
        "Error response from daemon: create kept: error looking up volume plugin nosuch: "
        'plugin "nosuch" not found'
    )


# ------------------------------------------------------------------ copies


def test_copies_of_a_volume_that_is_written_to_are_of_one_moment(run: Run, daemon: Daemon) -> None:
    run("docker run -d --name writer -v data:/data busybox", "sh", "-c", SWAPPING + COUNTING)
    base = Path(daemon.root) / "data" / "volumes"
    run("docker exec writer", "sh", "-c", "until [ -e /data/b ]; do :; done")
    for number in range(3):
        run(f"sampan volume clone data copy{number}")
        first, second = ((base / f"copy{number}" / "_data" / name).read_text() for name in "ab")
        assert first == second or "" in (first, second) or int(first) == int(second) + 1
    assert run("docker inspect -f {{.State.Status}} writer") == "running"
    assert not [name for name in os.listdir(base) if name.startswith(".")]


def test_what_takes_too_long_lets_the_containers_go_on(run: Run, daemon: Daemon) -> None:
    run("docker run -d --name writer -v data:/data busybox", "sh", "-c", COUNTING)
    said = run("sampan volume clone --pause-limit 0s data copy", fails=True)
    assert "cannot be copied while they stand still for 0s" in said
    assert run("docker inspect -f {{.State.Status}} writer") == "running"
    assert run("docker volume ls -q") == "data"
    run("sampan volume clone --pause=false data copy")


def test_a_snapshot_stays_as_it_is(run: Run) -> None:
    run("docker run --rm -v data:/data busybox", "sh", "-c", "echo old > /data/file")
    name = run("sampan volume snapshot data")
    assert name.startswith("data-20")
    run("docker run --rm -v data:/data busybox", "sh", "-c", "echo new > /data/file")
    assert run(f"docker run --rm -v {name}:/data busybox cat /data/file") == "old"
    assert "Read-only" in run(f"docker run --rm -v {name}:/data busybox touch /data/x", fails=True)
    assert run("docker volume inspect -f", '{{index .Labels "io.sampan.snapshot"}}', name) == "data"
    run(f"sampan volume clone {name} back")
    run("docker run --rm -v back:/data busybox touch /data/x")


def test_out_and_in_again(run: Run, tmp_path: Path) -> None:
    make = "cd /data; echo hi > f; ln f hard; ln -s f soft; mkfifo p; mkdir d; chown 5:6 d; chmod 1770 ."
    run("docker run --rm -v data:/data busybox", "sh", "-c", make)
    run(f"sampan volume export -o {tmp_path}/a.tar data")
    run(f"sampan volume import --label x=y again {tmp_path}/a.tar")
    look = "cd /data; stat -c '%n %a %u %g %h %F' . *; cat hard; readlink soft"
    assert run("docker run --rm -v again:/data busybox", "sh", "-c", look) == run(
        "docker run --rm -v data:/data busybox", "sh", "-c", look
    )
    assert run("docker volume inspect -f", "{{.Labels.x}}", "again") == "y"
    assert "exists already" in run(f"sampan volume import again {tmp_path}/a.tar", fails=True)
    run("sampan volume rename again other")
    assert run("docker volume ls -q --filter label=x") == "other"


def hostile(kind: str, marker: Path) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:

        def add(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.devmajor, member.devminor = kind, link, 8, 0
            archive.addfile(member)

        if kind == "dots":
            add(f"../../../../../../../..{marker}")
        elif kind == "absolute":
            add(str(marker))
        elif kind == "link":
            add("way", tarfile.SYMTYPE, str(marker.parent))
            add(f"way/{marker.name}")
        elif kind == "hard":
            add("file", tarfile.LNKTYPE, "/etc/passwd")
        elif kind == "device":
            add("disk", tarfile.BLKTYPE)
    return made.getvalue()


@pytest.mark.parametrize("kind", ["dots", "absolute", "link", "hard", "device"])
def test_an_archive_does_not_leave_the_volume(run: Run, daemon: Daemon, tmp_path: Path, kind: str) -> None:
    marker = tmp_path / "marker"
    status, said = ask(daemon.socket, "POST", "/sampan-volumes/evil/import", hostile(kind, marker))
    assert status in (201, 400), said
    assert not marker.exists()
    there = Path(daemon.root) / "data" / "volumes" / "evil" / "_data"
    if status == 201:
        assert not (there / "disk").exists()
        assert not (there / "file").exists()
    else:
        assert run("docker volume ls -q") == ""


# ------------------------------------------------------------------ a daemon that is killed


def test_the_next_daemon_knows_what_was_mounted() -> None:
    root = tempfile.mkdtemp(prefix="sampan-e2e-")
    served = Daemon(socket=f"{root}/run/sampan.sock", root=root)
    process = serving.start(served, ())

    def docker(*arguments: str) -> str:
        command = ["docker", "-H", served.host, *arguments]
        return subprocess.run(command, check=True, capture_output=True, timeout=60, text=True).stdout

    try:
        assert ask(served.socket, "POST", "/images/load?quiet=1", images.busybox())[0] == 200
        for name in ("lives", "ends"):
            docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", name)
            docker("run", "-d", "--name", name, "-v", f"{name}:/x", "busybox", "sleep", "1000")
        # As if it had been killed between a mount and a start.
        docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "half")
        half = Path(served.root) / "data" / "volumes" / "half" / "_data"
        mark = Path(served.root) / "run" / "volumes" / "half" / ("0" * 64)
        pid = int(docker("inspect", "-f", "{{.State.Pid}}", "ends"))
        process.kill()
        process.wait()
        os.kill(pid, signal.SIGKILL)
        mark.parent.mkdir()
        mark.touch()
        for path in (half, half):
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path], check=True)
        process = serving.start(served, ())
        docker("rm", "ends")  # which waits for what its end has to give back
        names = [Path(place).parent.name for place in mounted(served)]
        assert names == ["lives"]
        assert marks(served) == ["lives"]
        docker("rm", "-f", "lives")
        assert mounted(served) == marks(served) == []
    finally:
        for name in ("lives", "ends"):
            ask(served.socket, "DELETE", f"/containers/{name}?force=1")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert serving.traces(served.root) == []
        subprocess.run(["rm", "-rf", served.root], check=True)
