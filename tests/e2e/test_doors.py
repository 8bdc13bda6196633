"""The engine's other doors: TCP with TLS, a socket for readers, the log of who came in, and metrics."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.certificates import Authority
from tests.e2e import serving
from tests.e2e.conftest import PROGRAMS
from tests.e2e.talk import ask

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


LIMIT = "daemon=containers=3,volumes=2,networks=1,memory=96m,cpus=1.5,pids=100"


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    place: Path
    address: str
    readers: str
    audit: Path
    metrics: str
    confined: str
    limited: str
    socket: str


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    place = tmp_path_factory.mktemp("doors")
    authority = Authority(place)
    authority.sign("server")
    authority.sign("client")
    address, metrics = f"tcp://127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    with serving.daemon(
        *("--metrics-addr", metrics, "--confined-host", f"unix://{place}/confined.sock=users"),
        *("--confined-host", f"unix://{place}/limited.sock=daemon", "--confined-limit", LIMIT),
        *("-H", address, "--read-only-host", f"unix://{place}/readers.sock"),
        *("--audit-log", f"{place}/audit", "--tlsverify", "--tlscacert", f"{place}/ca.pem"),
        *("--tlscert", f"{place}/server.pem", "--tlskey", f"{place}/server-key.pem"),
    ) as daemon:
        readers = f"unix://{place}/readers.sock"
        yield Doors(
            place=place,
            address=address,
            readers=readers,
            audit=place / "audit",
            metrics=f"http://{metrics}/metrics",
            confined=f"{place}/confined.sock",
            limited=f"{place}/limited.sock",
            socket=daemon.socket,
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run(program: str, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*PROGRAMS[program], *arguments], input=given, capture_output=True)


@pytest.mark.parametrize("program", PROGRAMS)
def test_over_tls_everything_is_as_on_the_socket(doors: Doors, program: str) -> None:
    place = doors.place
    tls = ["--tlsverify", "--tlscacert", f"{place}/ca.pem", "-H", doors.address]
    tls += ["--tlscert", f"{place}/client.pem", "--tlskey", f"{place}/client-key.pem"]
    data = os.urandom(1 << 20)
    result = run(
        program, *tls, "run", "-i", "--rm", "busybox", "sh", "-c", "cat; echo done >&2; exit 3", given=data
    )
    assert (result.returncode, result.stderr) == (3, b"done\n")
    assert result.stdout == data
    lines = [json.loads(line) for line in doors.audit.read_text().splitlines()]
    made = [line for line in lines if line["path"] == "/containers/create"]
    assert (made[-1]["name"], made[-1]["socket"], made[-1]["status"]) == ("client", doors.address, 201)


@pytest.mark.parametrize("program", PROGRAMS)
def test_readers_look_and_do_not_touch(doors: Doors, program: str) -> None:
    assert run(program, "-H", doors.readers, "ps").returncode == 0
    refused = run(program, "-H", doors.readers, "run", "--rm", "busybox", "true")
    assert refused.returncode == 125
    assert b"POST /containers/create is not allowed on this socket: it is for reading only" in refused.stderr


def scraped(url: str) -> dict[str, dict[frozenset[str], float]]:
    """The values of the page by name, and by what is said of each: ``key=value``."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        text = answer.read().decode()
    found: dict[str, dict[frozenset[str], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = frozenset(f"{key}={value}" for key, value in sample.labels.items())
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_prometheus_is_told_of_containers_and_requests(doors: Doors) -> None:
    place = doors.place
    tls = ["--tlsverify", "--tlscacert", f"{place}/ca.pem", "-H", doors.address]
    tls += ["--tlscert", f"{place}/client.pem", "--tlskey", f"{place}/client-key.pem"]
    before = scraped(doors.metrics)
    made = run("docker", *tls, "run", "-d", "--name", "metered", "busybox", "sleep", "1000")
    assert made.returncode == 0, made.stderr
    series = frozenset({f"id={made.stdout.decode().strip()}", "name=metered"})
    during = scraped(doors.metrics)
    assert run("docker", *tls, "rm", "-f", "metered").returncode == 0
    after = scraped(doors.metrics)
    running = frozenset({"state=running"})
    states = [page["engine_daemon_container_states_containers"][running] for page in (before, during, after)]
    assert states == [0, 1, 0]
    assert during["sampan_container_memory_bytes"][series] > 0
    assert during["sampan_container_processes"][series] >= 1
    assert series not in after.get("sampan_container_memory_bytes", {})
    started = frozenset({"method=POST", "route=/containers/{name}/start", "status=204"})
    counts = [page.get("sampan_requests_total", {}).get(started, 0) for page in (before, during)]
    assert counts[1] == counts[0] + 1
    assert during["sampan_processes"][frozenset({"process=daemon"})] == 1
    queues = ("starts", "removals", "layers", "writes", "events", "requests")
    assert set(during["sampan_queue_length"]) == {frozenset({f"queue={queue}"}) for queue in queues}
    assert (
        during["engine_daemon_events_total"][frozenset()] > before["engine_daemon_events_total"][frozenset()]
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "would give whoever reaches it root on this machine: set --tlsverify"),
        (("--tls",), "could not read the TLS file /nowhere/cert.pem: no such file or directory"),
    ],
)
def test_tcp_is_not_open_by_accident(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    result = subprocess.run(
        [
            *(sys.executable, "-m", "sampan.daemon", "-H", "tcp://127.0.0.1:0", *options),
            *("--data-root", str(tmp_path / "data"), "--exec-root", str(tmp_path / "run")),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "DOCKER_CERT_PATH": "/nowhere"},
    )
    assert result.returncode == 1
    assert words in result.stderr
    assert "Traceback" not in result.stderr


# ---- a group's own socket ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strangers(doors: Doors) -> Iterator[str]:
    """The id of a container that is not the group's, with a volume and a network that are not either."""
    host = f"unix://{doors.socket}"
    assert run("docker", "-H", host, "network", "create", "theirs").returncode == 0
    made = run("docker", "-H", host, "create", "--name", "theirs", "-v", "theirs:/v", "busybox", "true")
    yield made.stdout.decode().strip()
    assert run("docker", "-H", host, "rm", "-f", "theirs").returncode == 0
    assert run("docker", "-H", host, "volume", "rm", "theirs").returncode == 0
    assert run("docker", "-H", host, "network", "rm", "theirs").returncode == 0


def test_a_group_works_with_what_is_its_own(doors: Doors, strangers: str) -> None:
    def docker(*arguments: str) -> str:
        result = run("docker", "-H", f"unix://{doors.confined}", *arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout.decode().strip()

    assert docker("run", "--rm", "-m", "64m", "busybox", "echo", "hello") == "hello"
    docker("network", "create", "ours")
    docker("volume", "create", "ours")
    options = ("--network", "ours", "-v", "ours:/v", "-p", "127.0.0.1::80", "--tmpfs", "/t", "--init")
    docker("run", "-d", "--name", "ours", "--label", "a=b", *options, "busybox", "sleep", "1000")
    docker("run", "--rm", "--network", "container:ours", "--volumes-from", "ours", "busybox", "true")
    assert docker("ps", "-a", "--format", "{{.Names}}") == "ours"
    assert docker("ps", "-a", "--format", "{{.Names}}", "--filter", "label=a=c") == ""
    assert docker("volume", "ls", "-q") == "ours"
    assert docker("network", "ls", "--format", "{{.Name}}") == "ours"
    assert docker("exec", "ours", "cat", "/etc/hostname") == docker("ps", "-q")
    assert docker("inspect", "--format", '{{index .Config.Labels "sampan.owner"}}', "ours") == "users"
    docker("rm", "-f", "ours")
    assert docker("volume", "prune", "-af").count("ours") == 1
    docker("network", "rm", "ours")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/containers/theirs/json", 404),
        ("GET", "/containers/{id}/json", 404),
        ("POST", "/containers/theirs/start", 404),
        ("DELETE", "/containers/{short}?force=1", 404),
        ("GET", "/containers/theirs/archive?path=/", 404),
        ("GET", "/volumes/theirs", 404),
        ("DELETE", "/volumes/theirs", 404),
        ("GET", "/networks/theirs", 404),
        ("DELETE", "/networks/bridge", 404),
        ("DELETE", "/images/busybox?force=1", 403),
        ("POST", "/images/create?fromImage=busybox&tag=latest", 403),
        ("POST", "/images/busybox/tag?repo=x", 403),
        ("GET", "/images/busybox/get", 403),
        ("POST", "/build", 403),
        ("POST", "/commit?container=theirs", 403),
        ("POST", "/system/check?repair=1", 403),
        ("GET", "/system/df", 403),
        ("POST", "/auth", 403),
    ],
)
def test_a_group_does_not_reach_what_is_others(
    doors: Doors, strangers: str, method: str, path: str, status: int
) -> None:
    target = path.format(id=strangers, short=strangers[:12])
    body = b"{}" if method == "POST" else None
    assert ask(doors.confined, method, target, body)[0] == status
    assert ask(doors.socket, "GET", f"/containers/{strangers}/json")[0] == 200


