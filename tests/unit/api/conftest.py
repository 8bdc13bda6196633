"""Fixtures of the api's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.api import REFERENCE, Description, Serve, Served

from sampan.api.routes import ROUTES
from sampan.api.routing import Route


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start servers: ``serve(engine, routes)``; all routes by default."""
    running: list[Served] = []

    def start(engine: Any = None, routes: tuple[Route, ...] = ROUTES) -> Served:
        served = Served(str(tmp_path / f"{len(running)}.sock"), engine, routes)
        running.append(served)
        return served

    yield start
    for served in running:
        served.close()


@pytest.fixture(scope="session")
def description() -> Description:
    """The Engine API's description; skips where the reference data or a YAML reader is absent."""
    yaml = pytest.importorskip("yaml", reason="reading the API's description needs PyYAML")
    if not REFERENCE.exists():
        pytest.skip("the Engine API's description is not on this machine")
    with REFERENCE.open("rb") as file:
        return Description(yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
