"""The engine refuses what docs/commands.md says that it refuses, in one line, and nothing is left of it."""

from __future__ import annotations

import pytest

from sampan.cli.main import load
from tests.commands import evidence, table
from tests.e2e.conftest import Client

pytestmark = [pytest.mark.root, pytest.mark.e2e]

VALUES = {"disable-content-trust": "false"}

REFUSED = sorted(name for words, name in table.FLAGS if words == "create")


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_flag_of_create(client: Client, image: str, name: str) -> None:
    flag = next(flag for flag in load("run", "create").flags if flag[1] == name)
    value = VALUES.get(name) or ("true" if flag[2] == "bool" else evidence.SAMPLES[flag[2]])
    done = client("sampan", ["create", f"--{name}={value}", image])
    assert done.returncode != 0, done
    assert done.stdout == ""
    assert len(done.stderr.split("\n\n")[0].splitlines()) == 1
    assert client("sampan", ["ps", "-aq"]).stdout == ""