@pytest.mark.parametrize(
    "asked",
    [
        {"HostConfig": {"Privileged": True}},
        {"hostconfig": {"privileged": True}},
        {"User": "100000000"},
        {"HostConfig": {"GroupAdd": ["100000000"]}},
        {"HostConfig": {"Binds": ["/:/host"]}},
        {"HostConfig": {"binds": ["/etc:/host:ro"]}},
        {"HostConfig": {"Binds": ["theirs:/v"]}},
        {"HostConfig": {"Mounts": [{"Type": "bind", "Source": "/", "Target": "/host"}]}},
        {"HostConfig": {"Mounts": [{"type": "volume", "source": "theirs", "target": "/v"}]}},
        {
            "HostConfig": {
                "Mounts": [
                    {
                        "Type": "volume",
                        "Target": "/v",
                        "VolumeOptions": {"DriverConfig": {"Options": {"o": "bind", "device": "/"}}},
                    }
                ]
            }
        },
        {"HostConfig": {"VolumesFrom": ["theirs"]}},
        {"HostConfig": {"PidMode": "host"}},
        {"HostConfig": {"IpcMode": "host"}},
        {"HostConfig": {"UTSMode": "host"}},
        {"HostConfig": {"UsernsMode": "host"}},
        {"HostConfig": {"CgroupnsMode": "host"}},
        {"HostConfig": {"NetworkMode": "host"}},
        {"HostConfig": {"NetworkMode": "theirs"}},
        {"HostConfig": {"NetworkMode": "container:theirs"}},
        {"HostConfig": {"PidMode": "container:theirs"}},
        {"NetworkingConfig": {"EndpointsConfig": {"theirs": {}}}},
        {"HostConfig": {"CapAdd": ["SYS_ADMIN"]}},
        {"HostConfig": {"Devices": [{"PathOnHost": "/dev/sda"}]}},
        {"HostConfig": {"DeviceCgroupRules": ["a *:* rwm"]}},
        {"HostConfig": {"SecurityOpt": ["seccomp=unconfined"]}},
        {"HostConfig": {"MaskedPaths": []}},
        {"HostConfig": {"ReadonlyPaths": []}},
        {"HostConfig": {"CgroupParent": "/"}},
        {"HostConfig": {"Runtime": "runc"}},
        {"HostConfig": {"OomScoreAdj": -900}},
        {"HostConfig": {"Links": ["theirs"]}},
        {"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "80"}]}}},
        {
            "HostConfig": {
                "LogConfig": {"Type": "syslog", "Config": {"syslog-address": "unixgram:///dev/log"}}
            }
        },
        {"HostConfig": {"Sysctls": {"net.ipv4.ip_forward": "1"}}},
        {"HostConfig": {}, "hostConfig": {"Privileged": True}},
        {"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "0-80"}]}}},
        {"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "00"}]}}},
        {"HostConfig": {"Tmpfs": {"/t": "size=1m,bind"}}},
        {
            "HostConfig": {
                "Mounts": [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"Options": [["rbind"]]}}]
            }
        },
        {"HostConfig": {"Mounts": [{"Type": "image", "Source": "busybox", "Target": "/t"}]}},
        {"NetworkingConfig": {"EndpointsConfig": {"bridge": {"NetworkID": "theirs"}}}},
        {"NetworkingConfig": {"EndpointsConfig": {"bridge": {"MacAddress": "02:42:ac:11:00:01"}}}},
        {"NetworkingConfig": {"EndpointsConfig": {"container:theirs": {}}}},
        # Values of other types than are wanted.
        {"HostConfig": {"PortBindings": [1]}},
        {"HostConfig": {"PortBindings": {"80/tcp": 5}}},
        {"HostConfig": {"Binds": 5}},
        {"HostConfig": {"IpcMode": ["host"]}},
        {"HostConfig": {"PidMode": "container:\ud800"}},
        {"NetworkingConfig": {"EndpointsConfig": {"bridge": 5}}},
    ],
    ids=json.dumps,
)
def test_a_group_gets_no_rights_on_the_host(doors: Doors, strangers: str, asked: dict[str, Any]) -> None:
    body = json.dumps({"Image": "busybox", "Cmd": ["true"], **asked}).encode()
    status, said = ask(doors.confined, "POST", "/containers/create", body)
    assert status in (400, 403, 404), said
    assert json.loads(ask(doors.confined, "GET", "/containers/json?all=1")[1]) == []


def test_a_label_of_another_group_is_replaced(doors: Doors) -> None:
    body = json.dumps({"Image": "busybox", "labels": {"sampan.owner": "root", "a": "b"}}).encode()
    status, said = ask(doors.confined, "POST", "/containers/create", body)
    assert status == 201, said
    key = json.loads(said)["Id"]
    labels = json.loads(ask(doors.confined, "GET", f"/containers/{key}/json")[1])["Config"]["Labels"]
    assert labels == {"sampan.owner": "users", "a": "b"}
    filters = quote(json.dumps({"label": ["sampan.owner=root"]}))
    listed = json.loads(ask(doors.confined, "GET", f"/containers/json?all=1&filters={filters}")[1])
    assert [each["Id"] for each in listed] == [key]
    assert ask(doors.confined, "DELETE", f"/containers/{key}")[0] == 204


def test_a_volume_of_others_is_not_told_of_when_it_is_created_again(doors: Doors, strangers: str) -> None:
    status, said = ask(doors.confined, "POST", "/volumes/create", b'{"Name": "theirs"}')
    assert (status, json.loads(said)) == (409, {"message": "create theirs: the name is taken"})


def test_filters_that_nest_too_deep_are_refused(doors: Doors) -> None:
    target = f"/containers/json?filters={quote('[' * 5000)}"
    assert ask(doors.confined, "GET", target)[0] == 400


def test_a_network_that_others_have_given_the_name_meanwhile_is_not_joined(doors: Doors) -> None:
    def make(path: str, target: str, **asked: Any) -> str:
        status, said = ask(path, "POST", target, json.dumps(asked).encode())
        assert status == 201, said
        key: str = json.loads(said)["Id"]
        return key

    make(doors.confined, "/networks/create", Name="fleeting")
    host = {"NetworkMode": "fleeting"}
    key = make(doors.confined, "/containers/create", Image="busybox", Cmd=["true"], HostConfig=host)
    # The group cannot bring it about itself.
    assert ask(doors.confined, "DELETE", "/networks/fleeting")[0] == 409
    assert ask(doors.confined, "POST", "/networks/prune")[0] == 409
    assert ask(doors.socket, "DELETE", "/networks/fleeting")[0] == 204
    make(doors.socket, "/networks/create", Name="fleeting")
    for what in ("start", "restart"):
        assert ask(doors.confined, "POST", f"/containers/{key}/{what}")[0] == 404
    assert ask(doors.confined, "DELETE", f"/containers/{key}")[0] == 204
    assert ask(doors.socket, "DELETE", "/networks/fleeting")[0] == 204


def test_a_group_has_no_more_than_its_quota(doors: Doors) -> None:
    def make(target: str, **asked: Any) -> tuple[int, str]:
        status, said = ask(doors.limited, "POST", target, json.dumps(asked).encode())
        return status, said.decode()

    def box(name: str, **more: int) -> tuple[int, str]:
        host = {"Memory": 32 << 20, "NanoCpus": 5 * 10**8, "PidsLimit": 20, **more}
        return make(f"/containers/create?name={name}", Image="busybox", Cmd=["true"], HostConfig=host)

    assert box("q0", PidsLimit=0) == (
        403,
        '{"message":"this socket has a quota of pids: use --pids-limit"}\n',
    )
    assert box("q0", MemorySwap=-1)[0] == 403
    assert box("q0", Memory=97 << 20)[0] == 403
    assert box("q0", NanoCpus=0, CpuQuota=200_000)[0] == 403
    assert [box(f"q{number}")[0] for number in range(3)] == [201, 201, 201]
    status, said = box("q3", Memory=6 << 20)
    assert (status, "quota of containers is 3, and 3 of it are in use" in said) == (403, True), said
    # What it has is not counted beside what it is to have.
    assert make("/containers/q0/update", Memory=32 << 20, MemorySwap=64 << 20)[0] == 200
    for more in ({"Memory": 33 << 20}, {"MemorySwap": -1}, {"PidsLimit": -1}, {"PidsLimit": 61}):
        assert make("/containers/q0/update", **more)[0] == 403
    assert ask(doors.limited, "DELETE", "/containers/q0")[0] == 204
    mounts: dict[str, Any] = {"/a": {}, "/b": {}, "/c": {}}
    host = {"Memory": 6 << 20, "NanoCpus": 1, "PidsLimit": 1}
    status, said = make("/containers/create", Image="busybox", Volumes=mounts, HostConfig=host)
    assert (status, "quota of volumes" in said) == (403, True), said
    assert make("/networks/create", Name="q1")[0] == 201
    assert make("/networks/create", Name="q2")[0] == 403
    assert [make("/volumes/create", Name=f"quota{number}")[0] for number in range(3)] == [201, 201, 403]
    for target in ("containers/q1", "containers/q2", "networks/q1", "volumes/quota0", "volumes/quota1"):
        assert ask(doors.limited, "DELETE", f"/{target}")[0] == 204


def test_two_at_once_do_not_get_the_last_of_a_quota(doors: Doors) -> None:
    host = {"Memory": 30 << 20, "NanoCpus": 1, "PidsLimit": 1}
    body = json.dumps({"Image": "busybox", "Cmd": ["true"], "HostConfig": host}).encode()
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, doors.limited, "POST", "/containers/create", body) for _ in range(8)]
    answers = [one.result() for one in asked]
    made = [json.loads(said)["Id"] for status, said in answers if status == 201]
    assert len(made) <= 3
    assert {status for status, _ in answers} == {201, 403}
    for key in made:
        assert ask(doors.limited, "DELETE", f"/containers/{key}")[0] == 204


