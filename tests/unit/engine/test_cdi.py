from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sampan.engine import cdi
from sampan.engine.model import DeviceRequest
from sampan.errors import InvalidArgument

VENDOR = {
    "cdiVersion": "0.6.0",
    "kind": "vendor.com/thing",
    "containerEdits": {"env": ["SHARED=1"]},
    "devices": [
        {
            "name": "one",
            "containerEdits": {
                "env": ["ONE=1"],
                "deviceNodes": [{"path": "/dev/thing", "hostPath": "/dev/null", "permissions": "rw"}],
                "mounts": [{"hostPath": "/etc", "containerPath": "/vendor", "options": ["ro", "nosuid"]}],
                "additionalGids": [44, 0],
            },
        },
        {"name": "two", "containerEdits": {"env": ["TWO=1"]}},
    ],
}


def named(*names: str) -> DeviceRequest:
    return DeviceRequest(driver="cdi", device_ids=names)


def place(directory: Path, name: str, document: Any) -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(document if isinstance(document, str) else json.dumps(document))


def edits(*requests: DeviceRequest, at: Path, hooks: bool = False) -> cdi.Edits:
    return cdi.edits_for(requests, hooks=hooks, directories=(f"{at}/etc", f"{at}/run"))


def test_edits_of_the_file_come_once_and_first(tmp_path: Path) -> None:
    place(tmp_path / "etc", "vendor.json", VENDOR)
    found = edits(named("vendor.com/thing=two", "vendor.com/thing=one"), at=tmp_path)
    assert found.env == ["SHARED=1", "TWO=1", "ONE=1"]
    assert [(node["path"], node["type"], node["major"], node["minor"]) for node in found.nodes] == [
        ("/dev/thing", "c", 1, 3)
    ]
    assert found.rules == [{"allow": True, "type": "c", "access": "rw", "major": 1, "minor": 3}]
    assert found.mounts[0]["options"] == ["rbind", "ro", "nosuid"]
    assert found.gids == [44]


def test_yaml_says_the_same(tmp_path: Path) -> None:
    text = (
        "cdiVersion: 0.5.0\nkind: vendor.com/thing\ndevices:\n- name: y\n  containerEdits:\n    env: [Y=1]\n"
    )
    place(tmp_path / "etc", "vendor.yaml", text)
    assert edits(named("vendor.com/thing=y"), at=tmp_path).env == ["Y=1"]


def test_a_later_directory_wins(tmp_path: Path) -> None:
    place(tmp_path / "etc", "a.json", VENDOR)
    other = {**VENDOR, "devices": [{"name": "two", "containerEdits": {"env": ["RUN=1"]}}]}
    place(tmp_path / "run", "a.json", other)
    assert edits(named("vendor.com/thing=two"), at=tmp_path).env == ["SHARED=1", "RUN=1"]


@pytest.mark.parametrize(
    "document",
    ["{", "[]", {"kind": "x"}, {**VENDOR, "kind": "vendor"}, {**VENDOR, "devices": [{"name": "-"}]}, {}],
)
def test_what_is_no_specification_is_passed_over(tmp_path: Path, document: Any) -> None:
    place(tmp_path / "etc", "a.json", document)
    place(tmp_path / "etc", "b.yaml", "a: [")
    place(tmp_path / "etc", "c.txt", VENDOR)
    with pytest.raises(InvalidArgument) as refused:
        edits(named("vendor.com/thing=one"), at=tmp_path)
    words = "CDI device injection failed: unresolvable CDI devices vendor.com/thing=one"
    assert str(refused.value) == words


def test_two_files_that_claim_one_device_conflict(tmp_path: Path) -> None:
    place(tmp_path / "etc", "a.json", VENDOR)
    place(tmp_path / "etc", "b.json", VENDOR)
    with pytest.raises(InvalidArgument, match="unresolvable"):
        edits(named("vendor.com/thing=one"), at=tmp_path)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"hooks": [{"hookName": "createContainer", "path": "/usr/bin/x"}]}, "asks for the hook createCont"),
        ({"intelRdt": {"closID": "x"}}, "asks for intelRdt"),
        ({"netDevices": [{"hostInterfaceName": "a", "name": "b"}]}, "asks for netDevices"),
        ({"deviceNodes": [{"path": "/dev/nosuch"}]}, "failed to stat CDI host device"),
        ({"deviceNodes": [{"path": "/etc"}]}, "is not a device node"),
        ({"env": "x"}, "Expected `array`"),
    ],
)
def test_what_cannot_be_given_is_refused(tmp_path: Path, own: dict[str, Any], words: str) -> None:
    place(tmp_path / "etc", "a.json", {**VENDOR, "devices": [{"name": "one", "containerEdits": own}]})
    with pytest.raises(InvalidArgument, match=words):
        edits(named("vendor.com/thing=one"), at=tmp_path)


def test_a_runtime_that_runs_hooks_is_given_them(tmp_path: Path) -> None:
    hook = {"hookName": "createContainer", "path": "/usr/bin/x", "args": ["x"], "timeout": 3}
    own = {"hooks": [hook]}
    place(tmp_path / "etc", "a.json", {**VENDOR, "devices": [{"name": "one", "containerEdits": own}]})
    found = edits(named("vendor.com/thing=one"), at=tmp_path, hooks=True)
    assert found.hooks == {
        "createContainer": [{"path": "/usr/bin/x", "args": ["x"], "env": [], "timeout": 3}]
    }


def test_gpus_without_a_driver_are_refused_in_dockers_words(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument) as refused:
        edits(DeviceRequest(count=-1, capabilities=(("gpu",),)), at=tmp_path)
    assert str(refused.value) == 'could not select device driver "" with capabilities: [[gpu]]'


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (DeviceRequest(count=-1, capabilities=(("gpu",),)), ["ALL=1"]),
        (DeviceRequest(count=2, capabilities=(("gpu", "utility"),)), ["G0=1", "G1=1"]),
        (DeviceRequest(driver="nvidia", device_ids=("1",), capabilities=(("gpu",),)), ["G1=1"]),
    ],
)
def test_gpus_that_a_vendor_describes_are_given(
    tmp_path: Path, request_: DeviceRequest, expected: list[str]
) -> None:
    devices = [
        {"name": name, "containerEdits": {"env": [variable]}}
        for name, variable in (("all", "ALL=1"), ("0", "G0=1"), ("1", "G1=1"))
    ]
    place(tmp_path / "etc", "n.json", {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": devices})
    assert edits(request_, at=tmp_path).env == expected
