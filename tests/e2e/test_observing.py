"""What is told about containers that run, and about the disk, against what is really so."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.e2e import images
from tests.e2e.conftest import PROGRAMS, Client
from tests.e2e.serving import Daemon

pytestmark = [pytest.mark.root, pytest.mark.e2e]

BUSY = ["sh", "-c", "while :; do :; done"]


@pytest.fixture(scope="module")
def api(daemon: Daemon) -> Iterator[Any]:
    client = docker.DockerClient(base_url=daemon.host, timeout=30)
    yield client
    client.close()


@pytest.fixture
def made(api: Any) -> Iterator[list[Any]]:
    """Containers to remove when the test ends."""
    found: list[Any] = []
    yield found
    for container in found:
        container.remove(force=True, v=True)


def start(api: Any, made: list[Any], command: list[str], **options: Any) -> Any:
    made.append(api.containers.run(images.NAME, command, detach=True, **options))
    return made[-1]


# ---- stats -------------------------------------------------------------------------------------------------


def cpu_percent(reading: dict[str, Any]) -> float:
    """Docker's formula (the API's description)."""
    now, before = reading["cpu_stats"], reading["precpu_stats"]
    used = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    whole = now["system_cpu_usage"] - before["system_cpu_usage"]
    return float(used / whole * now["online_cpus"] * 100)


def test_a_limited_loop_uses_what_it_may(api: Any, made: list[Any]) -> None:
    busy = start(api, made, BUSY, nano_cpus=250_000_000, mem_limit="64m", pids_limit=20)
    reading = busy.stats(stream=False)
    assert 1 < cpu_percent(reading) < 35
    assert reading["cpu_stats"]["throttling_data"]["throttled_periods"] > 0
    assert reading["memory_stats"]["limit"] == 64 << 20
    assert 0 < reading["memory_stats"]["usage"] < 64 << 20
    assert reading["pids_stats"] == {"current": 1, "limit": 20}
    assert (reading["name"], reading["id"]) == (f"/{busy.name}", busy.id)


def test_a_stream_of_readings_ends_with_the_container(api: Any, made: list[Any]) -> None:
    container = start(api, made, ["sleep", "100"])
    stream = container.stats(decode=True)
    first, second = next(stream), next(stream)
    assert first["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    assert second["preread"] == first["read"]
    container.kill()
    while next(stream)["pids_stats"]:
        pass
    made.remove(container)
    container.remove()
    assert all(not reading["pids_stats"] for reading in stream)


def test_traffic_is_counted_as_seen_from_inside(api: Any, made: list[Any]) -> None:
    """The peer's address need not answer: what is sent towards it counts."""
    container = start(api, made, ["sh", "-c", "sleep 100"])
    code, _ = container.exec_run(["ping", "-c", "3", "-W", "1", "-s", "1000", gateway(container)])
    sent = container.stats(stream=False, one_shot=True)["networks"]["eth0"]["tx_bytes"]
    assert code == 0
    assert 3000 < sent < 10_000


def gateway(container: Any) -> str:
    container.reload()
    return str(container.attrs["NetworkSettings"]["Networks"]["bridge"]["Gateway"])


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_clients_print_a_table(program: str, client: Client, api: Any, made: list[Any]) -> None:
    busy = start(api, made, BUSY, name="busy", network_mode="none", nano_cpus=500_000_000)
    done = client(program, ["stats", "--no-stream", "--no-trunc", "busy"])
    heading, row = done.stdout.splitlines()
    columns = "CONTAINER ID|NAME|CPU %|MEM USAGE / LIMIT|MEM %|NET I/O|BLOCK I/O|PIDS"
    assert re.split(r" {3,}", heading) == columns.split("|")
    found = re.match(rf"{busy.id} +busy +(\d+\.\d\d)% +\S+KiB / \S+ +0\.\d\d% +0B / 0B +\S+ / \S+ +1$", row)
    assert found is not None, row
    assert 1 < float(found[1]) < 70