def test_a_restart_by_itself_joins_no_network_of_others(doors: Doors) -> None:
    """The container was there; the network was made anew by another while it was away."""
    asked = {"Name": "fleeting", "Labels": {}}
    assert ask(doors.confined, "POST", "/networks/create", json.dumps(asked).encode())[0] == 201
    host = {"NetworkMode": "fleeting", "RestartPolicy": {"Name": "always"}}
    box = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": host}
    status, said = ask(doors.confined, "POST", "/containers/create?name=restarted", json.dumps(box).encode())
    assert status == 201, said
    assert ask(doors.confined, "POST", "/containers/restarted/start")[0] == 204
    assert ask(doors.socket, "POST", "/containers/restarted/stop?t=0")[0] == 204
    assert ask(doors.socket, "DELETE", "/networks/fleeting")[0] == 204
    assert ask(doors.socket, "POST", "/networks/create", json.dumps(asked).encode())[0] == 201
    # Nobody asks the group's door now: as after a crash, the engine starts it.
    status, said = ask(doors.socket, "POST", "/containers/restarted/start")
    assert (status, b"network fleeting not found" in said) == (404, True), said
    assert ask(doors.confined, "DELETE", "/containers/restarted?force=1")[0] == 204
    assert ask(doors.socket, "DELETE", "/networks/fleeting")[0] == 204


