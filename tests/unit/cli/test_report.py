"""What a report leaves out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sampan.cli.report import without_secrets

SECRET = "hunter2"


@pytest.mark.parametrize(
    "document",
    [
        {
            "Config": {
                "Env": [f"PASSWORD={SECRET}"],
                "Cmd": ["mysql", f"-p{SECRET}"],
                "Labels": {"token": SECRET},
            }
        },
        {"Config": {"Entrypoint": [SECRET], "Healthcheck": {"Test": ["CMD", SECRET]}, "OnBuild": [SECRET]}},
        {
            "HostConfig": {
                "LogConfig": {"Type": "gelf", "Config": {"tag": SECRET}},
                "Annotations": {"a": SECRET},
            }
        },
        {"Path": SECRET, "Args": [SECRET]},
        [{"Names": ["/a"], "Command": SECRET, "Labels": {"a": SECRET}}],
        {"Volumes": [{"Name": "v", "Options": {"o": f"password={SECRET}"}, "Labels": {"a": SECRET}}]},
        {
            "HttpProxy": f"http://me:{SECRET}@proxy:3128",
            "RegistryConfig": {"Mirrors": [f"https://me:{SECRET}@m/"]},
        },
        [{"Containers": {"c": {"Labels": {"a": SECRET}}}, "IPAM": {"Options": {"o": SECRET}}}],
    ],
)
def test_no_secret_is_left(document: Any) -> None:
    assert SECRET not in json.dumps(without_secrets(document))


def test_the_rest_stays() -> None:
    document = {
        "Id": "abc",
        "State": {"ExitCode": 3, "Error": "x"},
        "Config": {"Env": ["PATH=/bin", "EMPTY"], "Image": "debian", "User": "me", "Labels": None},
        "HostConfig": {"Binds": ["/a:/b"], "LogConfig": {"Type": "json-file", "Config": {}}},
    }
    found = without_secrets(document)
    assert found["State"] == document["State"]
    assert found["Config"] == {"Env": ["PATH=***", "EMPTY"], "Image": "debian", "User": "me", "Labels": None}
    assert found["HostConfig"] == document["HostConfig"]
