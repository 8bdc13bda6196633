"""What a client reads of errors that are no failures of the engine."""

from __future__ import annotations

import errno
import logging
import os

import pytest

from sampan.api.errors import message_of


def test_a_full_disk_is_told_as_such_and_is_no_bug(caplog: pytest.LogCaptureFixture) -> None:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with caplog.at_level(logging.ERROR):
        assert message_of(error, 7) == (
            "no space left on device: remove what is not needed, for instance with: system prune"
        )
    assert caplog.records[0].exc_info is None


def test_a_bug_is_logged_in_full_and_told_by_its_number(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        assert message_of(KeyError("x"), 7) == "internal error: KeyError (request 7 in the daemon's log)"
    assert caplog.records[0].exc_info
