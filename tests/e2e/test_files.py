"""A container's files from outside: cp, export, diff and commit, by both command lines and docker-py."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import docker
import docker.errors
import pytest

from tests.e2e import images
from tests.e2e.conftest import PROGRAMS, Client
from tests.e2e.serving import Daemon
from tests.e2e.talk import ask

pytestmark = [pytest.mark.root, pytest.mark.e2e]

Container: TypeAlias = Any
Make: TypeAlias = Callable[..., Container]
SLEEP = ["sleep", "1000"]
BOTH = ["docker", "sampan"]


@pytest.fixture(scope="module")
def py(daemon: Daemon) -> Iterator[docker.DockerClient]:
    connected = docker.DockerClient(base_url=daemon.host, timeout=60)
    yield connected
    connected.close()


@pytest.fixture
def make(py: docker.DockerClient) -> Iterator[Make]:
    """A container: created, running, paused, or one that ran ``script`` and stopped."""
    made: list[Container] = []

    def create(state: str = "running", script: str = "", **options: object) -> Container:
        command = ["sh", "-c", script] if script and state == "stopped" else SLEEP
        container = py.containers.create(images.NAME, command, **options)
        made.append(container)
        if state == "stopped":
            container.start()
            container.wait()
        elif state != "created":
            container.start()
            if script:
                assert container.exec_run(["sh", "-c", script]).exit_code == 0
        if state == "paused":
            container.pause()
        return container

    yield create
    for container in made:
        with contextlib.suppress(docker.errors.NotFound):
            container.remove(force=True, v=True)


@pytest.fixture
def gone(py: docker.DockerClient) -> Iterator[list[str]]:
    """Names of images to remove after the test."""
    names: list[str] = []
    yield names
    for name in names:
        with contextlib.suppress(docker.errors.ImageNotFound):
            py.images.remove(name, force=True)


def archive(**files: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.uid, info.gid = len(text), 1000, 2000
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def read(container: Container, path: str) -> dict[str, tarfile.TarInfo]:
    pieces, _ = container.get_archive(path)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        return {member.name: member for member in tar}


# ---- cp ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["created", "running", "paused", "stopped"])
@pytest.mark.parametrize("program", BOTH)
def test_there_and_back(client: Client, make: Make, tmp_path: Path, program: str, state: str) -> None:
    (tmp_path / "d/sub").mkdir(parents=True)
    (tmp_path / "d/sub/file").write_text("content")
    (tmp_path / "d/sub/file").chmod(0o640)
    os.symlink("sub/file", tmp_path / "d/link")
    os.link(tmp_path / "d/sub/file", tmp_path / "d/hard")
    os.chown(tmp_path / "d/sub/file", 1000, 2000)
    container = make(state, "true")
    done = client(program, ["cp", f"{tmp_path}/d", f"{container.name}:/tmp/new"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = client(program, ["cp", f"{container.name}:/tmp/new/.", f"{tmp_path}/back"])
    assert (done.returncode, done.stderr) == (0, "")
    there = tmp_path / "back/sub/file"
    assert there.read_text() == "content"
    assert there.stat().st_mode & 0o7777 == 0o640
    assert (there.stat().st_uid, there.stat().st_gid) == (os.geteuid(), os.getegid())
    assert there.stat().st_nlink == 2
    assert os.readlink(tmp_path / "back/link") == "sub/file"
    # Inside, owners are those of the archive, as Docker has it.
    members = read(container, "/tmp/new")
    assert (members["new/hard"].uid, members["new/hard"].gid) == (1000, 2000)
    assert members["new/sub/file"].islnk()
    assert members["new"].uid == 0


@pytest.mark.parametrize("program", BOTH)
def test_owners_as_the_container_sees_them(client: Client, make: Make, tmp_path: Path, program: str) -> None:
    """By user namespace or without: root's files are root's, 1000's are 1000's, whoever looks."""
    (tmp_path / "mine").write_text("root's")
    (tmp_path / "theirs").write_text("1000's")
    os.chown(tmp_path / "theirs", 1000, 1000)
    container = make(user="app", volumes={"files-owners": {"bind": "/vol", "mode": "rw"}})
    try:
        for name in ("mine", "theirs"):
            for place in ("/tmp", "/vol"):
                assert (
                    client(program, ["cp", f"{tmp_path}/{name}", f"{container.name}:{place}"]).returncode == 0
                )
        assert (
            client(program, ["cp", "-a", f"{tmp_path}/mine", f"{container.name}:/tmp/given"]).returncode == 0
        )
        paths = ["/tmp/mine", "/vol/mine", "/tmp/theirs", "/vol/theirs", "/tmp/given"]
        seen = container.exec_run(["stat", "-c", "%u:%g", *paths]).output.split()
        # -a gives them to the container's user.
        assert seen == [b"0:0", b"0:0", b"1000:1000", b"1000:1000", b"1000:1000"]
        container.exec_run(["chmod", "777", "/vol"], user="root")
        container.exec_run(["sh", "-c", "echo more >> /tmp/theirs; echo own > /vol/own; chmod 700 /vol/own"])
        found = read(container, "/vol")
        assert {name: found[name].uid for name in found} == {
            "vol": found["vol"].uid,
            "vol/mine": 0,
            "vol/theirs": 1000,
            "vol/own": 1000,
        }
    finally:
        container.remove(force=True)
        client("docker", ["volume", "rm", "files-owners"])


def test_what_is_mounted_is_gone_through(client: Client, make: Make, tmp_path: Path) -> None:
    (tmp_path / "bound").mkdir()
    (tmp_path / "one").write_text("one")
    mounts = {str(tmp_path / "bound"): {"bind": "/b", "mode": "rw"}, str(tmp_path / "one"): {"bind": "/one"}}
    for state in ("running", "created"):
        container = make(state, volumes=mounts, tmpfs={"/t": ""}, read_only=True)
        container.put_archive("/b", archive(**{state: "through a bind"}))
        assert (tmp_path / "bound" / state).read_text() == "through a bind"
        assert (tmp_path / "bound" / state).stat().st_uid == 1000
        with pytest.raises(docker.errors.APIError, match="container rootfs is marked read-only"):
            container.put_archive("/etc", archive(x="y"))
        container.put_archive("/b", archive(more="x"))
        if state == "running":
            container.put_archive("/t", archive(x="on a tmpfs"))
            assert container.exec_run(["cat", "/t/x"]).output == b"on a tmpfs"
    sealed = make("running", volumes={str(tmp_path / "bound"): {"bind": "/b", "mode": "ro"}})
    with pytest.raises(docker.errors.APIError, match="mounted volume is marked read-only"):
        sealed.put_archive("/b", archive(x="y"))
    loose = make("running", volumes=mounts)
    loose.put_archive("/", archive(one="two"))  # it cannot be replaced, and is written in place
    assert (tmp_path / "one").read_text() == "two"


@pytest.mark.parametrize("program", BOTH)
def test_standard_streams(client: Client, environment: dict[str, str], make: Make, program: str) -> None:
    container = make("created")
    done = subprocess.run(
        [*PROGRAMS[program], "cp", "-", f"{container.name}:/tmp"],
        input=archive(x="1", y="2"),
        env=environment,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    done = subprocess.run(
        [*PROGRAMS[program], "cp", f"{container.name}:/tmp/x", "-"],
        env=environment,
        capture_output=True,
        check=True,
    )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert tar.getnames() == ["x"]
    refused = client(program, ["cp", "-", f"{container.name}:/etc/passwd"])
    assert refused.stderr.strip() == f'destination "{container.name}:/etc/passwd" must be a directory'


WORDS = [
    (
        ["{c}:/nothing", "{d}"],
        "Error response from daemon: Could not find the file /nothing in container {c}",
    ),
    (["{d}/f", "{c}:/no/x"], "Error response from daemon: Could not find the file /no in container {c}"),
    (["{d}/f", "{c}:/no/"], "no such directory"),
    (["{d}", "{c}:/etc/passwd"], "cannot copy directory"),
    (["{c}:/etc", "{d}/f"], "cannot copy directory"),
    (["{d}/g", "{c}:/"], "lstat {d}/g: no such file or directory"),
    (["{c}:/etc", "{c}:/x"], "copying between containers is not supported"),
    (["a", "b"], "must specify at least one container source"),
    (["{c}:/etc", "/no/such/place"], 'invalid output path: directory "/no/such" does not exist'),
    (["nobody:/x", "{d}"], "Error response from daemon: No such container: nobody"),
    (["{c}:", "{d}"], "Error response from daemon: bad parameter: pathcannot be empty"),
    (["{c}:/etc/passwd/", "{d}"], "Error response from daemon: lstat /etc/passwd/: not a directory"),
]


@pytest.mark.parametrize("program", BOTH)
def test_refusals_in_docker_s_words(client: Client, make: Make, tmp_path: Path, program: str) -> None:
    (tmp_path / "f").write_text("x")
    name = make("created").name
    for arguments, words in WORDS:
        asked = [one.format(c=name, d=tmp_path) for one in arguments]
        done = client(program, ["cp", *asked])
        said = [line for line in done.stderr.splitlines() if "level=error" not in line]
        assert (done.returncode, said) == (1, [words.format(c=name, d=tmp_path)]), asked


def test_kinds_that_do_not_go_together(daemon: Daemon, make: Make) -> None:
    container = make("created")
    target = f"/containers/{container.id}/archive?path=/&noOverwriteDirNonDir=1"
    status, said = ask(daemon.socket, "PUT", target, archive(etc="a file"))
    assert (status, said) == (
        400,
        b'{"message":"cannot overwrite directory \\"/etc\\" with non-directory \\"/\\""}\n',
    )
    for body in (b"no archive", b"\x1f\x8b\x08 no gzip either", archive(x="1" * 4000)[:2000], b"\xff" * 4096):
        status, said = ask(daemon.socket, "PUT", f"/containers/{container.id}/archive?path=/", body)
        assert status == 400, said
    assert ask(daemon.socket, "PUT", f"/containers/{container.id}/archive?path=/etc/passwd", b"")[0] == 400
    for path in ("", "x%00y", "/etc/passwd/x", "a" * 5000, "/" + "a/" * 3000):
        status, _ = ask(daemon.socket, "GET", f"/containers/{container.id}/archive?path={path}")
        assert status in (400, 404), path


# ---- what a container may try ------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"userns_mode": "host"}], ids=["default", "host-users"])
def test_links_that_change_while_cp_runs_do_not_lead_out(
    make: Make, tmp_path: Path, options: dict[str, str]
) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/told").write_text("the host's secret")
    swap = (
        "mkdir /tmp/real; echo harmless > /tmp/real/told;"
        f"while :; do ln -sfn {tmp_path}/secret /tmp/way;"
        f" ln -sfn ../../../../../../..{tmp_path}/secret /tmp/way;"
        " rm -f /tmp/way; mv /tmp/real /tmp/way && mv /tmp/way /tmp/real; done"
    )
    container = make("running", **options)
    container.exec_run(["sh", "-c", swap], detach=True)
    reached = 0
    for _ in range(25):
        with contextlib.suppress(docker.errors.APIError):
            container.put_archive("/tmp/way", archive(planted="x"))
            reached += 1
        with contextlib.suppress(docker.errors.APIError, tarfile.TarError, Exception):
            pieces, _ = container.get_archive("/tmp/way/told")
            assert b"secret" not in b"".join(pieces)
        with contextlib.suppress(docker.errors.APIError, Exception):
            pieces, _ = container.get_archive("/tmp")
            assert b"the host's secret" not in b"".join(pieces)
    assert os.listdir(tmp_path / "secret") == ["told"]
    assert (tmp_path / "secret/told").read_text() == "the host's secret"


def test_a_client_that_stops_reading_keeps_nobody_from_starting_or_removing(
    make: Make,
) -> None:
    container = make("stopped", "dd if=/dev/zero of=/tmp/big bs=1M count=30")
    pieces, _ = container.get_archive("/tmp/big")
    next(iter(pieces))
    starting = threading.Thread(target=container.start)
    starting.start()
    starting.join(30)
    assert not starting.is_alive()
    container.reload()
    assert container.status in ("running", "exited")


# ---- export and diff ---------------------------------------------------------------------------------------

CHANGED = (
    "mkdir -p /n/d; echo 1 > /n/d/f; rm /etc/group; echo x >> /etc/passwd; chmod 700 /root;"
    "rm -r /var; mkdir /var"
)


@pytest.mark.parametrize("state", ["running", "stopped"])
@pytest.mark.parametrize("program", BOTH)
def test_diff(client: Client, make: Make, program: str, state: str) -> None:
    container = make(state, CHANGED)
    lines = client(program, ["diff", container.name]).stdout.splitlines()
    expected = ["C /etc", "C /etc/passwd", "D /etc/group", "A /n", "A /n/d", "A /n/d/f", "C /root"]
    assert [line for line in lines if not line.startswith("A /dev")] == expected
    assert {"Path": "/n", "Kind": 1} in container.diff()


@pytest.mark.parametrize("state", ["created", "running", "stopped"])
@pytest.mark.parametrize("program", BOTH)
def test_export(client: Client, make: Make, tmp_path: Path, program: str, state: str) -> None:
    container = make(state, "echo v > /vol/inside; echo x > /tmp/file; chown 5:6 /tmp/file", volumes=["/vol"])
    done = client(program, ["export", "-o", f"{tmp_path}/out.tar", container.name])
    assert (done.returncode, done.stderr) == (0, "")
    with tarfile.open(tmp_path / "out.tar") as tar:
        members = {member.name: member for member in tar}
    assert members["bin/busybox"].mode == 0o755
    assert members["bin/ls"].linkname == "busybox"
    assert members["proc"].isdir()
    assert not any(name.startswith(("vol/", "proc/", "sys/")) for name in members)
    if state != "created":
        assert (members["tmp/file"].uid, members["tmp/file"].gid) == (5, 6)
    assert b"".join(container.export())[:512].rstrip(b"\0")


# ---- commit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", BOTH)
@pytest.mark.parametrize("state", ["running", "stopped"])
def test_commit(
    client: Client, py: docker.DockerClient, make: Make, gone: list[str], program: str, state: str
) -> None:
    script = (
        CHANGED + "; echo own > /tmp/own; chown 1000:2000 /tmp/own; ln /tmp/own /tmp/hard;"
        "truncate -s 20M /tmp/holes; mkfifo /tmp/fifo; ln -s own /tmp/soft; chmod 4755 /n/d/f"
    )
    container = make(state, script, environment=["A=1"], labels={"kept": "yes"})
    name = f"files-{program}:{state}"
    gone.append(name)
    changes = ["-c", "ENV A=2 B=3", "-c", 'CMD ["cat", "/n/d/f"]', "-c", "LABEL new=1"]
    done = client(program, ["commit", "-a", "me", "-m", "why", *changes, container.name, name])
    assert (done.returncode, done.stderr) == (0, "")
    image = py.images.get(name)
    assert image.id == done.stdout.strip()
    assert (image.attrs["Author"], image.attrs["Comment"]) == ("me", "why")
    config = image.attrs["Config"]
    assert config["Env"] == ["A=2", "PATH=/bin", "B=3"]
    assert config["Labels"] == {"kept": "yes", "new": "1"}
    assert len(image.attrs["RootFS"]["Layers"]) == 2
    assert image.history()[0]["Comment"] == "why"
    assert py.containers.run(name, remove=True) == b"1\n"
    look = (
        "stat -c '%n %u:%g %h %a %s' /tmp/own /tmp/hard /tmp/holes /n/d/f; ls /var /etc/group;"
        "readlink /tmp/soft; [ -p /tmp/fifo ]"
    )
    seen = py.containers.run(name, ["sh", "-c", look], remove=True, stderr=False).decode().splitlines()
    assert seen[:4] == [
        "/tmp/own 1000:2000 2 644 4",
        "/tmp/hard 1000:2000 2 644 4",
        f"/tmp/holes 0:0 1 644 {20 << 20}",
        "/n/d/f 0:0 1 4755 2",
    ]
    assert "own" in seen
    assert "/etc/group" not in seen
    if state == "running":
        container.reload()
        assert container.status == "running"


def test_a_commit_of_nothing_adds_no_layer_and_pauses_for_all_to_see(
    py: docker.DockerClient, make: Make, gone: list[str]
) -> None:
    container = make("running")
    gone.append("files-nothing:latest")
    events = py.events(decode=True, filters={"container": container.id})
    image = container.commit("files-nothing", conf={"Cmd": ["true"], "ExposedPorts": {"80/tcp": {}}})
    assert [next(events)["Action"] for _ in range(3)] == ["pause", "unpause", "commit"]
    events.close()
    assert len(image.attrs["RootFS"]["Layers"]) == 1
    assert image.attrs["Config"]["Cmd"] == ["true"]
    assert list(image.attrs["Config"]["ExposedPorts"]) == ["80/tcp"]


def test_a_commit_is_refused_before_anything_is_done(client: Client, make: Make) -> None:
    name = make("created").name
    for arguments, words in (
        (["nobody"], "No such container: nobody"),
        (["-c", "FROM x", name], "from is not a valid change command"),
    ):
        done = client("docker", ["commit", *arguments])
        assert (done.returncode, done.stderr) == (1, f"Error response from daemon: {words}\n")
    assert client("sampan", ["images", "-q", "-f", "dangling=true"]).stdout == ""


def test_a_container_that_is_removed_meanwhile_is_missed_and_nothing_else(
    daemon: Daemon, client: Client
) -> None:
    """Each time the requests meet elsewhere; the daemon's end tells whether an error was logged."""
    asked = (
        ("POST", "/commit?container={}&pause=0"),
        ("GET", "/containers/{}/changes"),
        ("GET", "/containers/{}/export"),
        ("GET", "/containers/{}/archive?path=/etc"),
        ("DELETE", "/containers/{}?force=1"),
    )
    for attempt in range(20):
        name = f"files-short-lived-{attempt}"
        body = b'{"Image": "busybox", "Cmd": ["true"]}'
        assert ask(daemon.socket, "POST", f"/containers/create?name={name}", body)[0] == 201
        with ThreadPoolExecutor(len(asked)) as threads:
            answers = [
                threads.submit(ask, daemon.socket, method, target.format(name), None)
                for method, target in asked
            ]
        for answer in answers:
            status, said = answer.result()
            assert status in (200, 201, 204, 404, 409, 503), said
            if status == 404:
                assert name.encode() in said or b"No such container: " in said
            if status == 201:
                client("sampan", ["rmi", json.loads(said)["Id"]])
