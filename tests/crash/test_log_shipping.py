"""kill -9 of the daemon while it sends a log on: every record arrives, in order, at least once."""

from __future__ import annotations

import itertools
import re

import pytest

from tests.collectors import Collector, collecting
from tests.crash.test_kills import answer, running_daemon

pytestmark = pytest.mark.root

LINES = 300_000
DEATHS = 4


def numbers(collector: Collector) -> list[int]:
    return list(map(int, re.findall(rb"\]: (\d+)\n", collector.received)))


def test_a_daemon_that_dies_while_it_sends_loses_nothing() -> None:
    with running_daemon() as daemon, collecting("tcp") as collector:
        options = {"syslog-address": f"tcp://{collector.address}", "cache-max-size": "50m"}
        document = {
            "Image": "sampan/base",
            "Cmd": ["seq", str(LINES)],
            "HostConfig": {"LogConfig": {"Type": "syslog", "Config": options}},
        }
        collector.limit = 0
        assert answer(daemon.send("POST", "/containers/create?name=one", document))[0] == 201
        assert daemon.ask("POST", "/containers/one/start")[0] == 204
        for _ in range(DEATHS):
            # In the middle of it: so much has come, and more is on its way.
            collector.take(1 << 20)
            collector.wait(lambda c: len(c.received) >= c.limit)
            daemon.kill()
            daemon.start()
        collector.take(1 << 62)
        collector.wait(lambda c: c.received.endswith(b"]: %d\n" % LINES))
        found = numbers(collector)
        assert sorted(set(found)) == list(range(1, LINES + 1))
        again = [after for before, after in itertools.pairwise(found) if after != before + 1]
        assert len(again) <= DEATHS
        assert daemon.ask("DELETE", "/containers/one?force=1")[0] == 204
