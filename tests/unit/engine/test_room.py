"""When room on the disk is told to be little, and when it is refused; with real figures of a real disk."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.fakes.engine import FACTS

from sampan.engine.options import EngineOptions
from sampan.engine.paths import Paths
from sampan.engine.room import EVERY, Room, free, shown
from sampan.engine.settings import Settings
from sampan.errors import DiskFull


class Timer:
    def cancel(self) -> None:
        return


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    paths = Paths(data=str(tmp_path), run=str(tmp_path))
    return Settings(paths=paths, options=EngineOptions(low_disk_warning=0, low_disk_reserve=0), facts=FACTS)


def test_with_room_nothing_is_said(settings: Settings) -> None:
    room = Room(settings)
    room.need()
    assert room.warning() == ""


def test_below_the_reserve_what_needs_room_is_refused(settings: Settings) -> None:
    settings.options = replace(settings.options, low_disk_reserve=free(settings.paths.data).total + 1)
    room = Room(settings)
    with pytest.raises(DiskFull, match=r"no space left on device: .* are kept back; remove what is not"):
        room.need()
    assert "are kept back" in room.warning()


def test_below_the_warning_it_is_told_and_nothing_refused(settings: Settings) -> None:
    settings.options = replace(settings.options, low_disk_warning=free(settings.paths.data).total + 1)
    room = Room(settings)
    room.need()
    assert "has only" in room.warning()


def test_the_log_is_told_once_and_once_more_when_there_is_room_again(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    waiting: list[Callable[[], None]] = []

    def later(seconds: float, callback: Callable[[], None]) -> Timer:
        assert seconds == EVERY
        waiting.append(callback)
        return Timer()

    settings.later = later
    caplog.set_level(logging.WARNING)
    enough, little = settings.options, replace(settings.options, low_disk_warning=1 << 60)
    room = Room(settings)
    room.watch()
    assert caplog.messages == []
    settings.options = little
    waiting[-1]()
    waiting[-1]()
    assert len(caplog.messages) == 1
    settings.options = enough
    waiting[-1]()
    assert caplog.messages[1:] == [f"{settings.paths.data} has room again"]
    room.close()


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0B"), (999, "999B"), (1_770_000, "1.77MB"), (64 << 20, "67.1MB"), (5e12, "5TB")]
)
def test_sizes_read_as_dockers(size: int, text: str) -> None:
    assert shown(size) == text
