"""Rates of devices, shares of real-time, memory in use, groups given away: on this host's own hierarchy."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sampan.errors import Conflict
from sampan.sandbox import cgroups, cgroups_v2
from sampan.sandbox import cgroups_files as files

if TYPE_CHECKING:
    from sampan.sandbox.cgroups import Cgroup, Hierarchy

pytestmark = pytest.mark.root

MEGABYTE = 1 << 20
PARENT = f"/sampan-rates-{os.getpid()}"


@pytest.fixture
def hierarchy() -> Hierarchy:
    return cgroups.detect()


@pytest.fixture
def group(hierarchy: Hierarchy) -> Iterator[Cgroup]:
    group = hierarchy.group(PARENT + "/one")
    yield group
    group.kill()
    group.remove()
    hierarchy.remove_parent(PARENT)


def place(hierarchy: Hierarchy, path: str, controller: str) -> Path:
    if isinstance(hierarchy, cgroups_v2.Hierarchy):
        return Path(hierarchy.mount + path)
    return Path(hierarchy.mounts[controller] + path)


def test_what_a_device_reads_and_writes_is_limited_and_given_back(
    hierarchy: Hierarchy, group: Cgroup
) -> None:
    numbers = next(
        (path.joinpath("dev").read_text().strip() for path in sorted(Path("/sys/block").iterdir())), None
    )
    if numbers is None:
        pytest.skip("this host has no disk")
    major, minor = map(int, numbers.split(":"))

    def rate(value: int) -> Any:
        return {"major": major, "minor": minor, "rate": value}

    group.create(
        {
            "blockIO": {
                "throttleReadBpsDevice": [rate(1000)],
                "throttleWriteBpsDevice": [rate(2000)],
                "throttleReadIOPSDevice": [rate(30)],
                "throttleWriteIOPSDevice": [rate(40)],
            }
        }
    )
    directory = place(hierarchy, group.path, "blkio")
    if isinstance(hierarchy, cgroups_v2.Hierarchy):
        assert (
            directory.joinpath("io.max").read_text() == f"{numbers} rbps=1000 wbps=2000 riops=30 wiops=40\n"
        )
    else:
        names = ("read_bps", "write_bps", "read_iops", "write_iops")
        found = [directory.joinpath(f"blkio.throttle.{name}_device").read_text() for name in names]
        assert found == [f"{numbers} {value}\n" for value in (1000, 2000, 30, 40)]
    group.update({"blockIO": {"throttleReadBpsDevice": [rate(0)]}})
    assert (
        "1000"
        not in directory.joinpath(
            "io.max" if hierarchy.version == 2 else "blkio.throttle.read_bps_device"
        ).read_text()
    )


def test_real_time_is_taken_from_the_groups_around_it(hierarchy: Hierarchy, group: Cgroup) -> None:
    if not hierarchy.features.cpu_realtime:
        pytest.skip("this kernel shares out no real-time")
    other = hierarchy.group(PARENT + "/two")
    group.create({"cpu": {"realtimeRuntime": 5000}})
    other.create({"cpu": {"realtimeRuntime": 7000, "realtimePeriod": 500_000}})
    try:
        assert files.read(str(place(hierarchy, group.path, "cpu") / "cpu.rt_runtime_us")).strip() == "5000"
        assert files.read(str(place(hierarchy, PARENT, "cpu") / "cpu.rt_runtime_us")).strip() == "19000"
        group.update({"cpu": {"realtimeRuntime": 6000}})
        assert files.read(str(place(hierarchy, PARENT, "cpu") / "cpu.rt_runtime_us")).strip() == "20000"
    finally:
        other.remove()


def test_real_time_of_a_group_just_removed_is_waited_for(hierarchy: Hierarchy, group: Cgroup) -> None:
    if not hierarchy.features.cpu_realtime:
        pytest.skip("this kernel shares out no real-time")
    names = [PARENT + "/one", PARENT + "/other"]
    group.create({"cpu": {"realtimeRuntime": 5000}})
    before = group
    for turn in range(1, 5):
        after = hierarchy.group(names[turn % 2])
        after.create({})
        before.remove()
        after.update({"cpu": {"realtimeRuntime": 5000}})
        before = after
    before.remove()


def test_a_limit_below_what_is_used_is_refused_with_the_numbers(hierarchy: Hierarchy, group: Cgroup) -> None:
    if hierarchy.version == 2:
        pytest.skip("version 2 takes the limit and gives the memory back by force")
    group.create({"memory": {"limit": 64 * MEGABYTE}})
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            group.join()
            held = mmap.mmap(-1, 24 * MEGABYTE)
            held.write(b"x" * len(held))
            os.write(told, b"x")
            os.read(ready, 2)  # for good
        finally:
            os._exit(0)
    os.close(told)
    os.read(ready, 1)
    words = rf"unable to set memory limit to {8 * MEGABYTE} \(current usage: \d+, peak usage: \d+\)"
    with pytest.raises(Conflict, match=words):
        group.update({"memory": {"limit": 8 * MEGABYTE}})
    group.kill()
    os.waitpid(child, 0)
    os.close(ready)


def test_who_is_given_a_group_makes_groups_in_it_and_keeps_its_limits(
    hierarchy: Hierarchy, group: Cgroup
) -> None:
    group.create({"pids": {"limit": 20}})
    group.delegate(4242)
    directory = place(hierarchy, group.path, "pids")
    assert (directory.stat().st_gid, stat.S_IMODE(directory.stat().st_mode)) == (4242, 0o775)
    assert (directory / "cgroup.procs").stat().st_gid == 4242
    assert (directory / "pids.max").stat().st_gid == 0
