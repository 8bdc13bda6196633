"""Every field of the OCI schemas is known, and what is not carried out is refused by its name."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from tests.reference import REFERENCE

from sampan.oci import shapes
from sampan.oci.failure import Failed
from sampan.spec.runtime import default_spec

SCHEMAS = REFERENCE / "oci/runtime"


def resolved(node: dict[str, Any], home: str) -> tuple[dict[str, Any], str]:
    """A schema with its references followed, and the file that it is in."""
    while "$ref" in node or "anyOf" in node or "allOf" in node:
        if "$ref" not in node:
            node = (node.get("anyOf") or node["allOf"])[0]
            continue
        name, _, path = node["$ref"].partition("#")
        home = name or home
        found = json.loads((SCHEMAS / home).read_text())
        for part in filter(None, path.split("/")):
            found = found[part]
        node = found
    return node, home


def compare(node: dict[str, Any], home: str, shape: Any, where: str) -> list[str]:
    """Fields of the schema that our table does not have, and fields of another type."""
    if shape == shapes.REFUSED:
        return []
    node, home = resolved(node, home)
    if "properties" in node:
        if not isinstance(shape, dict):
            return [f"{where}: is an object"]
        missing = [f"{where}.{name}" for name in node["properties"] if name not in shape]
        for name, inner in node["properties"].items():
            if name in shape:
                missing += compare(inner, home, shape[name], f"{where}.{name}")
        return missing
    if node.get("type") == "array":
        return compare(node["items"], home, shape[0], where) if isinstance(shape, list) else [where]
    kinds = {"string": (shapes.TEXT,), "boolean": (shapes.TRUTH,), "integer": (shapes.NUMBER, shapes.COUNT)}
    expected = kinds.get(str(node.get("type")))
    return [where] if expected and shape not in expected else []


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="the OCI schemas are not here")
@pytest.mark.parametrize(
    ("schema", "part", "shape"),
    [("config-schema.json", "", shapes.CONFIG), ("config-linux.json", "linux", shapes.LINUX)],
)
def test_the_table_has_every_field_of_the_schema(schema: str, part: str, shape: Any) -> None:
    document = json.loads((SCHEMAS / schema).read_text())
    if part:
        document = document[part]
    document["properties"].pop("linux", None)
    assert compare(document, schema, shape, part) == []


def changed(path: str, value: Any) -> Any:
    document: Any = copy.deepcopy(default_spec())
    place = document
    *parents, last = path.split(".")
    for name in parents:
        place = place.setdefault(name, {})
    place[last] = value
    return document


def test_our_own_documents_pass() -> None:
    shapes.check(default_spec(), shapes.CONFIG)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("linux.intelRdt", {"closID": "a"}, "linux.intelRdt is not supported"),
        ("process.selinuxLabel", "a", "process.selinuxLabel is not supported"),
        ("windows", {"x": 1}, "windows is not supported"),
        ("linux.resources.memory.limit", "1", "linux.resources.memory.limit: must be an integer"),
        ("linux.resources.memory.limit", True, "linux.resources.memory.limit: must be an integer"),
        ("process.user.uid", -1, "process.user.uid: must be a non-negative integer"),
        ("process.args", "sh", "process.args: must be an array"),
        ("process.args", [1], "process.args: must be a string"),
        ("process.args", ["a\0b"], "process.args: must be a string"),
        ("annotations", {"a": 1}, "annotations[a]: must be a string"),
        ("root", {"readonly": True}, "root.path: must be given"),
        ("mounts", [{"type": "tmpfs"}], "mounts.destination: must be given"),
        ("ociVersion", None, "ociVersion: must be given"),
        ("root", [], "root: must be an object"),
    ],
)
def test_what_is_wrong_or_not_offered_is_named(path: str, value: Any, said: str) -> None:
    with pytest.raises(Failed) as caught:
        shapes.check(changed(path, value), shapes.CONFIG)
    assert str(caught.value) == f"config.json: {said}"


@pytest.mark.parametrize(
    ("path", "value"),
    [("unheard.of", 1), ("linux.intelRdt", None), ("linux.intelRdt", {}), ("process.selinuxLabel", "")],
)
def test_what_nobody_knows_and_what_says_nothing_pass(path: str, value: Any) -> None:
    shapes.check(changed(path, value), shapes.CONFIG)
