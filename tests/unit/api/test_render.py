"""Docker's shapes and words."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from tests.fakes.api import Description

from sampan.api.render import container as render
from sampan.api.render import execs as render_exec
from sampan.api.render.events import event as render_event
from sampan.api.render.structs import render_struct
from sampan.api.render.times import human_duration, rfc3339, rfc3339_fixed
from sampan.engine.model import (
    Container,
    ContainerConfig,
    ContainerState,
    EndpointSettings,
    Event,
    EventType,
    Exec,
    ExecConfig,
    HostConfig,
    LogConfig,
    MountPoint,
    NetworkSettings,
    PortBinding,
    Status,
)

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND
V1_41, V1_52, NEWEST = (1, 41), (1, 52), (1, 56)


def plain(value: Any) -> Any:
    """As a client decodes it."""
    return json.loads(msgspec.json.encode(value))


def make(**changes: Any) -> Container:
    container = Container(
        id="ab" * 32,
        name="quiet_crane",
        created=NOW - 3600 * SECOND - 1,
        path="sleep",
        args=("1 2", "x"),
        image_id="sha256:" + "cd" * 32,
        config=ContainerConfig(image="busybox", cmd=("sleep", "1 2", "x"), labels={"a": "b"}),
        host=HostConfig(
            network_mode="bridge",
            memory=5,
            annotations={"k": "v"},
            log_config=LogConfig(type="json-file"),
            cgroupns_mode="private",
        ),
        state=ContainerState(status=Status.RUNNING, pid=7, started_at=NOW - 300 * SECOND),
        network=NetworkSettings(
            sandbox_id="s",
            networks={
                "bridge": EndpointSettings(ip_address="172.30.0.2", ip_prefix_len=16, gateway="172.30.0.1")
            },
            ports={"80/tcp": (PortBinding(host_ip="0.0.0.0", host_port="8080"),), "53/udp": None},
        ),
        mounts=(
            MountPoint(
                type="bind", source="/src", destination="/dst", mode="ro", rw=False, propagation="rprivate"
            ),
            MountPoint(type="volume", name="v", source="/v", destination="/data", driver="local", mode="z"),
            MountPoint(type="tmpfs", destination="/t", origin="tmpfs"),
        ),
    )
    return msgspec.structs.replace(container, **changes)


@pytest.mark.parametrize("state", list(Status))
def test_the_newest_answers_are_as_described(description: Description, state: Status) -> None:
    container = make(state=ContainerState(status=state, started_at=NOW, finished_at=NOW + 5))
    document = plain(render.inspect(container, NEWEST))
    del document["UserNamespace"]  # the engine's own, which Docker has no name for
    assert description.problems("ContainerInspectResponse", document) == []
    assert description.problems("ContainerSummary", plain(render.summary(container, NOW, NEWEST))) == []


def test_nothing_is_kept_of_many_containers_that_are_gone() -> None:
    many = [make(id=f"{number:064x}") for number in range(300)]
    assert len(render.summaries(many, NOW, NEWEST)) == 300
    assert render.summaries(many[:1], NOW, NEWEST) == [render.summary(many[0], NOW, NEWEST)]
    assert list(render._KEPT) == [many[0].id]


def test_a_document_is_kept_until_the_container_changes() -> None:
    container = make()
    kept = render.inspected(container, NEWEST)
    assert json.loads(kept) == plain(render.inspect(container, NEWEST))
    assert render.inspected(make(), NEWEST) is kept
    changed = render.inspected(make(restart_count=7), NEWEST)
    assert json.loads(changed)["RestartCount"] == 7
    assert "GraphDriver" in json.loads(render.inspected(container, V1_41))


def test_inspect() -> None:
    document = plain(render.inspect(make(), V1_41))
    assert document["Name"] == "/quiet_crane"
    assert document["Created"] == "2023-11-14T21:13:19.999999999Z"
    assert document["State"] == {
        "Status": "running",
        "Running": True,
        "Paused": False,
        "Restarting": False,
        "OOMKilled": False,
        "Dead": False,
        "Pid": 7,
        "ExitCode": 0,
        "Error": "",
        "StartedAt": "2023-11-14T22:08:20Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
    }
    assert document["HostConfig"]["Memory"] == 5
    assert document["HostConfig"]["KernelMemory"] == 0
    assert "Tmpfs" not in document["HostConfig"]
    assert document["Config"]["Cmd"] == ["sleep", "1 2", "x"]
    assert document["Config"]["Entrypoint"] is None
    assert "StopTimeout" not in document["Config"]
    assert [mount["Type"] for mount in document["Mounts"]] == ["bind", "volume"]
    assert document["Mounts"][1] == {
        "Type": "volume",
        "Name": "v",
        "Source": "/v",
        "Destination": "/data",
        "Driver": "local",
        "Mode": "z",
        "RW": True,
        "Propagation": "",
    }
    assert document["NetworkSettings"]["IPAddress"] == "172.30.0.2"
    assert document["NetworkSettings"]["Ports"]["80/tcp"] == [{"HostIp": "0.0.0.0", "HostPort": "8080"}]
    newest = plain(render.inspect(make(), V1_52))
    assert list(newest["NetworkSettings"]) == ["SandboxID", "SandboxKey", "Ports", "Networks"]
    assert "KernelMemory" not in newest["HostConfig"]


def test_pointers_to_zero_are_shown() -> None:
    assert render_struct(ContainerConfig(stop_timeout=0))["StopTimeout"] == 0
    assert render_struct(HostConfig(init=False))["Init"] is False
    assert "Init" not in render_struct(HostConfig())


def test_summary() -> None:
    document = plain(render.summary(make(), NOW, V1_41))
    assert document["Names"] == ["/quiet_crane"]
    assert document["Command"] == "sleep '1 2' x"
    assert document["Created"] == 1_699_996_399
    assert document["Labels"] == {"a": "b"}
    assert document["HostConfig"] == {"NetworkMode": "bridge"}
    assert document["Ports"] == [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"PrivatePort": 53, "Type": "udp"},
    ]
    assert plain(render.summary(make(), NOW, NEWEST))["HostConfig"]["Annotations"] == {"k": "v"}


@pytest.mark.parametrize("port", ["0x10", "", "80-90", "70000", "१२", "-1", "9" * 5000])
def test_an_exposed_port_that_is_none_spoils_no_list(port: str) -> None:
    container = make(network=NetworkSettings(ports={f"{port}/tcp": None}))
    assert render.summary(container, NOW, V1_41)["Ports"] == [{"PrivatePort": 0, "Type": "tcp"}]


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (ContainerState(), "Created"),
        (ContainerState(status=Status.RUNNING, started_at=NOW - 180 * SECOND), "Up 3 minutes"),
        (ContainerState(status=Status.PAUSED, started_at=NOW - 5 * SECOND), "Up 5 seconds (Paused)"),
        (
            ContainerState(status=Status.EXITED, exit_code=137, started_at=1, finished_at=NOW - 2 * SECOND),
            "Exited (137) 2 seconds ago",
        ),
        (
            ContainerState(status=Status.RESTARTING, exit_code=1, started_at=1, finished_at=NOW - SECOND),
            "Restarting (1) 1 second ago",
        ),
        (ContainerState(status=Status.REMOVING), "Removal In Progress"),
        (ContainerState(status=Status.DEAD), "Dead"),
    ],
)
def test_status(state: ContainerState, text: str) -> None:
    assert render.status_text(make(state=state), NOW) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (59 * 60 + 59, "59 minutes"),
        (3600, "About an hour"),
        (3600 + 1799, "About an hour"),
        (3600 + 1800, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (13 * 86400, "13 days"),
        (14 * 86400, "2 weeks"),
        (59 * 86400, "8 weeks"),
        (60 * 86400, "2 months"),
        (729 * 86400, "24 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_durations(seconds: int, text: str) -> None:
    assert human_duration(seconds * SECOND) == text


def test_times() -> None:
    assert rfc3339(NOW) == "2023-11-14T22:13:20Z"
    assert rfc3339(NOW + 1_200_000) == "2023-11-14T22:13:20.0012Z"
    assert rfc3339(0) == "0001-01-01T00:00:00Z"
    assert rfc3339_fixed(NOW + 1_200_000) == "2023-11-14T22:13:20.001200000Z"


def test_events_lose_their_old_members_in_1_52() -> None:
    event = Event(
        type=EventType.CONTAINER,
        action="start",
        actor_id="x",
        attributes={"image": "i", "name": "n"},
        time_ns=NOW + 5,
    )
    newest = {
        "Type": "container",
        "Action": "start",
        "Actor": {"ID": "x", "Attributes": {"image": "i", "name": "n"}},
        "scope": "local",
        "time": 1_700_000_000,
        "timeNano": NOW + 5,
    }
    assert plain(render_event(event, V1_52)) == newest
    assert plain(render_event(event, V1_41)) == {"status": "start", "id": "x", "from": "i", **newest}


def test_exec() -> None:
    value = Exec(
        id="e",
        container_id="c",
        config=ExecConfig(cmd=("sh", "-c", "x"), tty=True, attach_stdin=True),
        exit_code=3,
    )
    assert plain(render_exec.inspect(value)) == {
        "ID": "e",
        "Running": False,
        "ExitCode": 3,
        "ProcessConfig": {"tty": True, "entrypoint": "sh", "arguments": ["-c", "x"], "privileged": False},
        "OpenStdin": True,
        "OpenStderr": False,
        "OpenStdout": False,
        "CanRemove": False,
        "ContainerID": "c",
        "DetachKeys": "",
        "Pid": 0,
    }


def test_rendering_a_hundred_containers_is_cheap() -> None:
    containers = [make() for _ in range(100)]
    best = min(_cost(containers) for _ in range(5))
    assert best < 0.05  # 1.5 ms on a quiet machine; this bound only catches another order of magnitude


def _cost(containers: list[Container]) -> float:
    start = time.process_time()
    msgspec.json.encode([render.summary(container, NOW, NEWEST) for container in containers])
    return time.process_time() - start
