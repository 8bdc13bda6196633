"""What is found of a process that failed as nobody foresaw."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.root.boxes import Box

from sampan.errors import StartFailed
from sampan.runtime.runtime import Runtime
from sampan.sandbox import lastwords

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def test_a_launcher_that_breaks_names_the_request(tmp_path: Path) -> None:
    box = Box(directory=tmp_path, private_users=False)
    box.runtime = Runtime(box.zygote, str(tmp_path / "run"), request=lambda: 4711)

    def no_mounts_at_all(spec: Any) -> None:
        spec["mounts"] = 5

    async def scenario(box: Box) -> None:
        launch = box.launch("true", name="broken", change=no_mounts_at_all)
        with pytest.raises(StartFailed, match="its keeper ended without a word"):
            await box.runtime.launch(launch, [])

    box.run(scenario)
    line, *trace = (tmp_path / "zygote.log").read_text().splitlines()
    assert "level=error" in line
    assert line.endswith("module=sandbox.launcher id=broken request=4711")
    assert trace[0] == "Traceback (most recent call last):"


def test_words_are_one_line_whatever_was_asked(capfd: pytest.CaptureFixture[str]) -> None:
    def said(keeping: bytes) -> str:
        try:
            raise ValueError("one\nand two")
        except ValueError:
            lastwords.say("keeper", keeping)
        return capfd.readouterr().err.splitlines()[0]

    words = 'level=error msg="ValueError: one\\nand two" module=sandbox.keeper'
    assert said(b'\0{"id":"box","request":7}').endswith(f"{words} id=box request=7")
    assert said(b"\0{").endswith(words)
    assert said(b"").endswith(words)
