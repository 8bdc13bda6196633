"""docker-py's own objects over what a container offers beyond its life: figures, files, changes, health."""

from __future__ import annotations

import contextlib
import io
import tarfile
import time
from collections.abc import Iterator
from typing import Any

import docker
import docker.errors
import pytest
from docker.types import Healthcheck, LogConfig

from tests.e2e import images
from tests.e2e.docker_py.conftest import Run
from tests.e2e.serving import Daemon

pytestmark = [pytest.mark.root, pytest.mark.e2e]


def tarred(**files: bytes) -> bytes:
    """An archive of files, names with "_" for "."."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name.replace("_", "."))
            entry.size, entry.uid, entry.gid = len(data), 1000, 1000
            tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def untarred(pieces: Iterator[bytes]) -> dict[str, bytes]:
    """The files of an archive."""
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        return {
            entry.name: file.read() for entry in tar if entry.isfile() and (file := tar.extractfile(entry))
        }


# ---- figures -----------------------------------------------------------------------------------------------


def test_stats(run: Run) -> None:
    container = run("sleep 100", mem_limit="64m")
    once = container.stats(stream=False)
    assert once["name"] == f"/{container.name}"
    assert once["id"] == container.id
    assert once["pids_stats"]["current"] >= 1
    assert once["memory_stats"]["limit"] == 64 << 20
    assert once["memory_stats"]["usage"] > 0
    assert "eth0" in once["networks"]
    assert once["cpu_stats"]["system_cpu_usage"] >= once["precpu_stats"]["system_cpu_usage"] > 0
    stream = container.stats(stream=True, decode=True)
    first, second = next(stream), next(stream)
    assert second["read"] > first["read"]
    stream.close()


def test_top(run: Run) -> None:
    container = run("sleep 100")
    container.exec_run("sleep 101", detach=True)
    found = container.top()
    assert found["Titles"][-1] == "CMD"
    assert "PID" in found["Titles"]
    commands = sorted(row[-1] for row in found["Processes"])
    assert [command for command in commands if "sleep" in command] == ["sleep 100", "sleep 101"]
    assert container.top(ps_args="-o pid,args")["Titles"] == ["PID", "COMMAND"]
    container.kill()
    container.wait()
    with pytest.raises(docker.errors.APIError) as refused:
        container.top()
    assert refused.value.response.status_code == 409


def test_ports_and_resize(run: Run) -> None:
    container = run("sh", tty=True, stdin_open=True)
    container.resize(height=33, width=77)
    code, said = container.exec_run(["sh", "-c", "stty size <&1"], tty=True)
    assert code == 0, said
    assert container.ports == {}


def test_update(client: docker.DockerClient, run: Run) -> None:
    container = run("sleep 100", mem_limit="64m")
    assert container.update(mem_limit="96m", memswap_limit="96m", cpu_shares=512) is not None
    container.reload()
    host = container.attrs["HostConfig"]
    assert (host["Memory"], host["CpuShares"]) == (96 << 20, 512)
    files = "/sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes"
    seen = container.exec_run(["sh", "-c", f"cat {files} 2>/dev/null"]).output
    assert seen == b"%d\n" % (96 << 20)
    container.update(restart_policy={"Name": "on-failure", "MaximumRetryCount": 2})
    container.reload()
    assert container.attrs["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}


def test_disk_usage(daemon: Daemon, run: Run) -> None:
    container = run(["sh", "-c", "dd if=/dev/zero of=/made bs=1k count=300 2>/dev/null"])
    container.wait()
    found = docker.APIClient(base_url=daemon.host, version="1.41").df()
    row = next(one for one in found["Containers"] if one["Id"] == container.id)
    assert 300 << 10 <= row["SizeRw"] < 400 << 10
    assert any(images.NAME in (one["RepoTags"] or ()) for one in found["Images"])
    assert found["LayersSize"] > 0


# ---- files -------------------------------------------------------------------------------------------------


def test_archives(run: Run) -> None:
    container = run("sleep 100")
    assert container.put_archive("/tmp", tarred(one_txt=b"one", two_txt=b"two"))
    assert container.exec_run("cat /tmp/one.txt /tmp/two.txt").output == b"onetwo"
    assert container.exec_run("stat -c %u /tmp/one.txt").output == b"1000\n"
    pieces, stat = container.get_archive("/tmp/one.txt")
    assert untarred(pieces) == {"one.txt": b"one"}
    assert (stat["name"], stat["size"]) == ("one.txt", 3)
    pieces, _ = container.get_archive("/tmp")
    assert untarred(pieces) == {"tmp/one.txt": b"one", "tmp/two.txt": b"two"}
    with pytest.raises(docker.errors.NotFound):
        container.get_archive("/nowhere")
    with pytest.raises(docker.errors.APIError) as refused:
        container.put_archive("/etc/passwd", tarred(x=b""))
    assert refused.value.response.status_code == 400
    container.kill()
    container.wait()
    assert untarred(container.get_archive("/tmp/one.txt")[0]) == {"one.txt": b"one"}
    assert container.put_archive("/", tarred(three=b"3"))
    assert untarred(container.get_archive("/three")[0]) == {"three": b"3"}


def test_a_link_leads_nowhere_else(run: Run) -> None:
    container = run("sleep 100")
    assert container.exec_run("ln -s /../../../../etc/hostname /tmp/out").exit_code == 0
    with contextlib.suppress(docker.errors.APIError):
        pieces, _ = container.get_archive("/tmp/out/.")
        with open("/etc/hostname", "rb") as file:
            assert file.read() not in untarred(pieces).values()


def test_changes_and_export(run: Run) -> None:
    container = run(["sh", "-c", "echo made >/made; rm /etc/group; echo more >>/etc/passwd"])
    container.wait()
    changes = {(one["Path"], one["Kind"]) for one in container.diff()}
    assert {("/made", 1), ("/etc", 0), ("/etc/group", 2), ("/etc/passwd", 0)} == changes
    files = untarred(container.export())
    assert files["made"] == b"made\n"
    assert "etc/group" not in files


def test_commit(client: docker.DockerClient, run: Run) -> None:
    container = run(["sh", "-c", "echo made >/made; sleep 100"])
    while container.exec_run("test -e /made").exit_code:
        continue
    image = container.commit(
        repository="committed",
        tag="1",
        message="a message",
        author="me",
        changes=["CMD cat /made", "ENV A=1"],
    )
    assert image.tags == ["committed:1"]
    assert image.attrs["Author"] == "me"
    assert image.attrs["Comment"] == "a message"
    assert image.attrs["Config"]["Env"] == ["A=1", "PATH=/bin"]
    assert image.history()[0]["Comment"] == "a message"
    assert client.containers.run("committed:1", remove=True) == b"made\n"
    client.images.remove("committed:1")


# ---- health, restarts, logs --------------------------------------------------------------------------------


def test_health(client: docker.DockerClient, run: Run) -> None:
    begin = time.time()
    second = 1_000_000_000
    check = Healthcheck(test=["CMD", "test", "-e", "/well"], interval=second // 10, timeout=second, retries=2)
    container = run("sleep 100", healthcheck=check)
    told = client.events(
        since=begin, filters={"container": container.id, "event": "health_status"}, decode=True
    )
    assert next(told)["Action"] == "health_status: unhealthy"
    container.exec_run("touch /well")
    assert next(told)["Action"] == "health_status: healthy"
    told.close()
    container.reload()
    assert container.health == "healthy"
    assert container.attrs["State"]["Health"]["Log"][-1]["ExitCode"] == 0
    assert client.containers.list(filters={"health": "healthy"}) == [container]


def test_restarts(client: docker.DockerClient, run: Run) -> None:
    begin = time.time()
    container = run(["sh", "-c", "exit 3"], restart_policy={"Name": "on-failure", "MaximumRetryCount": 2})
    told = client.events(since=begin, filters={"container": container.id, "event": "die"}, decode=True)
    assert [next(told)["Actor"]["Attributes"]["exitCode"] for _ in range(3)] == ["3", "3", "3"]
    told.close()
    assert container.wait()["StatusCode"] == 3
    container.reload()
    assert container.attrs["RestartCount"] == 2


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_logs_of_drivers(run: Run, driver: str) -> None:
    container = run(
        ["seq", "100"], log_config=LogConfig(type=driver, config={"max-size": "1m", "max-file": "2"})
    )
    container.wait()
    assert container.logs() == b"".join(b"%d\n" % number for number in range(1, 101))
    assert container.logs(tail=2) == b"99\n100\n"


def _until(sock: Any, end: bytes) -> None:
    """Read an attached stream until it ends with ``end``."""
    said = b""
    while not said.endswith(end):
        piece = sock.recv(4096)
        assert piece, f"{end!r} did not come after {said!r}"
        said += piece


def test_several_clients_attach(run: Run) -> None:
    container = run("cat", stdin_open=True)
    options = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
    attached = [container.attach_socket(params=options) for _ in range(3)]
    for sock in attached:  # each is heard and hears
        sock._sock.sendall(b"mine\n")
        _until(sock._sock, b"mine\n")
    attached[0]._sock.sendall(b"word\n")
    for sock in attached:
        _until(sock._sock, b"word\n")
        sock.close()
    assert container.attach(logs=True, stream=False) == b"mine\nmine\nmine\nword\n"


# ---- prunes ------------------------------------------------------------------------------------------------


def test_prunes(client: docker.DockerClient, run: Run) -> None:
    kept = run("sleep 100")
    gone = run("true", labels={"prune": "me"})
    spared = run("true")
    for container in (gone, spared):
        container.wait()
    assert client.containers.prune(filters={"label": "prune=me"})["ContainersDeleted"] == [gone.id]
    assert client.containers.prune(filters={"until": "1h"})["ContainersDeleted"] is None
    found = client.containers.prune()
    assert found["ContainersDeleted"] == [spared.id]
    assert client.containers.list(all=True) == [kept]
    volume = client.api.create_volume()
    assert client.volumes.prune()["VolumesDeleted"] == [volume["Name"]]
    assert client.images.prune()["SpaceReclaimed"] == 0
    assert client.networks.prune() == {"NetworksDeleted": None}
