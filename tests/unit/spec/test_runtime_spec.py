"""Docker's defaults as an OCI runtime document."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any

import pytest
from tests import reference

from sampan.spec import runtime

SCHEMAS = reference.REFERENCE / "oci/runtime"
KINDS: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}


def is_allowed(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value by itself has the type, is one of the words and lies in the range of the schema."""
    kind = schema.get("type")
    if kind is not None and (not isinstance(value, KINDS[kind]) or (kind == "integer" and value is True)):
        return False
    if isinstance(value, (int, float)):
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    return value in schema.get("enum", [value])


def faults(value: Any, schema: dict[str, Any], file: str, where: str = "$") -> list[str]:
    """What breaks the schema (the part of JSON Schema draft 4 that OCI's documents use)."""
    if "$ref" in schema:
        other, _, pointer = schema["$ref"].partition("#")
        target = json.loads((SCHEMAS / (other or file)).read_text())
        for step in pointer.strip("/").split("/"):
            target = target[step]
        return faults(value, target, other or file, where)
    if not is_allowed(value, schema):
        return [f"{where}: {value!r} does not fit {schema}"]
    found: list[str] = []
    for part in schema.get("allOf", []):
        found += faults(value, part, file, where)
    if "anyOf" in schema and all(faults(value, part, file, where) for part in schema["anyOf"]):
        found.append(f"{where}: {value!r} is none of the alternatives")
    if isinstance(value, dict):
        found += [f"{where}: lacks {name}" for name in schema.get("required", []) if name not in value]
        for name, part in schema.get("properties", {}).items():
            if name in value:
                found += faults(value[name], part, file, f"{where}.{name}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            found += faults(item, schema.get("items", {}), file, f"{where}[{index}]")
    return found


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="the OCI schemas are not on this machine")
def test_default_spec_is_a_valid_oci_document() -> None:
    schema = json.loads((SCHEMAS / "config-schema.json").read_text())
    spec = runtime.default_spec()
    spec["process"]["args"] = ["true"]
    assert faults(spec, schema, "config-schema.json") == []
    wrong = json.loads(json.dumps(spec))
    wrong["linux"]["namespaces"][0]["type"] = "nonsense"
    del wrong["root"]["path"]
    assert len(faults(wrong, schema, "config-schema.json")) == 2


def test_each_call_gives_a_document_of_its_own() -> None:
    spec = runtime.default_spec()
    before = json.dumps(spec)

    def spoil(value: object) -> None:
        if isinstance(value, dict):
            for item in value.values():
                spoil(item)
            value["spoiled"] = True
        elif isinstance(value, list):
            for item in value:
                spoil(item)
            value.append("spoiled")

    spoil(spec)
    assert json.dumps(runtime.default_spec()) == before


def test_capabilities_are_ordered_by_kernel_number() -> None:
    assert runtime.capability_number("CAP_CHOWN") == 0
    assert runtime.capability_number("CAP_SYS_ADMIN") == 21
    assert runtime.capability_number("CAP_AUDIT_READ") == 37
    assert runtime.capability_number("CAP_CHECKPOINT_RESTORE") == 40
    assert len(runtime.DEFAULT_CAPABILITIES) == 14
    assert set(runtime.DEFAULT_CAPABILITIES) < set(runtime.ALL_CAPABILITIES)
    with pytest.raises(KeyError):
        runtime.capability_number("CHOWN")


def test_everything_is_denied_before_devices_are_allowed() -> None:
    rules = runtime.default_spec()["linux"]["resources"]["devices"]
    assert rules[0] == {"allow": False, "access": "rwm"}
    assert all(rule["allow"] for rule in rules[1:])
    assert {"allow": True, "type": "c", "major": 136, "access": "rwm"} in rules


def test_thermal_counters_are_masked_where_there_are_any() -> None:
    present = pathlib.Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle")
    assert set(runtime.masked_paths()) == set(runtime.MASKED_PATHS) | {str(path) for path in present}


def test_importing_builds_no_types() -> None:
    program = (
        "import sys, sampan.spec.runtime as r; print('typing' in sys.modules and hasattr(r, 'TypedDict'))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
