"""What ``inspect`` says of a container's isolation is what the kernel says."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sampan.spec.runtime import ALL_CAPABILITIES, DEFAULT_CAPABILITIES
from tests.attacks.conftest import Docker
from tests.e2e.serving import Daemon
from tests.e2e.talk import ask

pytestmark = [pytest.mark.root, pytest.mark.e2e]

PROFILE = {"defaultAction": "SCMP_ACT_ALLOW"}
PRIVATE = dict.fromkeys(("Cgroup", "IPC", "Mount", "Network", "PID", "UTS", "User"), "private")
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "hosts-ids": ({"UsernsMode": "host"}, {"Namespaces": {**PRIVATE, "User": "host"}}),
    "no-new-privileges": ({"SecurityOpt": ["no-new-privileges"]}, {"NoNewPrivileges": True}),
    "unconfined": ({"SecurityOpt": ["seccomp=unconfined"]}, {"Seccomp": "unconfined"}),
    "own-profile": ({"SecurityOpt": [f"seccomp={json.dumps(PROFILE)}"]}, {"Seccomp": "custom"}),
    "no-capabilities": ({"CapDrop": ["ALL"]}, {"Capabilities": []}),
    "host-network": (
        {"NetworkMode": "host", "PidMode": "host", "IpcMode": "host", "CgroupnsMode": "host"},
        {"Namespaces": {**PRIVATE, "Network": "host", "PID": "host", "IPC": "host", "Cgroup": "host"}},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_isolation_is_shown_as_it_is(engine: Docker, daemon: Daemon, case: str) -> None:
    host, other = CASES[case]
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": host}
    status, said = ask(daemon.socket, "POST", "/containers/create?name=box", json.dumps(body).encode())
    assert status == 201, said
    before = json.loads(ask(daemon.socket, "GET", "/containers/box/json")[1])
    assert "Isolation" not in before
    assert ask(daemon.socket, "POST", "/containers/box/start")[0] == 204
    shown = json.loads(ask(daemon.socket, "GET", "/containers/box/json")[1])
    usual = {
        "Seccomp": "default",
        "NoNewPrivileges": False,
        "Capabilities": [name for name in ALL_CAPABILITIES if name in DEFAULT_CAPABILITIES],
        "Namespaces": PRIVATE,
    }
    expected = {**usual, **other}
    if "CgroupnsMode" in host:  # the host's own kinds come with the host's user namespace
        expected["Namespaces"] = {**expected["Namespaces"], "User": shown["Isolation"]["Namespaces"]["User"]}
    assert {key: shown["Isolation"][key] for key in expected} == expected
    pid = shown["State"]["Pid"]
    told = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert (told["Seccomp"] == "2") == (expected["Seccomp"] != "unconfined")
    assert (told["NoNewPrivs"] == "1") == expected["NoNewPrivileges"]
    held = [name for bit, name in enumerate(ALL_CAPABILITIES) if int(told["CapBnd"], 16) >> bit & 1]
    assert held == expected["Capabilities"]
    users = shown["UserNamespace"]
    own = f"0 {users.get('FirstHostID')} {users.get('Size')}".split()
    assert (users["Mode"] == "private") == (Path(f"/proc/{pid}/uid_map").read_text().split() == own)
    for name, namespace in (("net", "Network"), ("pid", "PID"), ("ipc", "IPC"), ("user", "User")):
        same = os.readlink(f"/proc/{pid}/ns/{name}") == os.readlink(f"/proc/self/ns/{name}")
        assert same == (shown["Isolation"]["Namespaces"][namespace] == "host"), namespace
    look_at_paths(shown)


def look_at_paths(shown: dict[str, Any]) -> None:
    """What is said to be hidden has something mounted on it, and what is read-only is."""
    mounted = {
        fields[4]: fields[5].split(",")
        for line in Path(f"/proc/{shown['State']['Pid']}/mountinfo").read_text().splitlines()
        if (fields := line.split())
    }
    inside = f"/proc/{shown['State']['Pid']}/root"
    for path in shown["HostConfig"]["MaskedPaths"]:
        assert path in mounted or not os.path.lexists(inside + path), path
    for path in shown["HostConfig"]["ReadonlyPaths"]:
        assert "ro" in mounted.get(path, ["ro"]), path
        assert path in mounted or not os.path.lexists(inside + path), path
