from __future__ import annotations

from pathlib import Path

from tests.unit.daemon.page import page


def test_the_page_of_settings_is_that_of_the_table() -> None:
    """Made by tools/settings-page."""
    assert (Path(__file__).parents[3] / "docs/daemon.md").read_text() == page()
