"""What a zygote leaves when nobody needs it any more."""

from __future__ import annotations

import asyncio
import glob
import os
import signal
import uuid
from pathlib import Path

import pytest

from sampan.runtime.zygote import Zygote
from sampan.sandbox import cgroups

pytestmark = pytest.mark.root


def test_its_cgroup_goes_although_the_keeper_that_stood_by_is_slow_to_end(tmp_path: Path) -> None:
    parent = f"/sampan-test-{uuid.uuid4().hex[:8]}"
    group = cgroups.engine_group(parent)

    async def scene() -> None:
        zygote = Zygote(str(tmp_path), str(tmp_path / "log"), group=group)
        await zygote.start()
        keeper = await _keeper(zygote.pid)
        assert _directories(group)
        os.kill(keeper, signal.SIGSTOP)
        held = _descriptors(zygote.pid)
        zygote.close()
        # It lets go of the daemon and the keeper, and, were it not to wait for that one, of everything.
        while _descriptors(zygote.pid) > held - 2:
            await asyncio.sleep(0)
        os.kill(keeper, signal.SIGCONT)
        await zygote.gone()

    asyncio.run(scene())
    assert _directories(group) == []
    assert _directories(parent) == []


def _directories(group: str) -> list[str]:
    return glob.glob(f"/sys/fs/cgroup/*{group}") + glob.glob(f"/sys/fs/cgroup{group}")


def _descriptors(pid: int) -> int:
    """How many descriptors the process has; none when it has ended."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except (FileNotFoundError, PermissionError):  # a zombie's are nobody's
        return 0


async def _keeper(pid: int) -> int:
    """The keeper that stands by: the zygote's second child, after the seed, which has told of it by then."""
    while len(found := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()) < 2:
        await asyncio.sleep(0)
    return int(found[1])
