from __future__ import annotations

from sampan.cli import main, preferences


def test_preferences_are_looked_at_when_the_file_has_one() -> None:
    assert {*preferences.FORMATS.values(), "detachKeys"} == main.PREFERENCES
