"""Log drivers: where a container's records go, beside the copy that its keeper writes.

A keeper knows one format and writes it to a local file, whatever the driver. json-file and local are no more
than that file. The drivers below send its records on to a collector (``shipping`` does, from the file), so
that ``logs`` works with all of them and a collector that is away loses nothing that the file still has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sampan.engine.logdrivers import fluentd, gelf, journald, syslog
from sampan.engine.logdrivers.options import CACHE, Options
from sampan.engine.logdrivers.subject import Subject
from sampan.wire.logblocks import Entry


class Collector(Protocol):
    """Where records go. ``at_once``: a start does not wait for the connection.

    ``connect`` and ``send`` raise ``dial.Unreachable``; after that, ``connect`` is called before ``send``.
    """

    at_once: bool

    async def connect(self) -> None: ...

    async def send(self, entries: list[Entry]) -> None:
        """Hand records over, in order; some of them may have been when it raises."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """``check`` refuses wrong options; ``collector`` makes what records are sent to, not connected yet."""

    check: Callable[[Options], None]
    collector: Callable[[Subject, Options], Collector]


DRIVERS: dict[str, Driver] = {
    "syslog": Driver(check=syslog.check, collector=syslog.Syslog),
    "journald": Driver(check=journald.check, collector=journald.Journald),
    "fluentd": Driver(check=fluentd.check, collector=fluentd.Fluentd),
    "gelf": Driver(check=gelf.check, collector=gelf.Gelf),
}

LACKING = {
    "awslogs": "Amazon's client library",
    "splunk": "a Splunk HTTP event collector's protocol",
    "gcplogs": "Google's client library",
}
"""Drivers of Docker's on Linux that this engine has not, and what they would need."""


def own_options(given: Options) -> Options:
    """The driver's options without those of the local copy."""
    return {name: value for name, value in given.items() if name not in CACHE}
