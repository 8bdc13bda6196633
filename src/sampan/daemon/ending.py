"""The signals that ask for the daemon's end, from its first line on until the event loop hears them itself.

Law: who asks for the end gets status 0, at whatever moment. Before the daemon holds anything it ends on the
spot; from then on it is remembered, and what was begun is left in order. Between ``exec`` and here they are
blocked, where ``sampan daemon`` starts it.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Ending:
    """Hears ``SIGNALS`` from when it is made. ``told``: one came after ``hold``."""

    def __init__(self) -> None:
        self.told = False
        self._holds = False
        for number in SIGNALS:
            signal.signal(number, self._hear)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def hold(self) -> None:
        """There is something to leave in order from now on."""
        self._holds = True

    def release(self) -> None:
        """The signals do again what they do to any Python program."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        if not self._holds:
            os._exit(0)  # an exception could be lost: most of this time modules are imported
        self.told = True
