"""docker-py, unmodified, over everything that a script does with containers, images, volumes and events."""

from __future__ import annotations

import contextlib
import io
import tarfile
import time

import docker
import docker.errors
import pytest
import requests

from tests.e2e import images
from tests.e2e.docker_py.conftest import Container, Run

pytestmark = [pytest.mark.root, pytest.mark.e2e]

ONE_LINE = ["sh", "-c", "read x; echo got $x; exit 4"]


# ---- run ---------------------------------------------------------------------------------------------------


def test_run_gives_the_output(client: docker.DockerClient) -> None:
    both = ["sh", "-c", "echo out; echo err >&2"]
    assert client.containers.run(images.NAME, both, remove=True) == b"out\n"
    assert client.containers.run(images.NAME, both, remove=True, stdout=False, stderr=True) == b"err\n"
    lines = client.containers.run(images.NAME, ["seq", "3"], remove=True, stream=True)
    assert b"".join(lines) == b"1\n2\n3\n"


def test_run_tells_of_a_failure(client: docker.DockerClient, registry: str) -> None:
    with pytest.raises(docker.errors.ContainerError) as failed:
        client.containers.run(images.NAME, ["sh", "-c", "echo why >&2; exit 3"], remove=True)
    assert failed.value.exit_status == 3
    assert failed.value.stderr == b"why\n"
    with pytest.raises(docker.errors.NotFound, match="manifest unknown"):
        client.containers.run(f"{registry}/nothing:1", "true", remove=True)
    for program, code in (("nope", 400), ("/etc/passwd", 400)):
        with pytest.raises(docker.errors.APIError) as refused:
            client.containers.run(images.NAME, [program], name="refused", detach=True)
        assert refused.value.response.status_code == code
        client.containers.get("refused").remove()


def test_run_takes_options(client: docker.DockerClient) -> None:
    script = "echo $A $(pwd) $(id -u) $(hostname) $(ulimit -n)"
    said = client.containers.run(
        images.NAME,
        ["sh", "-c", script],
        remove=True,
        environment={"A": "1"},
        working_dir="/tmp",
        user="app",
        hostname="box",
        network_mode="none",
        labels={"a": "b"},
        tmpfs={"/t": "size=1m"},
        cap_drop=["ALL"],
        read_only=True,
        init=True,
        mem_limit="64m",
        nano_cpus=500_000_000,
        pids_limit=20,
        ulimits=[docker.types.Ulimit(name="nofile", soft=64, hard=64)],
    )
    assert said == b"1 /tmp 1000 box 64\n"


# ---- a container's life ------------------------------------------------------------------------------------


def test_stop_kill_pause(run: Run) -> None:
    container = run(["sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"])
    next(container.logs(stream=True, follow=True))
    container.pause()
    container.reload()
    assert container.status == "paused"
    with pytest.raises(docker.errors.APIError) as refused:
        container.exec_run("true")
    assert refused.value.response.status_code == 409
    container.unpause()
    container.stop()
    assert container.wait() == {"StatusCode": 5}
    container.start()
    container.kill()
    assert container.wait()["StatusCode"] == 137
    with pytest.raises(docker.errors.APIError) as refused:
        container.kill()
    assert refused.value.response.status_code == 409
    container.restart(timeout=0)
    container.reload()
    assert container.status == "running"
    container.rename("renamed")
    container.reload()
    assert container.name == "renamed"
    with pytest.raises(docker.errors.APIError) as refused:
        container.remove()
    assert refused.value.response.status_code == 409
    container.remove(force=True)
    with pytest.raises(docker.errors.NotFound):
        container.reload()


def test_wait_conditions(client: docker.DockerClient, run: Run) -> None:
    container = run(ONE_LINE, stdin_open=True)
    feed(container, b"x\n")
    assert container.wait()["StatusCode"] == 4
    assert container.wait(condition="not-running")["StatusCode"] == 4
    with pytest.raises(requests.exceptions.ConnectionError):
        container.wait(condition="next-exit", timeout=0.2)
    with pytest.raises(docker.errors.APIError) as refused:
        container.wait(condition="whenever")
    assert refused.value.response.status_code == 400
    gone = client.containers.run(images.NAME, ONE_LINE, detach=True, stdin_open=True, auto_remove=True)
    feed(gone, b"x\n")
    with contextlib.suppress(docker.errors.NotFound):  # it may be gone already
        gone.wait(condition="removed")
    with pytest.raises(docker.errors.NotFound):
        client.containers.get(gone.id)