def test_a_table_is_drawn_anew(api: Any, made: list[Any], environment: dict[str, str]) -> None:
    start(api, made, ["sleep", "100"], name="drawn", network_mode="none")
    command = [*PROGRAMS["sampan"], "stats", "--format", "{{.Name}} {{.PIDs}}", "drawn"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as drawing:
        assert drawing.stdout is not None
        lines = [drawing.stdout.readline() for _ in range(3)]
        drawing.terminate()
    assert lines == [b"\x1b[Hdrawn 1\x1b[K\n", b"\x1b[J\x1b[Hdrawn 1\x1b[K\n", b"\x1b[J\x1b[Hdrawn 1\x1b[K\n"]


# ---- top ---------------------------------------------------------------------------------------------------


def test_top_by_docker_py(api: Any, made: list[Any]) -> None:
    container = start(api, made, ["sleep", "100"])
    found = container.top()
    assert found["Titles"][:3] == ["UID", "PID", "PPID"]
    (row,) = found["Processes"]
    assert (row[0], row[-1]) == ("root", "sleep 100")
    container.reload()
    assert row[1] == str(container.attrs["State"]["Pid"])
    assert container.top(ps_args="-o user,pid,comm")["Processes"] == [["root", row[1], "sleep"]]


# ---- the disk ----------------------------------------------------------------------------------------------


def du(*paths: str) -> int:
    said = subprocess.run(
        ["du", "-c", "-s", "--block-size=1", *paths], check=True, capture_output=True, text=True
    ).stdout
    return int(said.splitlines()[-1].split()[0])


FILL = (
    "mkdir -p $0/a/b; dd if=/dev/urandom of=$0/a/b/large bs=1M count=9 2>/dev/null; "
    "ln $0/a/b/large $0/again; for i in $(seq 300); do echo $i >$0/a/$i; done; truncate -s 1G $0/sparse"
)


def timeless(table: str) -> str:
    """Without the ages, which two commands read at different times, and the columns' widths."""
    return re.sub(r" {2,}", "  ", re.sub(r"(Less than a|\d+) seconds?", "N seconds", table))


def test_disk_usage_is_true_to_the_disk(daemon: Daemon, client: Client, api: Any, made: list[Any]) -> None:
    data = f"{daemon.root}/data"
    volume = api.volumes.create()
    command = ["sh", "-c", f"{FILL}; {FILL.replace('$0', '/v')}", "/tmp"]
    writer = start(api, made, command, volumes={volume.name: {"bind": "/v"}})
    assert writer.wait()["StatusCode"] == 0
    old = docker.DockerClient(base_url=daemon.host, version="1.44")
    found = old.df()
    old.close()
    (layer,) = found["Containers"]
    (kept,) = found["Volumes"]
    real = {
        "images": du(f"{data}/layers", f"{data}/blobs"),
        "container": du(f"{data}/snapshots/{writer.id}"),
        "volume": du(f"{data}/volumes/{volume.name}"),
    }
    told = {
        "images": found["LayersSize"],
        "container": layer["SizeRw"],
        "volume": kept["UsageData"]["Size"],
    }
    for what, size in real.items():
        overhead = 8 * 4096  # the directories around
        assert abs(told[what] - size) < size / 100 + overhead, (what, told, real)
    lines = client("sampan", ["system", "df", "--format", "{{json .}}"]).stdout.splitlines()
    assert [json.loads(line)["TotalCount"] for line in lines][1:3] == ["1", "1"]
    assert client("docker", ["system", "df"]).stdout == client("sampan", ["system", "df"]).stdout
    detailed = [client(program, ["system", "df", "-v"]).stdout for program in ("docker", "sampan")]
    assert timeless(detailed[0]) == timeless(detailed[1])


def test_prune_says_what_goes(daemon: Daemon, client: Client, api: Any) -> None:
    container = api.containers.run(images.NAME, ["sh", "-c", FILL, "/tmp"], detach=True)
    container.wait()
    place = f"{daemon.root}/data/snapshots/{container.id}/fs"
    taken = du(place)
    pruned = api.containers.prune()
    assert pruned["ContainersDeleted"] == [container.id]
    assert abs(pruned["SpaceReclaimed"] - taken) <= 4096
    assert client("sampan", ["system", "prune", "-f"]).stdout == "Total reclaimed space: 0B\n"


# ---- listing -----------------------------------------------------------------------------------------------


def test_sizes_are_listed_for_those_that_are_asked_for(api: Any, made: list[Any]) -> None:
    writer = start(api, made, ["sh", "-c", "echo hello >/f"])
    other = start(api, made, ["true"])
    for one in (writer, other):
        one.wait()
    listed = api.api.containers(all=True, size=True, filters={"id": writer.id})
    assert [(one["Id"], one["SizeRw"]) for one in listed] == [(writer.id, 6)]
    assert listed[0]["SizeRootFs"] == 6 + api.images.get(images.NAME).attrs["Size"]


def test_exposed_ports_are_listed_while_it_runs(client: Client, api: Any, made: list[Any]) -> None:
    exposed = api.api.create_container(
        images.NAME, ["sleep", "100"], ports=[(53, "udp"), 80], name="exposing"
    )
    made.append(api.containers.get(exposed["Id"]))
    made[-1].start()
    listed = client("sampan", ["ps", "-f", "expose=80", "--format", "{{.Names}} {{.Ports}}"]).stdout
    assert listed == "exposing 53/udp, 80/tcp\n"


# ---- system report -----------------------------------------------------------------------------------------


def test_a_report_has_the_containers_and_no_secret(
    api: Any, made: list[Any], client: Client, tmp_path: Path
) -> None:
    secret = "correct-horse"
    start(
        api,
        made,
        ["sh", "-c", f": {secret}; sleep 1000"],
        name="reported",
        environment={"PASSWORD": secret},
        labels={"token": secret},
    )
    path = tmp_path / "report.tar.gz"
    result = client("sampan", ["system", "report", "-o", str(path)])
    assert (result.returncode, result.stdout.strip()) == (0, str(path))
    again = client("sampan", ["system", "report", "-o", str(path)])
    assert (again.returncode, again.stderr) == (1, f"failed to write {path}: file exists\n")
    with tarfile.open(path) as archive:
        files = {
            member.name.partition("/")[2]: archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive
        }
    assert not [name for name, content in files.items() if secret.encode() in content]
    container = json.loads(files[f"engine/containers/{made[0].short_id}.json"])
    assert container["Name"] == "/reported"
    assert "PASSWORD=***" in container["Config"]["Env"]
    assert json.loads(files["engine/info.json"])["ContainersRunning"] >= 1
    assert b" / " in files["host/proc/self/mountinfo"]
