"""Fixtures of the tests on the real kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.root.boxes import Box


@pytest.fixture(params=[False, True], ids=["host-users", "private-users"])
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Box:
    """The runtime, with and without user ids of a container's own."""
    return Box(directory=tmp_path, private_users=request.param)
