"""Running the command line in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from tests.golden.recorder import Recorder

from sampan.cli.main import main

Run: TypeAlias = Callable[..., tuple[int, str, str]]
"""Arguments to exit code, output and message."""


@pytest.fixture(autouse=True)
def _no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have settings and contexts of their own."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """A daemon that refuses everything, which ``SAMPAN_HOST`` points at."""
    found = Recorder(tmp_path / "socket")
    monkeypatch.setenv("SAMPAN_HOST", f"unix://{tmp_path}/socket")
    yield found
    found.close()


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Run ``sampan ARGUMENTS``."""

    def act(*arguments: str) -> tuple[int, str, str]:
        capfdbinary.readouterr()
        code = main(list(arguments))
        out, err = capfdbinary.readouterr()
        return code, out.decode(), err.decode()

    return act
