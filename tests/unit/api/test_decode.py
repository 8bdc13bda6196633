"""Bodies are read as leniently as Go reads them, and refused in its words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sampan.api.decode import decode_json
from sampan.api.routes.create import CreateRequest
from sampan.engine.model import EndpointSettings, ExecConfig, HostConfig, Mount, PortBinding
from sampan.errors import InvalidArgument

UNMARSHAL = "invalid JSON: json: cannot unmarshal "


def decode(document: Any) -> CreateRequest:
    return decode_json(json.dumps(document).encode(), CreateRequest)


def test_nulls_are_absent_at_every_depth() -> None:
    body = decode(
        {
            "Image": "busybox",
            "Cmd": None,
            "User": None,
            "Tty": None,
            "HostConfig": {"Binds": None, "Memory": None, "LogConfig": None, "RestartPolicy": {"Name": None}},
            "NetworkingConfig": None,
        }
    )
    assert body.image == "busybox"
    assert body.user == ""
    assert body.host_config == HostConfig()


def test_a_null_in_a_mapping_keeps_its_key() -> None:
    body = decode(
        {
            "Image": "x",
            "ExposedPorts": {"80/tcp": None},
            "Labels": {"a": None},
            "HostConfig": {"PortBindings": {"80/tcp": None, "81/tcp": [{"HostPort": "1"}, None]}},
            "NetworkingConfig": {"EndpointsConfig": {"net": None, "other": {"Aliases": ["a"]}}},
        }
    )
    assert body.exposed_ports == {"80/tcp": {}}
    assert body.labels == {"a": ""}
    assert body.host_config is not None
    assert body.host_config.port_bindings == {
        "80/tcp": None,
        "81/tcp": (PortBinding(host_port="1"), PortBinding()),
    }
    assert body.networking_config is not None
    assert body.networking_config.endpoints_config == {"net": None, "other": EndpointSettings(aliases=("a",))}


def test_unknown_fields_are_ignored_and_case_does_not_matter() -> None:
    body = decode({"image": "busybox", "Cmd": "true", "Nonsense": 1, "hostconfig": {"SHMSIZE": 5}})
    assert (body.image, body.cmd) == ("busybox", ("true",))
    assert body.host_config is not None
    assert body.host_config.shm_size == 5
    exact = decode({"Image": "right", "image": "wrong"})
    assert exact.image == "right"


def test_structs_within_lists() -> None:
    body = decode({"HostConfig": {"Mounts": [{"Type": "bind", "target": "/x", "BindOptions": None}]}})
    assert body.host_config is not None
    assert body.host_config.mounts == (Mount(type="bind", target="/x"),)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "invalid JSON: got EOF while reading request body"),
        (b"  \n", "invalid JSON: got EOF while reading request body"),
        (b"x", "invalid JSON: invalid character 'x' looking for beginning of value"),
        (b'{"Image":"busybox"', "invalid JSON: unexpected EOF"),
        (b"{} {}", "invalid JSON: unexpected content after JSON"),
        (
            b"[1]",
            UNMARSHAL + "array into Go value of type container.CreateRequest",
        ),
        (
            b'{"Image":3}',
            UNMARSHAL + "number into Go struct field CreateRequest.Image of type string",
        ),
        (
            b'{"Env":"x"}',
            UNMARSHAL + "string into Go struct field CreateRequest.Env of type []string",
        ),
        (
            b'{"Env":[1]}',
            UNMARSHAL + "number into Go struct field CreateRequest.Env of type string",
        ),
        (
            b'{"HostConfig":{"Memory":"x"}}',
            UNMARSHAL + "string into Go struct field HostConfig.HostConfig.Memory of type int64",
        ),
        (
            b'{"HostConfig":{"RestartPolicy":[]}}',
            UNMARSHAL + "array into Go struct field HostConfig.HostConfig.RestartPolicy of type "
            "container.RestartPolicy",
        ),
        (
            b'{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":80}]}}}',
            UNMARSHAL + "number into Go struct field "
            "PortBinding.HostConfig.PortBindings.HostPort of type string",
        ),
    ],
)
def test_refusals_in_gos_words(body: bytes, message: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        decode_json(body, CreateRequest)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    "body", [b"\xff\xfe", b'{"Image":"\xff"}', b"[" * 100_000, b'{"Tty":1e999}', b'{"Cmd":{}}']
)
def test_hostile_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidArgument):
        decode_json(body, CreateRequest)


def test_an_empty_body_may_be_allowed() -> None:
    assert decode_json(b"", ExecConfig, optional=True) == ExecConfig()
    assert decode_json(b"null", ExecConfig) == ExecConfig()


def test_a_number_too_large_under_a_name_of_the_users_own() -> None:
    body = b'{"NetworkingConfig": {"EndpointsConfig": {"x.y": {"GlobalIPv6PrefixLen": 9223372036854775808}}}}'
    with pytest.raises(InvalidArgument, match=r"EndpointsConfig\.GlobalIPv6PrefixLen of type int64"):
        decode_json(body, CreateRequest)
