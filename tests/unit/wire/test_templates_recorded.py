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

_WHOLE = "Docker fills in the fields that the daemon left out; we show the document that came"

DIFFERENT = {
    "{{json .}}x": _WHOLE,
    "{{ . | json }}": _WHOLE,
    "{{.State}}": _WHOLE,
    "{{.NetworkSettings.Networks.bridge}}": _WHOLE,
    '{{index .NetworkSettings.Ports "80/tcp"}}': "Docker falls back to maps without types",
    "{{join .Config.Env 1}}": "Docker falls back to lists without types, and complains of those first",
    "{{range $k, $v := .Config.Labels}}{{$k.Nope}}{{end}}": "Docker knows that a map's key is text",
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
