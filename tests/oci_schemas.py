"""The JSON schemas of the OCI image specification, which what we write must satisfy.

Schemas name each other by relative addresses, which are their files' names here.
"""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft4Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from tests.reference import REFERENCE

SCHEMAS = REFERENCE / "oci" / "image"
INDEX, MANIFEST, CONFIG, LAYOUT = (
    f"{name}-schema.json" for name in ("image-index", "image-manifest", "config", "image-layout")
)


def _schema(name: str) -> Any:
    return json.loads((SCHEMAS / name).read_text())


def _retrieve(address: str) -> Resource[Any]:
    return DRAFT4.create_resource(_schema(address.rpartition("/")[2]))


def problems(schema: str, document: bytes) -> list[str]:
    """What a document is not, that its schema wants."""
    registry: Registry[Any] = Registry(retrieve=_retrieve)  # type: ignore[call-arg]
    validator = Draft4Validator(
        _schema(schema), registry=registry, format_checker=Draft4Validator.FORMAT_CHECKER
    )
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(json.loads(document))]