def test_volumes_that_are_made_on_the_way_are_the_group_s(doors: Doors) -> None:
    mount = {"Type": "volume", "Target": "/b", "VolumeOptions": {"Labels": {"sampan.owner": "others"}}}
    box = {"Image": "busybox", "Volumes": {"/a": {}}, "HostConfig": {"Mounts": [mount]}}
    status, said = ask(doors.confined, "POST", "/containers/create", json.dumps(box).encode())
    assert status == 201, said
    key = json.loads(said)["Id"]
    volumes = json.loads(ask(doors.confined, "GET", "/volumes")[1])["Volumes"]
    mounted = json.loads(ask(doors.confined, "GET", f"/containers/{key}/json")[1])["Mounts"]
    assert {volume["Name"] for volume in volumes} == {mount["Name"] for mount in mounted}
    assert [volume["Labels"]["sampan.owner"] for volume in volumes] == ["users", "users"]
    assert ask(doors.confined, "DELETE", f"/containers/{key}?v=1")[0] == 204


def test_what_is_made_of_an_image_is_not_the_group_s_for_the_image_s_label(doors: Doors) -> None:
    def make(path: str, image: str) -> str:
        body = json.dumps({"Image": image, "Cmd": ["true"]}).encode()
        status, said = ask(path, "POST", "/containers/create", body)
        assert status == 201, said
        key: str = json.loads(said)["Id"]
        return key

    key = make(doors.confined, "busybox")
    target = f"/commit?container={key}&repo=kept"
    assert ask(doors.socket, "POST", target, b'{"Labels": {"sampan.owner": "users", "a": "b"}}')[0] == 201
    other = make(doors.socket, "kept")
    labels = json.loads(ask(doors.socket, "GET", f"/containers/{other}/json")[1])["Config"]["Labels"]
    assert labels == {"a": "b"}
    assert ask(doors.confined, "GET", f"/containers/{other}/json")[0] == 404
    for path in (f"/containers/{key}", f"/containers/{other}", "/images/kept"):
        assert ask(doors.socket, "DELETE", path)[0] in (200, 204)


def test_a_name_cannot_pass_for_the_id_of_something(doors: Doors, strangers: str) -> None:
    body = b'{"Image": "busybox", "Cmd": ["true"]}'
    network = json.loads(ask(doors.socket, "GET", "/networks/theirs")[1])["Id"]
    for digits, status in ((12, 403), (11, 409), (6, 409)):
        target = f"/containers/create?name={strangers[:digits]}"
        assert ask(doors.confined, "POST", target, body)[0] == status
        asked = json.dumps({"Name": network[:digits]}).encode()
        assert ask(doors.confined, "POST", "/networks/create", asked)[0] == status
    status, said = ask(doors.confined, "POST", "/containers/create?name=ours", body)
    assert status == 201, said
    target = f"/containers/ours/rename?name={strangers[:12]}"
    assert ask(doors.confined, "POST", target)[0] == 403
    assert ask(doors.confined, "DELETE", "/containers/ours")[0] == 204
