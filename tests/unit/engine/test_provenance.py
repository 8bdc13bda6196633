"""Where an image comes from."""

from __future__ import annotations

import hashlib

from sampan.engine.builds import BuildOptions
from sampan.engine.provenance import statement
from sampan.spec import digest as digests
from sampan.spec import reference as references

IMAGE, BASE = digests.of(b"image"), digests.of(b"base")


def test_a_statement() -> None:
    options = BuildOptions(
        names=(references.parse("app:1").tagged(),),
        arguments={"TOKEN": "x"},
        remote="https://h/a.git#main",
        provenance="min",
    )
    found = statement(options, IMAGE, "FROM base\n", {"base:1": BASE}, (0, 1_500_000_000))
    assert found["subject"] == [{"name": "app:1", "digest": {"sha256": IMAGE[7:]}}]
    definition = found["predicate"]["buildDefinition"]
    assert definition["externalParameters"] == {
        "dockerfile": {
            "name": "Dockerfile",
            "digest": {"sha256": hashlib.sha256(b"FROM base\n").hexdigest()},
        },
        "arguments": ["TOKEN"],
        "context": {"uri": "https://h/a.git"},
    }
    assert definition["resolvedDependencies"] == [
        {"uri": "pkg:docker/base:1", "digest": {"sha256": BASE[7:]}}
    ]
    assert found["predicate"]["runDetails"]["metadata"] == {
        "startedOn": "1970-01-01T00:00:00Z",
        "finishedOn": "1970-01-01T00:00:01.5Z",
    }


def test_values_of_arguments_only_on_request() -> None:
    options = BuildOptions(arguments={"TOKEN": "x"}, provenance="max")
    found = statement(options, IMAGE, "", {}, (0, 0))
    assert found["predicate"]["buildDefinition"]["externalParameters"]["arguments"] == {"TOKEN": "x"}
    assert found["subject"][0]["name"] == IMAGE