def feed(container: Container, data: bytes) -> bytes:
    """Write to a container's input; what it answers until it ends."""
    sock = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    raw = sock._sock
    raw.sendall(data)
    answer = b""
    while piece := raw.recv(4096):
        answer += piece
    sock.close()
    return answer


def test_listing(client: docker.DockerClient, run: Run) -> None:
    up = run("sleep 100", name="up", labels={"kind": "x"})
    done = run("true", name="done")
    done.wait()
    assert [found.id for found in client.containers.list()] == [up.id]
    assert {found.id for found in client.containers.list(all=True)} == {up.id, done.id}
    for filters, expected in (
        ({"status": "exited"}, [done.id]),
        ({"label": "kind=x"}, [up.id]),
        ({"name": "up"}, [up.id]),
        ({"ancestor": images.NAME, "exited": 0}, [done.id]),
        ({"id": up.short_id}, [up.id]),
    ):
        assert [found.id for found in client.containers.list(all=True, filters=filters)] == expected
    assert [found.id for found in client.containers.list(limit=1)] == [done.id]
    with pytest.raises(docker.errors.APIError) as refused:
        client.containers.list(filters={"odd": "1"})
    assert refused.value.response.status_code == 400
    assert client.containers.get("up").attrs["Config"]["Labels"] == {"kind": "x"}
    with pytest.raises(docker.errors.NotFound, match="No such container: nobody"):
        client.containers.get("nobody")
    assert client.containers.prune()["ContainersDeleted"] == [done.id]


# ---- streams -----------------------------------------------------------------------------------------------


def test_logs(run: Run) -> None:
    container = run(["sh", "-c", "echo one; echo two; read x; echo three"], stdin_open=True)
    follow = container.logs(stream=True, follow=True)
    assert next(follow) == b"one\n"
    feed(container, b"x\n")
    assert b"".join(follow) == b"two\nthree\n"
    assert container.logs(tail=1) == b"three\n"
    assert container.logs(stdout=False) == b""
    stamped = container.logs(timestamps=True).splitlines()
    assert len(stamped) == 3
    assert all(line.partition(b" ")[0].endswith(b"Z") for line in stamped)
    now = int(time.time())
    assert container.logs(since=now + 3600) == b""
    assert container.logs(since=now - 3600, until=now + 3600) == b"one\ntwo\nthree\n"


def test_attach(run: Run) -> None:
    container = run(ONE_LINE, stdin_open=True)
    assert feed(container, b"word\n").endswith(b"got word\n")
    terminal = run(ONE_LINE, stdin_open=True, tty=True)
    assert feed(terminal, b"word\n").endswith(b"got word\r\n")


def test_exec(run: Run) -> None:
    container = run("sleep 100", environment={"A": "1"})
    both = ["sh", "-c", "echo out; echo err >&2; exit 6"]
    assert container.exec_run(both, demux=True) == (6, (b"out\n", b"err\n"))
    assert container.exec_run("id -u", user="app") == (0, b"1000\n")
    said = container.exec_run(["sh", "-c", "echo $A $B $(pwd)"], environment={"B": "2"}, workdir="/etc")
    assert said.output == b"1 2 /etc\n"
    assert container.exec_run("tty", tty=True).output == b"/dev/pts/0\r\n"
    assert b"".join(container.exec_run("seq 3", stream=True).output) == b"1\n2\n3\n"
    assert container.exec_run("true", detach=True).output == ""
    assert container.exec_run("nope").exit_code == 127
    assert container.exec_run("/etc/passwd").exit_code == 126


