"""Real groups, on whichever hierarchy this host has.

A hybrid host is tried without version 2 too, and its version 2 tree as if there were nothing else: that one
has no controllers, but groups, events, freezing, killing and device programs are what they are everywhere.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from sampan.errors import Conflict, InvalidArgument
from sampan.linux import process
from sampan.sandbox import cgroups, cgroups_v1, cgroups_v2
from sampan.sandbox import cgroups_files as files
from sampan.spec.runtime import default_spec

if TYPE_CHECKING:
    from sampan.sandbox.cgroups import Cgroup, Hierarchy
    from sampan.spec.runtime import LinuxResources

pytestmark = pytest.mark.root

MEGABYTE = 1 << 20
PARENT = f"/sampan-test-{os.getpid()}"
DEADLINE = 30.0


@pytest.fixture(params=["host", "without-unified"])
def hierarchy(request: pytest.FixtureRequest) -> Hierarchy:
    found = cgroups.detect()
    if request.param == "host":
        return found
    if isinstance(found, cgroups_v2.Hierarchy) or found.unified is None:
        pytest.skip("this host is not hybrid")
    if request.param == "unified-alone":
        return cgroups_v2.Hierarchy(found.unified)
    controllers, _ = cgroups.parse_mounts(files.read("/proc/self/mountinfo"))
    return cgroups_v1.Hierarchy(controllers, None)


@pytest.fixture
def group(hierarchy: Hierarchy) -> Iterator[Cgroup]:
    group = hierarchy.group(PARENT + "/one")
    yield group
    group.kill(timeout=DEADLINE)
    group.remove()
    hierarchy.remove_parent(PARENT)


without_controllers = pytest.mark.parametrize(
    "hierarchy", ["host", "without-unified", "unified-alone"], indirect=True
)
"""For what groups can without any controller."""


class Child:
    """A process inside a group that runs ``body`` when it is told to."""

    def __init__(self, group: Cgroup, body: Callable[[], None] = signal.pause) -> None:
        ready, tell_ready = os.pipe()
        wait, self._go = os.pipe()
        fd = group.clone_fd()
        self.pid, self._pidfd = process.clone3(cgroup_fd=fd)
        if self.pid == 0:
            try:
                group.join(cloned=fd is not None)
                os.write(tell_ready, b"x")
                os.read(wait, 1)
                body()
            finally:
                os._exit(0)
        for used in (tell_ready, wait, *(() if fd is None else (fd,))):
            os.close(used)
        assert os.read(ready, 1) == b"x"
        os.close(ready)

    def go(self) -> None:
        os.write(self._go, b"x")
        os.close(self._go)
        self._go = -1

    def wait(self) -> int:
        """The exit code, or the negative number of the signal that killed it."""
        status = os.waitpid(self.pid, 0)[1]
        os.close(self._pidfd)
        if self._go >= 0:
            os.close(self._go)
        return os.waitstatus_to_exitcode(status)


def value(hierarchy: Hierarchy, group: Cgroup, v1: str, v2: str) -> str:
    """The text of a control file, by its name in either version."""
    if isinstance(hierarchy, cgroups_v2.Hierarchy):
        return files.read(f"{hierarchy.mount}{group.path}/{v2}").strip()
    return files.read(f"{hierarchy.mounts[v1.partition('.')[0]]}{group.path}/{v1}").strip()


LIMITS: LinuxResources = {
    **default_spec()["linux"]["resources"],
    "memory": {"limit": 64 * MEGABYTE, "swap": 64 * MEGABYTE, "reservation": 32 * MEGABYTE},
    "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0"},
    "pids": {"limit": 50},
}


def test_limits_are_set_changed_and_gone(hierarchy: Hierarchy, group: Cgroup) -> None:
    group.create(LIMITS)
    assert value(hierarchy, group, "memory.limit_in_bytes", "memory.max") == str(64 * MEGABYTE)
    assert value(hierarchy, group, "memory.soft_limit_in_bytes", "memory.low") == str(32 * MEGABYTE)
    assert value(hierarchy, group, "pids.max", "pids.max") == "50"
    assert value(hierarchy, group, "cpu.cfs_quota_us", "cpu.max") in ("50000", "50000 100000")
    assert value(hierarchy, group, "cpuset.cpus", "cpuset.cpus") == "0"
    group.update(
        {
            "memory": {"limit": 256 * MEGABYTE, "swap": 512 * MEGABYTE},
            "cpu": {"quota": 200000, "period": 200000},
            "pids": {"limit": -1},
        }
    )
    assert value(hierarchy, group, "memory.limit_in_bytes", "memory.max") == str(256 * MEGABYTE)
    assert value(hierarchy, group, "cpu.cfs_quota_us", "cpu.max") in ("200000", "200000 200000")
    assert value(hierarchy, group, "pids.max", "pids.max") == "max"
    group.update({"memory": {"limit": 64 * MEGABYTE, "swap": 64 * MEGABYTE}})
    stats = group.stats()
    assert stats.memory_limit == 64 * MEGABYTE
    assert stats.pids_limit is None
    assert stats.pids == 0
    group.remove()
    group.remove()
    assert group.pids() == []
    assert group.oom_killed() is False
    assert group.kill() is True
    assert group.thaw() is True
    assert group.frozen() is False


def test_swap_is_limited_where_the_host_can(hierarchy: Hierarchy, group: Cgroup) -> None:
    if not hierarchy.features.swap_limit:
        pytest.skip("this host cannot limit swap")
    group.create({"memory": {"limit": 64 * MEGABYTE, "swap": 96 * MEGABYTE}})
    assert value(hierarchy, group, "memory.memsw.limit_in_bytes", "memory.swap.max") in (
        str(96 * MEGABYTE),
        str(32 * MEGABYTE),
    )


def test_a_value_that_the_kernel_refuses_leaves_nothing(hierarchy: Hierarchy, group: Cgroup) -> None:
    with pytest.raises(
        InvalidArgument, match=r'^failed to write "999": write /sys/fs/cgroup/.*cpuset.cpus: '
    ):
        group.create({"cpu": {"cpus": "999"}})
    mounts = (
        {hierarchy.mount}
        if isinstance(hierarchy, cgroups_v2.Hierarchy)
        else {*hierarchy.mounts.values(), *([hierarchy.unified] if hierarchy.unified else [])}
    )
    assert not any(os.path.exists(mount + group.path) for mount in mounts)


def test_what_an_earlier_start_left_is_made_anew(hierarchy: Hierarchy, group: Cgroup) -> None:
    group.create({"pids": {"limit": 7}})
    group.create({})
    assert value(hierarchy, group, "pids.max", "pids.max") == "max"
    child = Child(group)
    with pytest.raises(Conflict, match="already has processes"):
        group.create({})
    assert group.kill(timeout=DEADLINE)
    child.wait()


@without_controllers
def test_a_process_joins_every_tree(hierarchy: Hierarchy, group: Cgroup) -> None:
    group.create(LIMITS)
    child = Child(group)
    assert group.pids() == [child.pid]
    lines = files.read(f"/proc/{child.pid}/cgroup").splitlines()
    inside = {line.split(":")[1] for line in lines if line.endswith(group.path)}
    if isinstance(hierarchy, cgroups_v2.Hierarchy):
        assert inside == {""}
    else:
        wanted = set(hierarchy.mounts) | ({""} if hierarchy.unified else set())
        assert {name for names in inside for name in names.split(",")} == wanted
    with pytest.raises(Conflict, match="still has processes"):
        group.remove(patience=0)
    assert group.kill(timeout=DEADLINE)
    assert child.wait() == -signal.SIGKILL
    assert group.pids() == []


@without_controllers
def test_joining_without_having_been_cloned_into_it(hierarchy: Hierarchy, group: Cgroup) -> None:
    group.create({})
    pid = os.fork()
    if pid == 0:
        try:
            group.join()
            os._exit(int(group.pids() != [os.getpid()]))
        finally:
            os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@without_controllers
def test_a_frozen_group_stands_still_and_can_be_killed(group: Cgroup) -> None:
    group.create({})
    counter = mmap.mmap(-1, 8)
    number = ctypes.c_uint64.from_buffer(counter)

    def count() -> None:
        while True:
            number.value += 1

    child = Child(group, count)
    child.go()
    wait_until(lambda: number.value > 1000)
    assert not group.frozen()
    assert group.freeze(timeout=DEADLINE)
    assert group.frozen()
    still = number.value
    os.kill(child.pid, signal.SIGCONT)
    assert number.value == still
    assert group.thaw(timeout=DEADLINE)
    assert not group.frozen()
    wait_until(lambda: number.value > still)
    assert group.freeze(timeout=DEADLINE)
    assert group.kill(timeout=DEADLINE)
    assert child.wait() == -signal.SIGKILL


@without_controllers
def test_everything_inside_is_killed_also_in_groups_within(hierarchy: Hierarchy, group: Cgroup) -> None:
    group.create({})
    inner = hierarchy.group(group.path + "/inner/most")
    # A container that manages groups moves its own processes out of the way first.
    first = Child(group) if not isinstance(hierarchy, cgroups_v2.Hierarchy) else None
    inner.create({})
    second = Child(inner)
    expected = sorted(child.pid for child in (first, second) if child is not None)
    assert group.pids() == expected
    assert group.kill(timeout=DEADLINE)
    for child in (first, second):
        assert child is None or child.wait() == -signal.SIGKILL
    group.remove()
    assert group.pids() == []


def test_too_much_memory_is_told_apart(group: Cgroup) -> None:
    group.create({"memory": {"limit": 16 * MEGABYTE, "swap": 16 * MEGABYTE}})

    def hog() -> None:
        kept = []
        while True:
            kept.append(b"x" * MEGABYTE)

    child = Child(group, hog)
    assert not group.oom_killed()
    child.go()
    assert child.wait() == -signal.SIGKILL
    assert group.oom_killed()


def test_a_fork_bomb_stops_at_the_limit(group: Cgroup) -> None:
    group.create({"pids": {"limit": 5}})
    outcome = mmap.mmap(-1, 8)

    def bomb() -> None:
        forked = 0
        try:
            while forked < 20:
                if os.fork() == 0:
                    signal.pause()
                forked += 1
        except BlockingIOError:
            outcome[0] = forked

    child = Child(group, bomb)
    child.go()
    assert child.wait() == 0
    assert outcome[0] == 4
    assert group.kill(timeout=DEADLINE)


def test_a_tenth_of_a_processor_is_no_more_than_that(group: Cgroup) -> None:
    group.create({"cpu": {"quota": 2000, "period": 20000}})

    def spin() -> None:
        # A given amount of work, so that a busy machine makes it only longer.
        end = time.process_time() + 0.06
        while time.process_time() < end:
            pass

    child = Child(group, spin)
    start = time.monotonic()
    child.go()
    child.wait()
    assert group.stats().cpu_throttled_periods > 0
    assert time.monotonic() - start > 0.06 * 10 * 0.6


@without_controllers
def test_devices_are_refused_unless_they_are_listed(group: Cgroup) -> None:
    group.create(default_spec()["linux"]["resources"])
    path = f"/tmp/sampan-test-device-{os.getpid()}"

    def probe() -> None:
        with open("/dev/null", "wb"):
            os.mknod(path, 0o600 | 0o060000, os.makedev(7, 0))  # making any node is allowed
        try:
            os.open(path, os.O_RDONLY)
        except PermissionError:
            os._exit(42)

    child = Child(group, probe)
    child.go()
    try:
        assert child.wait() == 42
    finally:
        os.unlink(path)
    group.update({"devices": [{"allow": True, "access": "rwm"}]})

    def open_memory() -> None:
        os.close(os.open("/dev/zero", os.O_RDWR))
        os.close(os.open("/dev/urandom", os.O_RDONLY))
        os._exit(43)

    child = Child(group, open_memory)
    child.go()
    assert child.wait() == 43


def test_what_a_group_has_used(group: Cgroup) -> None:
    group.create({})

    def work() -> None:
        kept = b"x" * (8 * MEGABYTE)
        for _ in range(200_000):
            pass
        signal.pause()
        del kept

    child = Child(group, work)
    child.go()
    wait_until(lambda: group.stats().memory_usage > 8 * MEGABYTE)
    stats = group.stats()
    assert stats.cpu_total > 0
    assert stats.pids == 1
    assert stats.memory_limit is None
    assert stats.memory_details
    assert group.kill(timeout=DEADLINE)
    child.wait()


def test_a_parent_is_removed_when_it_is_empty(hierarchy: Hierarchy) -> None:
    one, other = (hierarchy.group(f"{PARENT}/{name}") for name in ("one", "other"))
    one.create({})
    other.create({})
    one.remove()
    hierarchy.remove_parent(PARENT)
    assert other.clone_fd() is None or value(hierarchy, other, "pids.max", "pids.max") == "max"
    other.remove()
    hierarchy.remove_parent(PARENT)
    hierarchy.remove_parent(PARENT)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()
