"""What the settings of doors say."""

from __future__ import annotations

import pytest

from sampan.daemon.doors import amounts
from sampan.errors import InvalidArgument


def test_quotas_are_read() -> None:
    found = amounts("users", "containers=10,memory=1.5g,cpus=0.5,pids=100")
    assert found == {"containers": 10, "memory": 3 << 29, "cpus": 5 * 10**8, "pids": 100}


@pytest.mark.parametrize(
    "text",
    ["", "boats=1", "containers", "memory=much", "pids=-1", "cpus=-1", "cpus=inf", "containers=1,,pids=1"],
)
def test_quotas_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--confined-limit users"):
        amounts("users", text)
