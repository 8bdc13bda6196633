"""Every route, over a fake engine: what reaches the use cases, and what goes back to the client."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.fakes.api import NAME, Description, FakeContainers, FakeEngine, Serve

from sampan import errors
from sampan.api.routes import ROUTES
from sampan.api.routing import PageNotFound, Router
from sampan.engine.model import (
    ContainerConfig,
    EndpointSettings,
    Event,
    EventType,
    ExecConfig,
    ExitStatus,
    Filters,
    HostConfig,
    ListQuery,
    LogQuery,
    Mount,
    NetworkingConfig,
    VolumeOptions,
)
from sampan.sandbox.messages import AttachOptions
from sampan.wire import stdcopy

JSON_TYPE = {"content_type": "application/json"}
UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}


def test_every_operation_of_the_description_is_answered(description: Description) -> None:
    router = Router(ROUTES)
    missing = []
    for method, path in description.operations():
        try:
            router.find(method, path.replace("{", "").replace("}", ""))
        except PageNotFound:
            missing.append(f"{method} {path}")
    assert missing == []


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("POST /containers/{}/start", ("start",)),
        ("POST /containers/{}/stop", ("stop", None, None)),
        ("POST /v1.42/containers/{}/stop?t=-1&signal=INT", ("stop", "INT", -1)),
        ("POST /v1.41/containers/{}/stop?t=5&signal=INT", ("stop", None, 5)),
        ("POST /containers/{}/restart?t=0", ("restart", None, 0)),
        ("POST /containers/{}/kill?signal=9", ("kill", "9")),
        ("POST /containers/{}/pause", ("pause",)),
        ("POST /containers/{}/unpause", ("unpause",)),
        ("POST /containers/{}/rename?name=other", ("rename", "other")),
        ("DELETE /containers/{}?force=1&v=true", ("remove", True, True)),
        ("DELETE /containers/{}?force=0", ("remove", False, False)),
    ],
)
def test_moves_are_passed_on_and_answered_204(serve: Serve, line: str, call: tuple[Any, ...]) -> None:
    engine = FakeEngine()
    served = serve(engine)
    with served.client() as client:
        client.request(line.format(NAME))
        head, _ = client.answer()
        assert head.status == 204
        assert "content-length" not in head.fields
        client.request(line.format("nope"))
        status, document = client.document()
        assert status == 404
        assert document["message"].endswith("No such container: nope")
    assert engine.containers.calls == [call]


def test_what_was_so_already_is_304(serve: Serve) -> None:
    served = serve(FakeEngine(FakeContainers(changes=False)))
    with served.client() as client:
        for verb in ("start", "stop"):
            client.request(f"POST /containers/{NAME}/{verb}")
            assert client.answer()[0].status == 304


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        ("POST /containers/x/stop?t=z", 400, 'strconv.Atoi: parsing "z": invalid syntax'),
        ("POST /containers/x/resize?h=1", 400, 'strconv.Atoi: parsing "": invalid syntax'),
        ("POST /containers/x/rename", 400, "Neither old nor new names may be empty"),
        ("GET /containers/x/logs", 400, "Bad parameters: you must choose at least one stream"),
        ("GET /containers/x/logs?stdout=1", 404, "No such container: x"),
        ("POST /containers/x/wait?condition=never", 400, 'invalid condition: "never"'),
        ("POST /containers/x/wait", 404, "No such container: x"),
        ("POST /containers/x/attach?stream=1", 404, "No such container: x"),
        ("POST /containers/x/kill", 404, "cannot kill container: x: No such container: x"),
        ("GET /containers/json?limit=z", 400, 'strconv.Atoi: parsing "z": invalid syntax'),
        ("GET /events?since=2&until=1", 400, "`since` time (2) cannot be after `until` time (1)"),
        ("GET /system/df?type=nonsense", 400, "unknown object type: nonsense"),
        ("GET /plugins/x/json", 404, 'plugin "x" not found'),
        ("POST /containers/create", 400, "invalid JSON: got EOF while reading request body"),
        ("POST /exec/e/start", 400, "invalid JSON: got EOF while reading request body"),
    ],
)
def test_refusals(serve: Serve, line: str, status: int, message: str) -> None:
    assert serve(FakeEngine()).get(line) == (status, {"message": message})


def test_bodies_must_say_that_they_are_json(serve: Serve) -> None:
    served = serve(FakeEngine())
    assert served.get("POST /containers/create", b"x", content_type="text/plain") == (
        400,
        {"message": "unsupported Content-Type header (text/plain): must be 'application/json'"},
    )
    assert served.get("POST /containers/create", b"{}")[0] == 400
    assert served.get("POST /containers/create", b"{}", content_type="application/json; charset=utf-8") == (
        400,
        {"message": "config cannot be empty in order to create a container"},
    )


def test_a_json_body_has_a_largest_size(serve: Serve) -> None:
    with serve(FakeEngine()).client() as client:
        client.request("POST /containers/create", b" " * 5_000_000, **JSON_TYPE)
        assert client.document()[0] == 400


def create(serve: Serve, document: Any, prefix: str = "", query: str = "") -> tuple[Any, ...]:
    """What the engine is asked for such a body."""
    engine = FakeEngine()
    status, answer = serve(engine).post(f"{prefix}/containers/create{query}", document)
    assert (status, answer["Id"]) == (201, "ab" * 32)
    assert answer["Warnings"][0] == "mind the gap"
    call = engine.containers.calls[0]
    assert call[0] == "create"
    return (*call[1:], answer["Warnings"][1:])


def test_create_splits_the_body(serve: Serve) -> None:
    name, config, host, networking, _ = create(
        serve,
        {
            "Image": "busybox",
            "Cmd": ["true"],
            "HostConfig": {"Memory": 5, "PidsLimit": -1, "NetworkMode": "default"},
            "NetworkingConfig": {"EndpointsConfig": {"default": {"Aliases": ["a"]}}},
        },
        query="?name=one",
    )
    assert name == "one"
    assert type(config) is ContainerConfig
    assert config == ContainerConfig(image="busybox", cmd=("true",))
    assert host == HostConfig(memory=5, network_mode="bridge")
    assert networking == NetworkingConfig(endpoints_config={"bridge": EndpointSettings(aliases=("a",))})


def test_create_reads_the_host_config_as_the_clients_version_means_it(serve: Serve) -> None:
    document = {
        "Image": "busybox",
        "HostConfig": {
            "AutoRemove": True,
            "ConsoleSize": [3, 4],
            "KernelMemory": 7,
            "Annotations": {"a": "b"},
            "Mounts": [{"Type": "bind", "Target": "/x", "VolumeOptions": {"NoCopy": True}}],
        },
    }
    _, _, old, _, _ = create(serve, document, "/v1.24")
    assert (old.auto_remove, old.console_size, old.annotations) == (False, (0, 0), None)
    assert (old.ipc_mode, old.kernel_memory) == ("shareable", 7)
    assert old.mounts == (Mount(type="bind", target="/x"),)
    served = serve(FakeEngine())
    assert served.post("/v1.44/containers/create", document) == (
        400,
        {"message": 'VolumeOptions must not be specified on mount type "bind"'},
    )
    document["HostConfig"]["Mounts"] = [{"Type": "volume", "VolumeOptions": {"NoCopy": True}}]  # type: ignore[index]
    _, _, new, _, _ = create(serve, document, "/v1.44")
    assert (new.auto_remove, new.console_size, new.annotations) == (True, (3, 4), {"a": "b"})
    assert (new.ipc_mode, new.kernel_memory) == ("", 0)
    assert new.mounts == (Mount(type="volume", volume_options=VolumeOptions(no_copy=True)),)


def test_create_moves_the_mac_address_to_the_endpoint(serve: Serve) -> None:
    document = {"Image": "busybox", "MacAddress": "02:00:00:00:00:01"}
    for prefix, warnings in (("/v1.43", 0), ("/v1.44", 1)):
        _, config, _, networking, more = create(serve, document, prefix)
        assert config.mac_address == ""
        assert networking.endpoints_config == {"bridge": EndpointSettings(mac_address="02:00:00:00:00:01")}
        assert len(more) == warnings
    served = serve(FakeEngine())
    document["NetworkingConfig"] = {"EndpointsConfig": {"bridge": {"MacAddress": "02:00:00:00:00:02"}}}  # type: ignore[assignment]
    status, answer = served.post("/v1.44/containers/create", document)
    assert status == 400
    assert answer["message"].startswith("the container-wide MAC address must match")


def test_create_hands_the_platform_on(serve: Serve) -> None:
    engine = FakeEngine()
    served = serve(engine)
    assert served.post("/containers/create?platform=linux/s390x", {"Image": "busybox"})[0] == 201
    assert engine.containers.platform == ("linux", "s390x", "")
    assert served.post("/containers/create", {"Image": "busybox"})[0] == 201
    assert engine.containers.platform is None
    status, answer = served.post("/containers/create?platform=nosuch", {"Image": "busybox"})
    assert (status, answer["message"].startswith('"nosuch": unknown operating system')) == (400, True)


def test_listing(serve: Serve, description: Description) -> None:
    engine = FakeEngine()
    status, found = serve(engine).get('GET /containers/json?all=1&limit=2&filters={"label":["a"]}')
    assert status == 200
    assert [one["Names"] for one in found] == [["/" + NAME]]
    assert description.problems("ContainerSummary", found[0]) == []
    query = ListQuery(all=True, limit=2, filters=Filters({"label": ("a",)}))
    assert engine.containers.calls == [("list", query)]


def test_inspect_prune_and_resize(serve: Serve) -> None:
    engine = FakeEngine()
    served = serve(engine)
    assert served.get(f"GET /containers/{NAME}/json")[1]["Name"] == "/" + NAME
    assert served.get('POST /containers/prune?filters={"until":{"1h":true}}') == (
        200,
        {"ContainersDeleted": ["one"], "SpaceReclaimed": 5},
    )
    with served.client() as client:
        client.request(f"POST /containers/{NAME}/resize?h=24&w=80")
        assert client.answer()[0].status == 200
    assert engine.containers.calls == [("prune", Filters({"until": ("1h",)})), ("resize", 24, 80)]


def test_wait_answers_its_head_at_once(serve: Serve) -> None:
    engine = FakeEngine()
    served = serve(engine)
    for error, expected in (("", {}), ("gone wrong", {"Error": {"Message": "gone wrong"}})):
        with served.client() as client:
            client.request(f"POST /containers/{NAME}/wait?condition=next-exit")
            head = client.head()
            assert (head.status, head.fields["content-type"]) == (200, "application/json")
            assert engine.containers.ended is not None
            served.call(engine.containers.ended.set_result, ExitStatus(code=3, error=error))
            assert json.loads(client.body(head)) == {"StatusCode": 3, **expected}


def test_a_wait_whose_client_leaves_is_withdrawn(serve: Serve) -> None:
    engine = FakeEngine()
    served = serve(engine)
    withdrawn = []
    with served.client() as client:
        client.request(f"POST /containers/{NAME}/wait")
        assert client.head().status == 200
        assert engine.containers.ended is not None
        engine.containers.ended.add_done_callback(lambda ended: withdrawn.append(ended.cancelled()))
    served.close()
    assert withdrawn == [True]


def logs(serve: Serve, query: str, prefix: str = "", **engine: Any) -> tuple[str, bytes]:
    records = (
        (1, b"1970-01-01T00:00:01.000000001Z", b"out\n"),
        (2, b"1970-01-01T00:00:02.000000000Z", b"err\n"),
    )
    containers = FakeContainers(records=records, **engine)
    with serve(FakeEngine(containers)).client() as client:
        client.request(f"GET {prefix}/containers/{NAME}/logs?{query}")
        head, body = client.answer()
        assert head.status == 200
        return head.fields["content-type"], body


def test_logs_are_framed_unless_they_are_a_terminals(serve: Serve) -> None:
    framed = stdcopy.frame(1, b"out\n") + stdcopy.frame(2, b"err\n")
    raw, multiplexed = "application/vnd.docker.raw-stream", "application/vnd.docker.multiplexed-stream"
    assert logs(serve, "stdout=1", "/v1.41") == (raw, framed)
    assert logs(serve, "stdout=1") == (multiplexed, framed)
    assert logs(serve, "stdout=1", tty=True) == (raw, b"out\nerr\n")
    assert logs(serve, "stdout=1&timestamps=1", tty=True)[1] == (
        b"1970-01-01T00:00:01.000000001Z out\n1970-01-01T00:00:02.000000000Z err\n"
    )
    failed = logs(serve, "stdout=1", log_failure=errors.Internal("bad disk"))[1]
    assert failed == framed + stdcopy.frame(2, b"Error grabbing logs: bad disk\n")


def test_what_logs_are_asked_for(serve: Serve) -> None:
    engine = FakeEngine()
    served = serve(engine)
    for query in ("stdout=1&follow=1&since=1.5&until=9&tail=all", "stderr=1&tail=10"):
        with served.client() as client:
            client.request(f"GET /containers/{NAME}/logs?{query}")
            assert client.answer()[0].status == 200
    assert engine.containers.calls == [
        ("logs", LogQuery(follow=True, stdout=True, since=1_500_000_000, until=9_000_000_000)),
        ("logs", LogQuery(stderr=True, tail=10)),
    ]


def test_attach_hands_the_connection_over(serve: Serve) -> None:
    for tty in (False, True):
        engine = FakeEngine(FakeContainers(tty=tty))
        with serve(engine).client() as client:
            client.request(
                f"POST /containers/{NAME}/attach?stream=1&stdin=1&stdout=1&logs=1&detachKeys=ctrl-a",
                b"",
                **UPGRADE,
            )
            head = client.head()
            assert head.status == 101
            kind = "raw" if tty else "multiplexed"
            assert head.fields["content-type"] == f"application/vnd.docker.{kind}-stream"
            assert client.rest() == b"attached"
        options = AttachOptions(
            stdin=True, stdout=True, stream=True, logs=True, detach_keys="ctrl-a", multiplex=not tty
        )
        assert engine.containers.calls == [("attach", options)]


def test_exec_create(serve: Serve) -> None:
    engine = FakeEngine()
    served = serve(engine)
    body = {"Cmd": ["sh"], "Env": None, "ConsoleSize": [3, 4], "AttachStdout": True}
    for prefix in ("/v1.41", "/v1.42"):
        assert served.post(f"{prefix}/containers/c/exec", body) == (201, {"Id": "e" * 64})
    assert served.post("/containers/c/exec", {}) == (400, {"message": "No exec command specified"})
    plain = ExecConfig(cmd=("sh",), attach_stdout=True)
    sized = ExecConfig(cmd=("sh",), attach_stdout=True, console_size=(3, 4))
    assert engine.execs.calls == [("create", "c", plain), ("create", "c", sized)]


def test_exec_start(serve: Serve) -> None:
    engine = FakeEngine()
    served = serve(engine)
    with served.client() as client:
        client.request("POST /exec/e/start", b'{"Tty":true,"ConsoleSize":[3,4]}', **JSON_TYPE, **UPGRADE)
        assert client.head().status == 101
        assert client.rest() == b"running"
    with served.client() as client:
        client.request("POST /exec/e/start", b'{"Detach":true,"ConsoleSize":[3,4]}', **JSON_TYPE)
        head, body = client.answer()
        assert (head.status, body) == (200, b"")
        client.request("POST /exec/nope/start", b"{}", **JSON_TYPE, **UPGRADE)
        assert client.document() == (404, {"message": "No such exec instance: nope"})
        client.request("POST /exec/e/resize?h=1&w=2")
        assert client.answer()[0].status == 200
        client.request("GET /exec/e/json")
        assert client.document()[1]["ProcessConfig"]["entrypoint"] == "sh"
    assert engine.execs.calls == [
        ("start", False, True, (3, 4)),
        ("start", True, False, None),
        ("resize", "e", 1, 2),
    ]


def test_events_are_lines_as_they_happen(serve: Serve) -> None:
    engine = FakeEngine()
    served = serve(engine)
    with served.client() as client:
        client.request('GET /events?since=0&filters={"type":["container"]}')
        head = client.head()
        assert head.fields["content-type"] == "application/json"

        def publish() -> None:
            for kind in (EventType.IMAGE, EventType.CONTAINER):
                engine.events.publish(Event(type=kind, action="start", actor_id="x"))

        served.call(publish)
        while b"}\n" not in client.buffer:
            assert client.fill()
        size, _, line = bytes(client.buffer).partition(b"\r\n")
        assert int(size, 16) == len(line) - 2
        assert json.loads(line)["Type"] == "container"
    served.close()
    assert engine.events.subscribers == 0


def test_past_events_end(serve: Serve) -> None:
    engine = FakeEngine()
    engine.events.publish(Event(type=EventType.IMAGE, action="tag", actor_id="x", time_ns=5_000_000_000))
    with serve(engine).client() as client:
        client.request("GET /v1.41/events?since=0&until=6")
        assert json.loads(client.answer()[1])["status"] == "tag"


def test_the_engine_about_itself(serve: Serve, description: Description) -> None:
    served = serve(FakeEngine())
    status, info = served.get("GET /info")
    assert status == 200
    assert (info["Containers"], info["NCPU"], info["Swarm"]["LocalNodeState"]) == (3, 2, "inactive")
    assert description.problems("SystemInfo", info) == []
    old = served.get("GET /v1.40/info")[1]
    assert old["BridgeNfIptables"] is False
    version = served.get("GET /version")[1]
    assert (version["ApiVersion"], version["MinAPIVersion"], version["Arch"]) == ("1.56", "1.24", "amd64")
    assert description.problems("SystemVersion", version) == []


def test_disk_usage_has_two_shapes(serve: Serve) -> None:
    served = serve(FakeEngine())
    old = served.get("GET /v1.41/system/df")[1]
    assert old == {
        "LayersSize": 0,
        "Images": [],
        "Containers": [],
        "Volumes": [],
        "BuildCache": [],
        "BuilderSize": 0,
    }
    nothing = {"ActiveCount": 0, "TotalCount": 0, "TotalSize": 0, "Reclaimable": 0}
    assert served.get("GET /system/df?type=volume&type=image")[1] == {
        "ImageUsage": nothing,
        "VolumeUsage": nothing,
    }


def test_what_prune_and_lists_of_absent_things_answer(serve: Serve) -> None:
    served = serve(FakeEngine())
    assert served.get("GET /plugins") == (200, [])
    assert served.get("POST /build/prune") == (200, {"CachesDeleted": None, "SpaceReclaimed": 0})
