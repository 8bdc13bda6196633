"""Templates against what the docker CLI printed for them, and the few places where we differ on purpose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sampan.cli.shapes import ALIASES, shaped
from sampan.wire.template import TemplateError, execute, parse

GOLDEN = Path(__file__).parents[2] / "golden"
CONTAINER = json.loads((GOLDEN / "container.json").read_text())
RECORDED: list[dict[str, Any]] = json.loads((GOLDEN / "docker-templates.json").read_text())

DIFFERENT = {
    "{{json .}}x": "Docker fills in the fields that the daemon left out; we show the document that came",
    "{{.State}}": "Docker prints the health that the document leaves out",
    '{{define "x"}}y{{end}}': "one template is one text here: nothing to define",
    '{{template "x"}}': "one template is one text here: nothing to define",
    "{{call .Name}}": "no value of a document is a function",
}


def rendered(template: str) -> tuple[str, str]:
    """What ``inspect --format`` prints: output and message."""
    try:
        nodes = parse(template)
    except TemplateError as error:
        return "", f"template parsing error: {error}\n"
    try:
        return execute(nodes, shaped(CONTAINER), template, ALIASES) + "\n", ""
    except TemplateError as error:
        return "\n", f"template parsing error: {error}\n"


@pytest.mark.parametrize("row", RECORDED, ids=lambda row: row["template"])
def test_prints_what_docker_prints(row: dict[str, Any]) -> None:
    if row["template"] in DIFFERENT:
        pytest.skip(DIFFERENT[row["template"]])
    assert rendered(row["template"]) == (row["output"], row["message"])