def test_exec_over_a_socket(client: docker.DockerClient, run: Run) -> None:
    container = run("sleep 100")
    made = client.api.exec_create(container.id, ["sh", "-c", "read x; echo got $x; exit 7"], stdin=True)
    sock = client.api.exec_start(made["Id"], socket=True)
    sock._sock.sendall(b"word\n")
    answer = b""
    while piece := sock._sock.recv(4096):
        answer += piece
    sock.close()
    assert answer.endswith(b"got word\n")
    assert client.api.exec_inspect(made["Id"])["ExitCode"] == 7
    with pytest.raises(docker.errors.NotFound):
        client.api.exec_inspect("0" * 64)


# ---- images, volumes, events -------------------------------------------------------------------------------


def test_images(client: docker.DockerClient, registry: str) -> None:
    image = client.images.get(images.NAME)
    assert image.tag("copied", "1")
    assert [found.id for found in client.images.list(name="copied:1")] == [image.id]
    assert [found.id for found in client.images.list(filters={"reference": "cop*"})] == [image.id]
    assert client.images.list(filters={"dangling": True}) == []
    archive = b"".join(client.images.get("copied:1").save(named="copied:1"))
    client.images.remove("copied:1")
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("copied:1")
    assert client.images.load(archive)[0].id == image.id
    assert "copied:1" in client.images.get(images.NAME).tags
    client.images.remove("copied:1")
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.remove("copied:1")
    with pytest.raises(docker.errors.NotFound, match="manifest unknown"):
        client.images.pull(f"{registry}/nothing", tag="1")
    with pytest.raises((docker.errors.APIError, docker.errors.ImageLoadError)):
        client.images.load(archive[:2048])
    assert image.history() == []


def test_import(client: docker.DockerClient) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo("file")
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"data"))
    client.api.import_image_from_data(packed.getvalue(), repository="imported", tag="1")
    image = client.images.get("imported:1")
    assert len(image.attrs["RootFS"]["Layers"]) == 1
    client.images.remove(image.id)


def test_an_image_in_use_stays(client: docker.DockerClient, run: Run) -> None:
    client.images.get(images.NAME).tag("used", "1")
    client.images.remove("used:1")
    run("sleep 100")
    with pytest.raises(docker.errors.APIError) as refused:
        client.images.remove(images.NAME)
    assert refused.value.response.status_code == 409


def test_volumes(client: docker.DockerClient, run: Run) -> None:
    volume = client.volumes.create("kept", labels={"a": "b"})
    write = ["sh", "-c", "echo data >/v/file"]
    client.containers.run(images.NAME, write, remove=True, volumes={"kept": {"bind": "/v", "mode": "rw"}})
    reader = run("cat /v/file", volumes=["kept:/v:ro"])
    reader.wait()
    assert reader.logs() == b"data\n"
    assert [found.name for found in client.volumes.list(filters={"label": "a=b"})] == ["kept"]
    with pytest.raises(docker.errors.APIError) as refused:
        volume.remove()
    assert refused.value.response.status_code == 409
    reader.remove()
    volume.remove()
    with pytest.raises(docker.errors.NotFound):
        client.volumes.get("kept")


def test_events(client: docker.DockerClient) -> None:
    begin = time.time()
    client.containers.run(images.NAME, "true", name="told", remove=True)
    client.volumes.create("told").remove()
    told = client.events(since=begin, until=time.time(), decode=True)
    found = [(event["Type"], event["Action"]) for event in told]
    of_container = [action for kind, action in found if kind == "container"]
    assert of_container == ["create", "start", "die", "destroy"]
    assert [action for kind, action in found if kind == "volume"] == ["create", "destroy"]
    only = client.events(since=begin, until=time.time(), filters={"event": "die"}, decode=True)
    assert [event["Actor"]["Attributes"]["exitCode"] for event in only] == ["0"]
    live = client.events(decode=True, filters={"type": "volume"})
    client.volumes.create("live").remove()
    assert [next(live)["Action"], next(live)["Action"]] == ["create", "destroy"]
    live.close()


def test_system(client: docker.DockerClient) -> None:
    assert client.ping()
    assert client.info()["OSType"] == "linux"
    assert client.version()["Os"] == "linux"
    assert client.df()
    names = {network.name for network in client.networks.list()}
    assert names == {"bridge", "host", "none"}
    with pytest.raises(docker.errors.NotFound):
        client.networks.get("nope")
